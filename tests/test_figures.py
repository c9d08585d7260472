"""Figures that are what they say: what was scored, how often, and which of two accuracies to believe."""

import csv
import json

import numpy as np
import pytest

from nlpmeta.auto.diagnosis import diagnose
from nlpmeta.auto.method import AutoHead
from nlpmeta.cli import main
from nlpmeta.cli.adapt import show
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.evaluation import trial_json as report_of
from nlpmeta.evaluation.trial import Measured, Stopwatch, Task, run_trial
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.metrics import macro_f1
from nlpmeta.metrics.scores import Proportion
from nlpmeta.sharing.card import Score
from nlpmeta.sharing.gather import gather


@pytest.fixture(scope="module")
def halves(pool):
    """The topics in two halves: to learn from and to score on."""
    return pool.select(range(0, len(pool), 2)), pool.select(range(1, len(pool), 2))


def trial_of(encoder, sampler, n_draws=5):
    task = Task.of(sampler, n_draws=n_draws, seed=0)
    learner = PrototypicalNetwork(encoder).eval()
    return run_trial(learner, task, method="prototypical", table=EmbeddingTable(encoder), watch=Stopwatch())


def said(trial, tmp_path, capsys):
    show(trial, tmp_path, Stopwatch())
    return capsys.readouterr().out


@pytest.mark.parametrize("n_shot", [None, 8, 20])
def test_the_one_support_there_is_is_scored_once(encoder, halves, n_shot, tmp_path, capsys):
    learn, test = halves
    sampler = KShotSampler(learn, n_shot=n_shot, seed=0, test=test, rare="keep")
    trial = trial_of(encoder, sampler)
    assert (trial.task.n_draws, trial.n_texts, trial.n_query) == (1, len(test), len(test))
    assert isinstance(trial.method.accuracy, Proportion)
    assert trial.method.accuracy.n == len(test)
    assert trial.task.uses_all_examples
    out = said(trial, tmp_path, capsys)
    assert f"one run, {len(test)} texts" in out
    assert "Wilson" in out
    assert "draws" not in out


def test_several_supports_are_several_draws_and_texts_are_told_from_predictions(encoder, halves, tmp_path, capsys):
    learn, test = halves
    trial = trial_of(encoder, KShotSampler(learn, n_shot=3, seed=0, test=test))
    assert (trial.n_texts, trial.n_query) == (len(test), 5 * len(test))
    assert f"5 draws, {5 * len(test)} predictions for {len(test)} texts" in said(trial, tmp_path, capsys)
    assert not trial.task.uses_all_examples


def test_folds_are_called_folds_and_their_figures_are_of_all_texts_together(encoder, pool, tmp_path, capsys):
    trial = trial_of(encoder, KShotSampler(pool, n_shot=None, seed=0))
    facts = report_of(trial, task={"data": "d", "shots": None}, lang=None, folder=tmp_path, watch=Stopwatch())
    assert (facts["draws"], facts["folds"], facts["n_texts"]) == (None, 5, len(pool))
    true = [label for score in trial.method.scores for label in score.episode.query.labels]
    guess = [label for score in trial.method.scores for label in score.predictions]
    assert facts["accuracy"]["right"] == int(np.sum(np.asarray(true) == guess))
    assert facts["macro_f1"] == {"mean": pytest.approx(macro_f1(true, guess), abs=1e-8), "ci95": None}
    out = said(trial, tmp_path, capsys)
    assert f"5 folds, {len(pool)} texts, each scored once" in out
    assert "draws" not in out


def test_a_text_that_every_draw_mistakes_is_one_confused_text(encoder, pool):
    wrong = LabeledTexts.from_names(["ball ball", "rice rice", "bank bank"], ["food", "money", "sport"])
    trial = trial_of(encoder, KShotSampler(pool, n_shot=2, seed=0, test=wrong))
    assert trial.n_query == 15
    assert sum(texts for _, _, texts in Measured("all", trial.method.scores).confused()) <= 3


def test_one_set_of_examples_has_one_forecast_whatever_its_order(encoder, pool):
    auto = AutoHead(encoder).eval()
    names = np.random.default_rng(1).permutation(pool.names()[::2]).tolist()  # what is held out then matters
    some = LabeledTexts.from_names(pool.texts[::2], names)
    orders = [np.random.default_rng(seed).permutation(len(some)).tolist() for seed in (1, 2, 3)]
    found = [diagnose(auto, some.select(order)).json() for order in orders]
    other_names = some.with_classes(["sport", "money", "food"])
    assert found[0] == found[1] == found[2] == diagnose(auto, other_names).json()


@pytest.fixture
def adapt(encoder_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main(["adapt", *map(str, arguments), "--encoder", str(encoder_folder), "-q"])
        out = capsys.readouterr().out
        assert code == 0
        return out

    return call


def write(path, data):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *zip(data.texts, data.names(), strict=True)])
    return path


@pytest.mark.slow
def test_every_way_to_all_examples_gives_the_forecast_of_task_report(adapt, halves, encoder_folder, tmp_path):
    from nlpmeta import FewShotClassifier

    learn, test = (write(tmp_path / name, part) for name, part in zip(("a.csv", "b.csv"), halves, strict=True))
    ways = [("--shots", "all"), ("--shots", "all", "--test-data", test), ("--shots", 8, "--test-data", test)]
    found = [json.loads(adapt("--data", learn, *way, "--out", f"m{i}", "--json")) for i, way in enumerate(ways)]
    model = FewShotClassifier(encoder=str(encoder_folder), checkpoint="none").fit(
        list(halves[0].texts), halves[0].names()
    )
    forecasts = [each["task_report"]["expected_accuracy"] for each in found]
    assert forecasts == [model.task_report().json()["expected_accuracy"]] * 3
    assert [each["scored"] for each in found[1:]] == ["one run, 24 texts"] * 2


def test_few_texts_say_little_and_the_output_says_which_accuracy_to_believe(adapt, pool, halves, tmp_path):
    learn, test = halves
    data = write(tmp_path / "a.csv", learn)
    few = adapt("--data", data, "--test-data", write(tmp_path / "b.csv", test), "--shots", 3, "--out", "m")
    assert "only 24 texts were scored" in few
    assert "trust the expected accuracy" in few or "trust the warning" in few
    many = LabeledTexts.from_names([f"{text} ball" for text in pool.texts], pool.names())
    enough = adapt("--data", data, "--test-data", write(tmp_path / "c.csv", many), "--shots", 3, "--out", "n")
    assert "says little" not in enough
    assert "trust the measured accuracy" in enough or "trust the warning" in enough


def test_repeated_examples_and_labels_in_capital_letters_are_said(adapt, pool, tmp_path):
    names = [name.upper() if row % 2 else name for row, name in enumerate(pool.names())]
    twice = LabeledTexts.from_names([*pool.texts, *pool.texts[:5]], [*names, *names[:5]])
    said = adapt("--data", write(tmp_path / "a.csv", twice), "--shots", "all", "--method", "ridge", "--out", "m")
    assert "53 examples (48 texts), each scored once" in said
    assert "'FOOD' and 'food' differ only in capital letters" in said


def test_the_card_repeats_runs_folds_and_texts_and_never_the_name_of_a_file(adapt, pool, tmp_path, capsys):
    adapt("--data", write(tmp_path / "clients-of-acme.csv", pool), "--shots", "all", "--out", "m")
    facts = gather(tmp_path / "m")
    assert facts.measured is not None
    assert facts.measured.scored == "5 folds, 48 texts, each scored once"
    assert "acme" not in repr(facts)
    assert facts.licence is None
    assert main(["info", "m"]) == 0
    assert "5 folds, 48 texts" in capsys.readouterr().out


def test_a_share_of_texts_on_a_card_keeps_the_ends_of_its_interval():
    assert Score(0.9, ends=(0.744, 0.965)).text() == "90.0 (74.4 to 96.5)"
    assert Score(0.9, 0.02).text() == "90.0 ± 2.0"
