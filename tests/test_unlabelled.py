"""Learning from unlabelled texts before adapting: what is kept, what is given back, what is refused."""

import json

import numpy as np
import pytest
import torch

from nlpmeta.cli.app import main
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.training import unlabelled
from nlpmeta.training.unlabelled import learn_from_texts, tasks_from

WORDS = "ball goal match team rice soup bread salt bank loan cash rate".split()


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, 5)) for _ in range(80)]


@pytest.fixture
def support(pool):
    rows = [row for label in range(3) for row in range(len(pool)) if pool.labels[row] == label][::4]
    return pool.select(rows)


def learn(texts, support, folder, **changes):
    return learn_from_texts("auto", texts, support, encoder=str(folder), steps=3, **changes)


def planted(monkeypatch, before, after):
    """What the held-out support texts say, in place of what they would."""
    answers = iter([torch.tensor(before), torch.tensor(after)])
    monkeypatch.setattr(unlabelled, "likelihoods", lambda *_: next(answers))


def test_a_gain_beyond_its_error_is_kept_with_adapters_that_have_learned(texts, support, encoder_folder, monkeypatch):
    planted(monkeypatch, [-2.0, -2.0, -2.0], [-1.0, -1.2, -0.9])
    learner, found = learn(texts, support, encoder_folder)
    assert found.kept
    assert found.after - found.before == pytest.approx(0.9667, abs=1e-3)
    assert any(
        bool((weight != 0).all()) for name, weight in adapter_weights(learner.encoder).items() if "lora_B" in name
    )
    assert learner.encoder.trained == {"unlabelled_texts": len(set(texts)), "unlabelled_steps": 3}
    assert "3 steps on" in str(found)
    assert str(found).endswith("kept.")


@pytest.mark.parametrize("after", [[-2.5, -2.5, -2.5], [-2.0, -2.0, -2.0], [-5.0, 1.1, -2.0]])
def test_a_loss_no_change_or_chance_gives_the_earlier_model_back(texts, support, encoder_folder, monkeypatch, after):
    planted(monkeypatch, [-2.0, -2.0, -2.0], after)
    learner, found = learn(texts, support, encoder_folder)
    assert not found.kept
    assert not adapter_weights(learner.encoder)
    assert "not kept" in str(found)


@pytest.mark.slow
def test_the_guard_reads_what_the_support_says_of_texts_that_were_held_out(texts, support, encoder_folder):
    _, found = learn(texts, support, encoder_folder)
    again = learn(texts, support, encoder_folder)[1]
    assert found == again
    assert found.before < 0
    assert found.after < 0
    assert found.kept == (found.after - found.before > found.standard_error)


def test_with_one_text_a_class_the_names_are_the_measure_and_without_them_nothing_is_done(texts, encoder_folder):
    one = LabeledTexts.from_names(["ball goal", "rice soup", "bank loan"], ["ball team", "bread salt", "cash rate"])
    assert learn(texts, one, encoder_folder)[1].before is not None
    numbered = LabeledTexts.from_names(one.texts, ["1", "2", "3"])
    learner, found = learn(texts, numbered, encoder_folder)
    assert (found.before, found.steps, found.kept) == (None, 0, False)
    assert not adapter_weights(learner.encoder)
    assert "cannot be seen" in str(found) or "not used" in str(found)


def test_support_texts_are_not_learned_from_and_too_few_texts_are_refused(support, encoder_folder):
    with pytest.raises(DataError, match=r"takes 50 or more distinct ones; there are 2\."):
        learn([*support.texts, "one more", "and another", "And  another"], support, encoder_folder)


def test_a_method_that_embeds_its_texts_itself_is_refused(texts, support, encoder_folder):
    with pytest.raises(NLPMetaError, match="maml embeds its texts itself"):
        learn_from_texts("maml", texts, support, encoder=str(encoder_folder))


def test_kinds_of_tasks_that_the_texts_are_too_few_for_are_left_out(texts):
    rare = [f"{text} {chr(97 + i % 20) * 3}" for i, text in enumerate(texts)]
    kinds = [type(each).__name__ for each in tasks_from(rare, mask="[MASK]", seed=0).samplers]
    assert kinds == ["ClusterSampler", "SentenceViewSampler", "MaskedWordSampler"]
    assert len(tasks_from(texts, mask=None, seed=0).samplers) == 1
    assert len(tasks_from([f"a{i} b" for i in range(60)], mask="[MASK]", seed=0).samplers) == 1


@pytest.mark.slow
def test_the_command_leaves_out_what_it_scores_on_and_says_what_it_did(tmp_path, table, texts, encoder_folder, capsys):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join([*texts, "ball goal"]) + "\n", encoding="utf-8")
    asked = ["adapt", "--data", str(table), "--shots", "3", "--draws", "2", "--encoder", str(encoder_folder)]
    asked += ["--unlabelled", str(corpus), "--unlabelled-steps", "3", "--out", str(tmp_path / "model")]
    assert main([*asked, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    found = report["learned_from_texts"]
    assert found["n_texts"] == len(set(texts))
    assert isinstance(found["kept"], bool)
    assert (tmp_path / "model" / "adapter_config.json").is_file() == found["kept"]
    assert main([*asked, "--overwrite"]) == 0
    assert "Unlabelled texts: 3 steps on" in capsys.readouterr().out
