"""Teaching a model that is in use: from Python, and from the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nlpmeta import FewShotClassifier, TextEncoder
from nlpmeta.classifier.teaching import HeldOut, labels_like, teach
from nlpmeta.cli import main
from nlpmeta.episodes.kshot import FoldSampler
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.evaluation.request import choose_place
from nlpmeta.learners.base import learners
from nlpmeta.learners.checkpoint import save_checkpoint
from nlpmeta.metrics.scores import score_episodes
from nlpmeta.sharing import stage
from nlpmeta.sharing.card import card
from nlpmeta.sharing.gather import gather

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


def test_examples_may_come_from_a_generator_beside_descriptions(encoder_folder):
    classifier = FewShotClassifier("auto", encoder=str(encoder_folder)).fit(OLD, NAMES)
    said = {label: "what it is about" for label in set(NAMES)}
    taught = teach(classifier, (text for text in ["ball team"]), [NAMES[0]], descriptions=said)
    assert taught.new == {NAMES[0]: 1} and set(taught.described) == set(NAMES)


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
        with pytest.raises(DataError, match=f"'{name}' is of another type"):
            labels_like(classes, [name])


def test_a_text_and_a_label_make_a_new_class_that_is_there_after_loading(run, folder):
    code, out, err = run("teach", folder, "bank loan", "loan cash", "--label", "refund")
    assert code == 0 and "refund (new) 2" in out and "before" in out and "(8 examples)" not in out
    assert "of 6)" in out and "of 8)" in out and "say little" in err
    loaded = FewShotClassifier.from_pretrained(folder)
    assert loaded.classes_.tolist() == ["food", "refund", "sport"] and len(loaded.fitted_.examples.texts) == 8
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert report["before_teaching"]["accuracy"] == 0.5 and report["taught"][0]["new"] == {"refund": 2}
    assert report["n_way"] == 3 and report["n_support"] == 8 and "accuracy" not in report


def test_a_new_class_that_differs_from_another_only_in_capital_letters_is_named(run, folder):
    code, _, err = run("teach", folder, "bank loan", "--label", "Food")
    assert code == 0 and "'Food' and 'food' differ only in capital letters" in err
    code, _, err = run("teach", folder, "loan cash", "--label", "refund", "--quiet")
    assert code == 0 and "capital" not in err


MEASURED = {
    "data": "starter", "lang": "sw", "n_way": 2, "n_shot": 3, "n_support": 6, "scored_on": "the rest of the data",
    "scored": "5 draws, 90 predictions for 18 texts", "draws": 5, "n_texts": 18, "chosen": ["ridge"],
    "accuracy": {"mean": 0.5123, "ci95": 0.0123}, "macro_f1": {"mean": 0.4987, "ci95": 0.01}, "chance": 0.5,
    "baseline": {"method": "logistic", "accuracy": {"mean": 0.4321, "ci95": 0.01}}, "calibration_error": 0.1234,
    "curve": [{"n_shot": 1, "accuracy": {"mean": 0.4444}}, {"n_shot": 3, "accuracy": {"mean": 0.5123}}],
    "confused": [["food", "sport", 7]], "cut": {"texts": 3, "of": 24, "max_length": 32},
    "task_report": {"warnings": ["labels look random"]}, "task": {"data": "starter", "digest": "abc"},
}  # fmt: skip
STALE = ("51.2", "49.9", "43.2", "44.4", "12.3", "90 predictions", "rest of the data", "ridge", "labels look random")


@pytest.fixture
def measured(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model", include_support=True, report=MEASURED)
    return tmp_path / "model"


def page_of(folder):
    return card(gather(folder), "me/model")


def test_what_was_measured_before_teaching_is_shown_neither_by_info_nor_on_the_card(run, measured):
    before = page_of(measured) + run("info", measured)[1]
    assert all(figure in before for figure in STALE), "or nothing is tested below"
    assert run("teach", measured, "bank loan", "loan cash", "--label", "refund")[0] == 0
    shown, page = run("info", measured)[1], page_of(measured)
    assert not any(figure in shown + page for figure in STALE)
    assert "3: food, refund, sport" in shown and "n way 3" in " ".join(shown.split())
    said = "2 examples since the model was made and measured; cross-validated accuracy since: 87.5 % (7 of 8)"
    assert said in " ".join(shown.split())
    assert "Not measured as it is: it was taught more after it was made" in page
    assert "adapted from 8 labelled texts" in page and "and what the model was taught later" in page
    facts = json.loads(run("info", measured, "--json")[1])
    assert facts["n_way"] == 3 and "accuracy" not in facts and facts["taught"]["examples"] == 2
    assert facts["taught"]["cross_validation"]["n"] == 8
    run("teach", measured, "cash bank", "--label", "refund")
    assert json.loads(run("info", measured, "--json")[1])["taught"]["examples"] == 3
    kept = json.loads((measured / "report.json").read_text("utf-8"))
    assert kept["before_teaching"] == MEASURED and len(kept["taught"]) == 2


def test_a_description_alone_makes_the_figures_those_of_another_model_too(run, encoder_folder, tmp_path):
    model = tmp_path / "model"
    fitted = FewShotClassifier("auto", encoder=str(encoder_folder)).fit(OLD, NAMES)
    fitted.save_pretrained(model, include_support=True, report=MEASURED)
    (tmp_path / "words.csv").write_text("label,text\nfood,something to eat\n", "utf-8")
    assert run("teach", model, "--descriptions", tmp_path / "words.csv")[0] == 0
    shown = run("info", model)[1]
    assert "descriptions of classes since the model was made and measured" in " ".join(shown.split())
    assert not any(figure in shown + page_of(model) for figure in STALE)


def test_figures_in_a_report_that_an_older_release_taught_are_not_shown_either(run, fitted, tmp_path):
    old = {**MEASURED, "taught": [{"new": {"refund": 2}, "cross_validation": {"after": None}}]}
    fitted.save_pretrained(tmp_path / "model", include_support=True, report=old)
    shown, page = run("info", tmp_path / "model")[1], page_of(tmp_path / "model")
    assert not any(figure in shown + page for figure in STALE)
    assert "n way" not in shown and "2 examples since the model was made and measured; what it reaches now" in shown


def test_what_is_pushed_of_a_model_that_was_taught_has_no_figure_from_before(run, measured, tmp_path):
    run("teach", measured, "bank loan", "--label", "refund")
    stage(measured, tmp_path / "staged", replace(gather(measured), encoder="me/encoder"), name="me/model")
    pushed = (tmp_path / "staged" / "report.json").read_text("utf-8")
    assert json.loads(pushed)["n_way"] == 3 and "0.5123" not in pushed and "before_teaching" not in pushed
    assert not (tmp_path / "staged" / "curve.png").exists()


def test_what_is_taught_nothing_keeps_its_figures(run, measured, tmp_path):
    assert run("teach", measured, OLD[0], "--label", NAMES[0], "--out", tmp_path / "new")[0] == 0
    assert json.loads((tmp_path / "new" / "report.json").read_text("utf-8")) == MEASURED
    assert "51.2" in run("info", tmp_path / "new")[1]


def test_the_same_adapt_again_does_not_replace_a_model_that_was_taught(fitted, measured, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "nlpmeta-models" / "mine"
    fitted.save_pretrained(home, include_support=True, report=MEASURED)
    assert choose_place(None, name="mine", task=MEASURED["task"], overwrite=False).replace
    assert run("teach", home, "bank loan", "--label", "refund")[0] == 0
    place = choose_place(None, name="mine", task=MEASURED["task"], overwrite=False)
    assert (place.folder.name, place.replace) == ("mine-2", False)


def test_one_of_something_is_said_in_the_singular(run, folder):
    code, out, err = run("teach", folder, "bank loan", OLD[0], "--label", "sport")
    assert code == 0 and "Learned 1 example: sport 1" in out and "1 example is in the model already" in err
    assert "1 text is in the model under another label" in run("teach", folder, OLD[1], "--label", "food")[2]


def test_info_leaves_out_an_empty_list(run, encoder_folder, tmp_path):
    learner = learners["prototypical"](TextEncoder.from_pretrained(str(encoder_folder)))
    save_checkpoint(learner, tmp_path / "checkpoint", {"steps": 1})
    code, out, _ = run("info", tmp_path / "checkpoint")
    assert code == 0 and "checkpoint" in out and "labels" not in out
    assert json.loads(run("info", tmp_path / "checkpoint", "--json")[1])["labels"] == []


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

    monkeypatch.setattr("nlpmeta.classifier.given.write_examples", full)
    assert run("teach", folder, "bank loan", "--label", "money")[0] == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a text"], "Texts and --label go together"),
        (["--label", "x"], "Texts and --label go together"),
        ([], "Nothing to teach"),
        (["a text", "--label", " "], "--label is empty"),
        (["a text", "--label", "sport "], "differ only in white space"),
        (["a text", "  ", "--label", "sport"], "Text 2 is empty"),
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
