"""Teaching a model that is in use: from Python, and from the command line."""

import json

import numpy as np
import pytest

from nlpmeta import FewShotClassifier
from nlpmeta.classifier.teaching import HeldOut, labels_like, teach
from nlpmeta.cli.app import main
from nlpmeta.episodes.kshot import FoldSampler
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.metrics.scores import score_episodes

OLD = ["ball goal", "goal match", "match team", "rice soup", "soup bread", "bread salt"]
NAMES = ["sport"] * 3 + ["food"] * 3


@pytest.fixture
def fitted(encoder_folder):
    return FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(OLD, NAMES)


@pytest.fixture
def folder(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model", include_support=True, report={"accuracy": 0.5})
    return tmp_path / "model"


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main(list(map(str, arguments)))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def by_hand(classifier):
    """Right predictions over the folds, by way of the evaluation's own loop and its own encoder."""
    folds = FoldSampler.at_most(classifier.fitted_.examples.data(), 5, seed=0)
    scores = score_episodes(classifier.learner_, folds, folds.n_folds)
    return HeldOut(
        sum(len(score.episode.query) for score in scores),
        sum(round(score.accuracy * len(score.episode.query)) for score in scores),
    )


def test_teaching_is_partial_fit_and_says_what_cross_validation_finds(fitted, encoder_folder):
    before = by_hand(fitted)
    taught = teach(fitted, ["bank loan", "loan cash", "ball team"], ["money", "money", "sport"])
    assert (taught.new, taught.new_classes, taught.n_known) == ({"money": 2, "sport": 1}, ("money",), 0)
    assert taught.before == before and taught.after == by_hand(fitted)
    assert taught.after.n == 9 and taught.after_on_earlier.n == 6
    other = FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(OLD, NAMES)
    other.partial_fit(["bank loan", "loan cash", "ball team"], ["money", "money", "sport"])
    np.testing.assert_array_equal(fitted.predict_proba(OLD), other.predict_proba(OLD))


def test_what_is_there_already_is_passed_over_and_another_label_is_said(fitted):
    state = fitted.fitted_
    again = teach(fitted, [*OLD, OLD[0]], [*NAMES, "sport"])
    assert (again.new, again.n_known, again.after) == ({}, 7, None) and fitted.fitted_ is state
    other = teach(fitted, ["rice soup", "rice soup"], ["sport", "sport"])
    assert (other.new, other.n_known, other.n_other_label) == ({"sport": 1}, 1, 1)


def test_labels_from_a_shell_are_of_the_kind_of_the_classes():
    assert labels_like(np.array([1, 2]), ["2", "7"]) == [2, 7]
    assert labels_like(np.array([True, False]), ["True"]) == [True]
    assert labels_like(np.array([1.0, 2.0]), ["3"]) == [3.0]
    assert labels_like(np.array([b"a"]), ["b"]) == [b"b"]
    assert labels_like(np.array(["1"]), ["2"]) == ["2"]
    for classes, name in ((np.array([1, 2]), "refund"), (np.array([True, False]), "maybe")):
        with pytest.raises(DataError, match=f"'{name}' is not of their kind"):
            labels_like(classes, [name])


def test_a_text_and_a_label_make_a_new_class_that_is_there_after_loading(run, folder):
    code, out, err = run("teach", folder, "bank loan", "loan cash", "--label", "refund")
    assert code == 0 and "refund (new) 2" in out and "before" in out and "(8 examples)" not in out
    assert "of 6)" in out and "of 8)" in out and "say little" in err
    loaded = FewShotClassifier.from_pretrained(folder)
    assert loaded.classes_.tolist() == ["food", "refund", "sport"] and len(loaded.fitted_.examples.texts) == 8
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert report["accuracy"] == 0.5 and report["taught"][0]["new"] == {"refund": 2}


def test_a_table_is_taught_once_and_a_second_time_changes_nothing(run, folder, tmp_path):
    more = tmp_path / "more.csv"
    more.write_text("text,label\nball team,sport\nbank loan,money\nloan cash,money\nball goal,sport\n", "utf-8")
    code, out, _ = run("teach", folder, "--data", more, "--json")
    found = json.loads(out)
    assert code == 0 and found["new"] == {"money": 2, "sport": 1} and found["known"] == 1 and found["n_way"] == 3
    assert found["cross_validation"]["after"]["n"] == 9
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    code, out, err = run("teach", folder, "--data", more)
    assert code == 0 and "Nothing new" in out and "4 examples are in the model already" in err
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_another_folder_gets_the_result_and_the_model_stays(run, folder, tmp_path):
    before = (folder / "support.json").read_bytes()
    assert run("teach", folder, "bank loan", "--label", "money", "--out", tmp_path / "new")[0] == 0
    assert (folder / "support.json").read_bytes() == before
    assert "money" in FewShotClassifier.from_pretrained(tmp_path / "new").classes_


def test_a_save_that_fails_leaves_the_model_as_it_was(run, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nlpmeta.classifier.streaming.write_examples", full)
    assert run("teach", folder, "bank loan", "--label", "money")[0] == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a text"], "Texts and --label go together"),
        (["--label", "x"], "Texts and --label go together"),
        ([], "Nothing to teach"),
        (["a text", "--label", " "], "empty or white space"),
        (["a text", "--label", "sport "], "differ only in white space"),
        (["  ", "--label", "sport"], "row 0 is empty"),
        (["--data", "no-such.csv"], "no-such.csv"),
    ],
)
def test_what_cannot_be_taught_is_refused_with_2_and_changes_nothing(arguments, said, run, folder):
    before = (folder / "task.safetensors").read_bytes()
    code, out, err = run("teach", folder, *arguments)
    assert (code, out) == (2, "") and said in err
    assert (folder / "task.safetensors").read_bytes() == before


def test_a_model_without_its_examples_names_the_option(run, fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "bare")
    code, _, err = run("teach", tmp_path / "bare", "a text", "--label", "x")
    assert code == 2 and "--include-support" in err
    with pytest.raises(NLPMetaError, match="saved without its examples"):
        teach(FewShotClassifier.from_pretrained(tmp_path / "bare"), ["a b"], ["x"])


def test_examples_that_are_held_out_are_judged_by_a_model_that_weighs_the_others_as_the_classifier_does(
    encoder_folder, monkeypatch
):
    weights = [5.0, 1.0, 0.5, 2.0, 1.0, 3.0]
    weighed = FewShotClassifier("logistic", encoder=str(encoder_folder)).fit(OLD, NAMES, sample_weight=weights)
    adapt, given = type(weighed.learner_).adapt, []

    def watched(self, support):
        given.append((len(support), None if support.weights is None else support.weights.tolist()))
        return adapt(self, support)

    monkeypatch.setattr(type(weighed.learner_), "adapt", watched)
    teach(weighed, ["loan cash"], ["money"])
    before = [found for n, found in given if n < 5]
    assert len(before) == 3 and all(found is not None for found in before)  # a class has three texts: three folds
    for each in before:  # the weights of the four that are not held out
        assert len(each) == 4 and set(each) <= set(weights)
    assert sorted(sum(before, [])) == sorted(2 * weights)
