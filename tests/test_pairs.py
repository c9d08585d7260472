"""Pairs of texts: both embeddings, their difference and their product, through the learners that texts go through."""

import json
import re
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TOPICS, make_encoder
from typer.testing import CliRunner

from nlpmeta import FewShotClassifier
from nlpmeta.auto.diagnosis import known_families
from nlpmeta.cli import app, main
from nlpmeta.data.inputs import BETWEEN, Pair, checked_texts, typed
from nlpmeta.encoder.parts import ALIKE
from nlpmeta.encoder.table import EmbeddingTable, state_digest
from nlpmeta.encoder.views import ScaledEncoder
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError
from nlpmeta.learners.base import learners
from nlpmeta.storage.manifest import MANIFEST, write_manifest

TAKES = ["auto", "knn", "logistic", "matching", "prototypical", "ridge"]


@pytest.fixture(scope="module")
def task():
    """Whether two words are of one topic."""
    rng, topics = np.random.default_rng(0), {name: words.split() for name, words in TOPICS.items()}
    pairs, names = [], []
    for number in range(48):
        first, other = rng.choice(sorted(topics), 2, replace=False)
        second = first if number % 2 else other
        pairs.append((str(rng.choice(topics[first])) + " a", str(rng.choice(topics[second])) + " b"))
        names.append("same" if number % 2 else "different")
    return pairs, names


def test_the_nearest_known_tasks_are_of_texts_and_none_is_named_for_pairs(task, encoder_folder, monkeypatch):
    classifier = FewShotClassifier(encoder=str(encoder_folder), checkpoint="none").fit(*task)
    known = replace(known_families(), digest=classifier.learner_.encoder.files.digest)
    monkeypatch.setattr("nlpmeta.auto.diagnosis.known_families", lambda: known)
    report = classifier.task_report()
    assert report.nearest is None and report.farther is None and report.held_out is not None


def test_the_embedding_of_a_pair_is_both_their_difference_and_their_product():
    plain = make_encoder()
    encoder, pairs = plain.of_pairs(), [Pair.of("ball goal", "rice"), Pair.of("soup", "soup")]
    found = encoder.encode(pairs)
    first, second = plain.encode(["ball goal", "soup"]), plain.encode(["rice", "soup"])
    cosine = ALIKE * (first * second).sum(1, keepdim=True)
    expected = torch.cat([first, second, 2 * (first - second).abs(), 4 * first * second, cosine], dim=1)
    torch.testing.assert_close(found, expected)
    assert encoder.dim == found.size(1) == 4 * plain.dim + 1
    assert encoder.of_pairs(False).dim == plain.dim
    torch.testing.assert_close(EmbeddingTable(encoder)(pairs), found)
    assert torch.equal(encoder.of_pairs(False).encode(["rice"]), plain.encode(["rice"]))
    assert state_digest(encoder) != state_digest(plain)


def test_long_texts_of_a_pair_are_read_in_windows():
    plain = make_encoder().reading(200, 20)
    long = "ball goal rice soup " * 20
    found = plain.of_pairs().encode([Pair.of(long, "rice")])
    torch.testing.assert_close(found[:, :16], plain.encode([long]))


@pytest.mark.parametrize("method", TAKES)
def test_a_learner_of_embeddings_fits_predicts_and_is_saved(method, encoder_folder, task, tmp_path):
    pairs, names = task
    model = FewShotClassifier(method, encoder=str(encoder_folder)).fit(pairs, names)
    assert model.predict(pairs[:3]).tolist() == model.predict([list(pair) for pair in pairs[:3]]).tolist()
    assert model.predict_proba(pairs).shape == (48, 2)
    model.save_pretrained(tmp_path / "m", include_support=True)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(pairs), model.predict_proba(pairs))
    loaded.partial_fit([("soup a", "rice b")], ["same"])
    assert len(loaded.examples_.texts) == 49
    loaded.add_class("unclear", [("zzz", "ball"), ("yyy", "rice")])
    assert loaded.predict_proba(pairs[:1]).shape == (1, 3)


@pytest.mark.parametrize("form", [True, 1, 3, "2", None])
def test_a_model_of_another_form_of_pairs_is_refused(encoder_folder, task, tmp_path, form):
    FewShotClassifier("ridge", encoder=str(encoder_folder)).fit(*task).save_pretrained(tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / MANIFEST).read_text())
    manifest["encoder"]["pairs"] = form
    (tmp_path / "m" / MANIFEST).unlink()
    write_manifest(
        tmp_path / "m", {k: v for k, v in manifest.items() if k not in ("files", "format_version", "nlpmeta")}
    )
    with pytest.raises(ModelFolderError, match="embeddings of another form"):
        FewShotClassifier.from_pretrained(tmp_path / "m")


def test_the_order_of_arguments_is_kept_and_a_pair_is_no_bag_of_words(encoder_folder):
    pairs = [("ball", "rice"), ("goal", "soup"), ("rice", "ball"), ("soup", "goal")]
    names = ["sport first", "sport first", "food first", "food first"]
    model = FewShotClassifier("logistic", encoder=str(encoder_folder)).fit(pairs, names)
    assert model.predict(pairs).tolist() == names


@pytest.mark.parametrize("given", [
    lambda pairs: np.array(pairs), lambda pairs: pd.DataFrame(pairs, columns=["text_a", "text_b"]),
    lambda pairs: pd.DataFrame(pairs, columns=["text_a", "text_b"]).assign(other=1), lambda pairs: iter(pairs),
    lambda pairs: pd.Series(pairs),
])  # fmt: skip
def test_pairs_come_as_lists_arrays_and_tables(given):
    pairs = [("ball", "rice"), ("goal", "soup")]
    found = checked_texts(given(pairs), pairs=True)
    assert [each.halves for each in found] == pairs


@pytest.mark.parametrize(
    "text", ["plain", "it's", 'say "no"', "costs $HOME", "back`tick`", "a\\b", "really!", "'$(x)'"]
)
def test_a_text_is_typed_so_that_a_shell_gives_it_back(text):
    for given, expected in ((text, text), (Pair.of(text, "other"), f"{text}\tother")):
        found = subprocess.run(["bash", "-c", f"printf %s {typed(given)}"], capture_output=True, check=True)
        assert found.stdout.decode() == expected


@pytest.mark.parametrize(("given", "message"), [
    ([("a", "b"), "c"], "mixes pairs and texts: row 1 is 'c'"), (["c", ("a", "b")], "mixes pairs and texts: row 0"),
    ([("a", "b", "c")], "row 0 has 3 texts"), ([("a",)], "row 0 has 1 texts"),
    ([("a", " ")], "second text of row 0 is empty"),
    ([("", "b")], "first text of row 0 is empty"), ([("a", None)], "second text of row 0 is missing"),
    ([("a", 3)], "second text of row 0 is 3"), ([("a", f"b{BETWEEN}")], "control character"),
    ([("a", "\ud800")], "lone surrogate"),
])  # fmt: skip
def test_what_is_no_pair_is_refused_with_its_row(given, message):
    with pytest.raises(DataError, match=message):
        FewShotClassifier("ridge", encoder=make_encoder()).fit(given, ["x"] * len(given))


@pytest.mark.parametrize("method", sorted(set(learners) - set(TAKES)))
def test_other_learners_say_that_they_take_no_pairs(method, encoder_folder, task):
    if method not in ("maml", "anil", "metasgd", "reptile", "mann", "rnn", "snail"):
        pytest.skip("a learner of embeddings")
    with pytest.raises(NLPMetaError, match=f"{method} takes no pairs of texts; these methods do: .*logistic"):
        FewShotClassifier(method, encoder=str(encoder_folder), checkpoint="none").fit(*task)


def test_a_model_of_pairs_takes_pairs_and_one_of_texts_takes_texts(encoder_folder, task, pool, tmp_path):
    of_pairs = FewShotClassifier("ridge", encoder=str(encoder_folder)).fit(*task)
    of_texts = FewShotClassifier("ridge", encoder=str(encoder_folder)).fit(pool.texts, pool.names())
    for work in (of_pairs.predict, of_pairs.predict_proba, lambda texts: of_pairs.partial_fit(texts, ["same"])):
        with pytest.raises(DataError, match="classifies pairs of texts"):
            work(["rice"])
    with pytest.raises(DataError, match="fitted to single texts"):
        of_texts.predict([("a", "b")])
    with pytest.raises(NLPMetaError, match="no form in other libraries"):
        from nlpmeta.export import export

        export(of_pairs, tmp_path / "out", "transformers")


def test_names_and_descriptions_are_not_compared_with_pairs(encoder_folder, task):
    pairs, names = task
    model = FewShotClassifier(encoder=str(encoder_folder), checkpoint="none")
    with pytest.raises(NLPMetaError, match="cannot be compared with a pair"):
        model.fit(pairs, names, classes=["same", "different", "unclear"])
    with pytest.raises(NLPMetaError, match="cannot be compared with a pair"):
        model.fit(pairs, names, descriptions={"same": "they mean the same"})
    with pytest.raises(DataError, match="one label a pair"):
        model.fit(pairs, [[name] for name in names], multilabel=True)
    assert not model.fit(pairs, names).learner_.reads_names


def test_a_pair_is_explained_and_suspects_are_pairs(encoder_folder, task):
    pairs, names = task
    model = FewShotClassifier("logistic", encoder=str(encoder_folder)).fit(pairs, names)
    found = model.explain(("ball team", "rice soup"))
    assert {each.word for each in found.words} == {"ball", "team", "rice", "soup"} and found.examples
    assert len(model.suspects()) == len(pairs)
    assert model.suspects(pairs, names)[0].text in {Pair.of(*pair) for pair in pairs}


def test_views_of_an_adapted_encoder_stand_side_by_side(encoder_folder):
    from test_windows import adapted

    plain, pairs = adapted(), [Pair.of("ball", "rice"), Pair.of("soup", "goal")]
    views = ScaledEncoder(plain.of_pairs())
    found = views.encode(pairs)
    assert found.size(1) == views.dim == 2 * plain.of_pairs().dim
    torch.testing.assert_close(found[:, views.columns(1.0)], plain.of_pairs().encode(pairs))
    torch.testing.assert_close(found[:, views.columns(0.0)], make_encoder().of_pairs().encode(pairs))
    assert ScaledEncoder(plain).of_pairs().dim == views.dim and views.of_pairs(False).dim == 2 * plain.dim


def written(folder, task, ending, names=("text_a", "text_b")):
    pairs, labels = task
    table = pd.DataFrame(pairs, columns=list(names)).assign(label=labels, id=range(len(labels)))
    path = folder / f"pairs{ending}"
    match ending:
        case ".csv":
            table.to_csv(path, index=False)
        case ".jsonl":
            table.to_json(path, orient="records", lines=True)
        case _:
            table.to_parquet(path)
    return path


def run(*words):
    return CliRunner().invoke(app, list(map(str, words)))


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_tables_with_two_columns_are_adapted_to_and_predicted(ending, encoder_folder, task, tmp_path):
    path, model = written(tmp_path, task, ending), tmp_path / "m"
    how = ["--encoder", encoder_folder, "--method", "logistic", "--shots", 6, "--draws", 2, "--include-support"]
    done = run("adapt", "--data", path, "--out", model, *how)
    assert done.exit_code == 0, done.output
    assert BETWEEN not in done.output
    said = run("predict", model, "--file", path, "--out", tmp_path / "answers.csv")
    assert said.exit_code == 0, said.output
    answers = pd.read_csv(tmp_path / "answers.csv")
    assert answers.text_a.tolist() == [first for first, _ in task[0]] and set(answers.predicted_label) <= set(task[1])


def test_the_commands_know_pairs(encoder_folder, task, tmp_path):
    path, model = written(tmp_path, task, ".csv", names=("question 1", "question 2")), tmp_path / "m"
    columns = ["--text-column", "question 1,question 2"]
    how = ["--encoder", encoder_folder, "--method", "logistic", "--shots", "all", "--include-support"]
    assert isinstance(run("adapt", "--data", path, "--out", model, *how).exception, DataError)
    done = run("adapt", "--data", path, "--out", model, *how, *columns)
    assert done.exit_code == 0, done.output
    assert re.search(rf"Next: nlpmeta predict {model} \$'\w+ \w+\\t\w+ \w+'", done.output)
    scored = run("score", model, "--data", path, *columns, "--json")
    assert scored.exit_code == 0 and json.loads(scored.stdout)["n_texts"] == 48, scored.output
    said = run("predict", model, "ball team\trice soup", "--json")
    assert said.exit_code == 0 and json.loads(said.stdout)["text"] == "ball team | rice soup", said.output
    assert run("predict", model, "ball team\trice soup", "--why").stdout.count("ball team | rice soup") == 1
    for lost in ("ball team", "a\tb\tc", "a\t "):
        refused = run("predict", model, lost).exception
        assert isinstance(refused, DataError) and "pairs of texts" in str(refused)
    taught = run("teach", model, "--data", path, *columns, "--out", tmp_path / "m2")
    assert taught.exit_code == 0, taught.output


@pytest.mark.parametrize(("words", "message"), [
    (["adapt", "--shots", "0"], "cannot be compared with a pair"), (["adapt", "--method", "maml"], "takes no pairs"),
    (["evaluate", "ridge", "--shots", "2", "--episodes", "2"], "single texts are read"),
])  # fmt: skip
def test_what_pairs_do_not_go_with_ends_with_two(words, message, encoder_folder, task, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NLPMETA_EMBEDDINGS", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, task, ".csv")
    assert main([*words, "--data", str(path), "--encoder", str(encoder_folder)]) == 2
    assert message in capsys.readouterr().err


def test_rows_with_an_empty_text_are_skipped_and_counted(tmp_path):
    from nlpmeta import load_source

    path = tmp_path / "p.csv"
    path.write_text("text_a,text_b,label\na,b,x\n,b,x\nc, ,y\nc,d,y\n", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"2 rows with an empty text \(first: line 3\)"):
        found = load_source(str(path)).load(None)
    assert [each.halves for each in found.texts] == [("a", "b"), ("c", "d")]
