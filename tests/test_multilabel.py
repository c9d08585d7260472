"""None, one or several labels per text: what may be given, what is learned and answered, and how it is kept."""

import json
import math
import re

import numpy as np
import pytest
import torch
from conftest import TOPICS
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils import get_tags
from sklearn.utils.multiclass import type_of_target

from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.mixture import OneVsRest
from nlpmeta.auto.several import PENALTY, _odds, _prototypes, _regression, best_threshold
from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.classifier.teaching import HeldOut, teach
from nlpmeta.cli.console import percent
from nlpmeta.data.multilabel import MultiLabelTexts, checked_marks, perhaps_several
from nlpmeta.episodes.index import MultiLabelKShot
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.export.head import linear_heads
from nlpmeta.learners.abilities import THRESHOLDS
from nlpmeta.learners.logistic import one_vs_rest
from nlpmeta.metrics import SEVERAL_METRICS, several_scores
from nlpmeta.metrics.scores import Interval
from nlpmeta.online import OnlineClassifier
from nlpmeta.sharing.card import card
from nlpmeta.sharing.gather import gather
from nlpmeta.sources.form import TableForm
from nlpmeta.sources.loading import load_source

WORDS = {topic: words.split() for topic, words in TOPICS.items()}


def _examples():
    """Texts of one topic, of two, and of none."""
    texts, labels = [], []
    topics = sorted(WORDS)
    for i, first in enumerate(topics):
        second = topics[(i + 1) % 3]
        for a, b in zip(WORDS[first], WORDS[second], strict=True):
            texts += [f"{a} {a}", f"{a} {b}"]
            labels += [[first], sorted([first, second])]
    texts += ["unheard of", "of nothing", "or so"]
    return texts, [*labels, [], [], []]


TEXTS, LABELS = _examples()
MATRIX = MultiLabelBinarizer().fit_transform(LABELS)


@pytest.fixture
def fitted(encoder_folder):
    return FewShotClassifier("auto", encoder=str(encoder_folder)).fit(TEXTS, LABELS)


def _refused(y, classes=None, error=DataError):
    with pytest.raises(error) as caught:
        checked_marks(y, classes)
    return str(caught.value)


def test_label_sets_become_what_scikit_learn_makes_of_them():
    marks = checked_marks(LABELS)
    theirs = MultiLabelBinarizer().fit(LABELS)
    assert marks.classes.tolist() == theirs.classes_.tolist()
    assert (marks.matrix == theirs.transform(LABELS)).all() and not marks.as_matrix


@pytest.mark.parametrize("kind", [tuple, set, frozenset, np.asarray])
def test_a_row_may_be_any_collection_of_labels(kind):
    assert (checked_marks([kind(each) for each in LABELS if each]).matrix == MATRIX[:-3]).all()


@pytest.mark.parametrize("values", [MATRIX, MATRIX.astype(bool), MATRIX.astype(float), MATRIX.tolist()])
def test_a_matrix_names_its_columns_by_classes_in_their_order(values):
    marks = checked_marks(values, ["sport", "food", "money"])
    assert marks.as_matrix and marks.classes.tolist() == ["sport", "food", "money"]
    assert (marks.matrix == MATRIX).all()
    assert checked_marks(values).classes.tolist() == [0, 1, 2]


def test_bad_matrices_are_refused():
    assert "3 columns and classes names 2 labels" in _refused(MATRIX, ["a", "b"])
    assert "0 and 1 alone" in _refused(MATRIX * 2)
    assert "0 and 1 alone" in _refused(np.asarray([["a", "b"]]))


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (["joy", ["anger"]], "row 0 is one string, 'joy'"),
        ([["joy"], 3], "row 1 is 3 (int)"),
        ([["joy"], [None]], "a label in row 1 that is missing"),
        ([["joy"], [" "]], "a label in row 1 that is empty"),
        ([["joy"], [["fear"]]], "a list within the list"),
        ([["joy"], ["joy "]], "differ only in white space"),
        ([["joy"], [3]], "labels of one kind"),
        ([[], []], "classes names none"),
        ("joy", "not one string"),
    ],
)
def test_bad_label_sets_are_refused(y, said):
    assert said in _refused(y)


def test_labels_that_are_none_of_the_classes_are_refused():
    assert "'fear' in row 0" in _refused([["fear"]], ["joy", "anger"])
    assert "twice" in _refused([["joy"]], ["joy", "joy"])
    assert "it holds ''" in _refused([["joy"]], ["joy", ""])
    assert "white space" in _refused([["joy"]], ["joy", "joy "])


def test_it_answers_with_lists_of_labels_and_independent_probabilities(fitted):
    found = fitted.predict(TEXTS)
    assert isinstance(found, list) and all(isinstance(each, list) for each in found)
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.shape == (len(TEXTS), 3) and (probabilities > 0).all() and (probabilities < 1).all()
    assert not np.allclose(probabilities.sum(1), 1)
    given = [{label for label, p, t in zip(fitted.classes_, row, fitted.thresholds_, strict=True) if p >= t}
             for row in probabilities]  # fmt: skip
    assert given == [set(each) for each in found]
    assert f1_score(MATRIX, MultiLabelBinarizer(classes=fitted.classes_).fit_transform(found), average="macro") > 0.8


def test_a_matrix_is_answered_with_a_matrix(encoder, fitted):
    matrix = FewShotClassifier("auto", encoder=encoder).fit(TEXTS, MATRIX, classes=["food", "money", "sport"])
    found = matrix.predict(TEXTS)
    assert found.dtype.kind == "i" and found.shape == MATRIX.shape
    assert [sorted(each) for each in fitted.predict(TEXTS)] == [
        list(matrix.classes_[row.astype(bool)]) for row in found
    ]
    assert matrix.score(TEXTS, MATRIX) == np.mean((found == MATRIX).all(1)) == fitted.score(TEXTS, LABELS)


def test_saved_and_loaded_it_answers_the_same_and_learns_on(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "m", include_support=True)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "m")
    assert np.array_equal(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    assert loaded.predict(TEXTS) == fitted.predict(TEXTS)
    loaded.partial_fit(["bread bank", "rice loan"], [["food", "money"], []])
    assert len(loaded.examples_.texts) == len(TEXTS) + 2
    assert not list((tmp_path / "m").glob("*.pkl"))


def test_a_matrix_model_without_examples_still_answers_with_a_matrix(encoder_folder, tmp_path):
    FewShotClassifier("auto", encoder=str(encoder_folder)).fit(TEXTS, MATRIX).save_pretrained(tmp_path / "m")
    loaded = FewShotClassifier.from_pretrained(tmp_path / "m")
    assert loaded.predict(TEXTS).shape == MATRIX.shape
    with pytest.raises(NLPMetaError, match="saved without its examples"):
        loaded.partial_fit(["ball"], [[1, 0, 0]])


def test_damaged_examples_are_refused(fitted, tmp_path):
    from nlpmeta.errors import ModelFolderError
    from nlpmeta.storage.files import read_json, write_json
    from nlpmeta.storage.manifest import read_manifest, write_manifest

    fitted.save_pretrained(tmp_path / "m", include_support=True)
    facts = {name: value for name, value in read_manifest(tmp_path / "m").items() if name != "files"}
    found = read_json(tmp_path / "m" / "support.json")
    for marks in ([[7]] * len(TEXTS), [[0]], None, [["food"]] * len(TEXTS), [[0]] * len(TEXTS)):
        write_json(tmp_path / "m" / "support.json", {**found, "marks": marks})
        write_manifest(tmp_path / "m", facts)
        with pytest.raises(ModelFolderError):
            FewShotClassifier.from_pretrained(tmp_path / "m")


def test_names_alone_stand_for_labels_without_examples(encoder_folder, tmp_path):
    named = FewShotClassifier.from_names(["sport match", "rice", "bank"], multilabel=True, encoder=str(encoder_folder))
    assert named.predict_proba(["rice rice"]).shape == (1, 3)
    assert "rice" in named.predict(["rice rice"])[0]
    named.save_pretrained(tmp_path / "m")
    loaded = FewShotClassifier.from_pretrained(tmp_path / "m")
    assert loaded.predict(["rice rice"]) == named.predict(["rice rice"])
    loaded.partial_fit(TEXTS[:4], [["rice"], ["rice", "bank"], [], ["bank"]])
    assert loaded.examples_.by_name.tolist() == ["sport match"]


def test_a_label_whose_name_says_nothing_needs_an_example(encoder):
    with pytest.raises(DataError, match="has no example"):
        FewShotClassifier("auto", encoder=encoder).fit(TEXTS, np.hstack([MATRIX, np.zeros((len(TEXTS), 1), int)]))


def test_descriptions_are_read_and_those_of_no_label_refused(encoder, fitted):
    described = FewShotClassifier("auto", encoder=encoder).fit(
        TEXTS, LABELS, descriptions={"food": "soup bread", "sport": "a team"}
    )
    assert not np.array_equal(described.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    for wrong, said in (({"fod": "x y"}, "fod"), ({"food": ""}, "empty"), ({"food": "a b", "food ": "c"}, "spellings")):
        with pytest.raises(DataError, match=said):
            FewShotClassifier("auto", encoder=encoder).fit(TEXTS, LABELS, descriptions=wrong)


def test_labels_are_added_renamed_and_removed(fitted):
    fitted.add_class("weather", ["unheard rice", "unheard of rain"])
    assert fitted.classes_.tolist() == ["food", "money", "sport", "weather"]
    fitted.add_class("soup")
    assert fitted.examples_.by_name.tolist() == ["soup"]
    fitted.rename_class("weather", "sky").remove_class("soup")
    assert fitted.classes_.tolist() == ["food", "money", "sport", "sky"]
    with pytest.raises(DataError, match="already"):
        fitted.add_class("food")


def test_descriptions_go_with_a_label_that_is_renamed_or_removed(encoder_folder):
    model = FewShotClassifier("auto", encoder=str(encoder_folder))
    model.fit(TEXTS, LABELS, descriptions={"food": "rice soup", "money": "loan bank"})
    model.rename_class("food", "meals").remove_class("money")
    assert model.descriptions_ == model.examples_.descriptions == {"meals": ("rice soup",)}


def test_a_text_that_comes_again_gets_its_new_labels(fitted):
    before = len(fitted.examples_.texts)
    fitted.partial_fit([TEXTS[0]], [["money"]])
    assert len(fitted.examples_.texts) == before
    assert fitted.examples_.several().names()[0] == ["money"]
    fitted.partial_fit("one text alone", ["sport"])
    assert fitted.examples_.several().names()[-1] == ["sport"]


def test_what_gives_one_label_says_so(encoder, fitted):
    with pytest.raises(NLPMetaError, match="need the method 'auto'"):
        FewShotClassifier("prototypical", encoder=encoder).fit(TEXTS, LABELS)
    single = FewShotClassifier("auto", encoder=encoder).fit(["ball", "rice"], ["sport", "food"])
    with pytest.raises(DataError, match="gives one"):
        single.partial_fit(["bank ball"], [["money", "sport"]])
    with pytest.raises(NLPMetaError, match="no thresholds"):
        _ = single.thresholds_
    assert not hasattr(single, "thresholds_")  # so that tools which look at all attributes pass over it
    for asked in (
        lambda: fitted.predict(TEXTS, abstain=0.9),
        lambda: fitted.out_of_scope(TEXTS),
        fitted.task_report,
        lambda: teach(fitted, ["ball"], ["sport"]),
        lambda: OnlineClassifier(fitted),
        lambda: linear_heads(fitted.learner_, fitted.state_),
        lambda: fitted.fit(TEXTS, LABELS, sample_weight=[1.0] * len(TEXTS)),
    ):
        with pytest.raises(NLPMetaError, match="several|one label"):
            asked()


def test_other_shapes_are_refused(encoder):
    classifier = FewShotClassifier("auto", encoder=encoder)
    with pytest.raises(DataError, match="X has 2 texts"):
        classifier.fit(["ball", "rice"], [["sport", "food"]])
    with pytest.raises(DataError, match="at least two labels"):
        classifier.fit(["ball", "rice"], [["sport"], []])
    with pytest.raises(DataError, match="list of labels for each text"):
        classifier.fit(["ball", "rice"], ["sport", "food"], multilabel=True)
    for asked in (None, False):  # one label in each row does not show it
        with pytest.raises(DataError, match=r"one label per text; its shape is \(2, 1\).*multilabel=True"):
            classifier.fit(["ball", "rice"], [["sport"], ["food"]], multilabel=asked)
    assert classifier.fit(["ball", "rice"], [["sport"], ["food"]], multilabel=True).thresholds_.shape == (2,)


def test_the_regression_and_its_held_out_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    rows, marks = rng.normal(size=(20, 6)), rng.random((20, 3)) < 0.4
    names, weights = rng.normal(size=(3, 6)), np.full(3, 5.0)
    inputs, targets = np.vstack([rows, names]), np.vstack([marks, np.eye(3)])
    share = np.r_[np.ones(20), weights]
    weight, bias, held_out = _regression(*map(torch.from_numpy, (rows, marks, names, weights)))
    theirs = Ridge(PENALTY).fit(inputs, targets, share)
    assert np.allclose(weight, theirs.coef_) and np.allclose(bias, theirs.intercept_)
    for row in (0, 7):
        kept = np.arange(23) != row
        without = Ridge(PENALTY).fit(inputs[kept], targets[kept], share[kept])
        assert np.allclose(held_out[row], without.predict(rows[row : row + 1])[0], atol=1e-6)


def test_held_out_prototypes_are_those_without_the_text():
    rng = np.random.default_rng(1)
    rows, marks = torch.from_numpy(rng.normal(size=(12, 5))), torch.from_numpy(rng.random((12, 3)) < 0.4)
    marks[:4] = False
    names, weights = torch.from_numpy(rng.normal(size=(3, 5))), torch.full((3,), 5.0, dtype=torch.float64)
    _, held_out = _prototypes(rows, marks, names, weights)
    from nlpmeta.auto.heads import odds_of

    for row in (0, 6):
        kept = torch.arange(12) != row
        means, _ = _prototypes(rows[kept], marks[kept], names, weights)
        cosines = torch.nn.functional.normalize(rows[row : row + 1], dim=1) @ means.T
        assert torch.allclose(held_out[row], odds_of(cosines, 3)[0])


def test_a_single_text_without_a_label_makes_no_prototype_and_two_do():
    rows = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 5)))
    names, weights = torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for n_without, there in ((1, False), (2, True)):
        marks = torch.ones(6, 3, dtype=torch.bool)
        marks[:n_without] = False
        assert bool(_prototypes(rows, marks, names, weights)[0][-1].any()) == there


def test_a_label_without_examples_is_expected_as_often_as_the_median_of_the_others():
    marks = torch.zeros(20, 3, dtype=torch.bool)
    marks[:12, 0] = marks[:10, 1] = True
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3)))
    found = _odds(scores, marks, marks.any(0))
    offsets = found["several/offsets"]
    assert offsets[2] == pytest.approx(float(torch.minimum(offsets[0], offsets[1])))  # torch's median of two
    assert float(found[THRESHOLDS][2]) == pytest.approx(float(offsets[2]))  # given to half of the texts, as that label


def test_the_best_threshold_gives_the_label_to_as_many_texts_as_have_the_best_expected_f1():
    odds = torch.from_numpy(np.random.default_rng(0).normal(-1, 2, size=(40, 6)))
    for label, threshold in enumerate(best_threshold(odds).tolist()):
        probable = sorted(odds[:, label].sigmoid().tolist(), reverse=True)
        f1 = [2 * sum(probable[:n]) / (n + sum(probable)) for n in range(1, 41)]
        assert int((odds[:, label] >= threshold).sum()) == 1 + int(np.argmax(f1))
        assert 1 / (1 + np.exp(-threshold)) == pytest.approx(max(f1) / 2)


def test_a_threshold_is_half_way_between_the_best_expected_f1_and_the_share_of_texts_that_have_the_label():
    marks = torch.zeros(20, 2, dtype=torch.bool)
    marks[0, 0] = marks[:8, 1] = True
    scores = torch.linspace(3, -2, 20, dtype=torch.float64).unsqueeze(1).repeat(1, 2)  # each label's texts come first
    found = _odds(scores, marks, marks.any(0))
    slope, offsets = found["several/slope"], found["several/offsets"]
    best = best_threshold(slope * scores + offsets)
    for label, count in ((0, 1), (1, 8)):
        as_often = norm.ppf(1 - (count + 0.5) / 21) * float(np.std(scores[:, label].numpy()))
        expected = (float(best[label]) + float(slope) * as_often + float(offsets[label])) / 2
        assert float(found[THRESHOLDS][label]) == pytest.approx(expected)


def test_the_heads_that_are_learned_are_one_vs_rest_and_sound(encoder):
    texts = [f"ball {i}" for i in range(30)]
    _, marks = make_multilabel_classification(30, n_classes=3, random_state=0)
    state = AutoHead(encoder).adapt_several(
        MultiLabelTexts(tuple(texts), tuple(tuple(np.flatnonzero(row)) for row in marks), ("a b", "c d", "e f")),
        encoder,
    )
    predictor = AutoHead(encoder).predictor(state)
    assert isinstance(predictor, OneVsRest) and predictor.problem() == ""
    assert state[THRESHOLDS].shape == (3,)


def _pool():
    return MultiLabelTexts(
        tuple(TEXTS), tuple(tuple(np.flatnonzero(row).tolist()) for row in MATRIX), ("food", "money", "sport")
    )


@pytest.mark.parametrize("n_shot", [1, 3])
def test_a_draw_has_k_positives_of_each_label_and_none_too_many(n_shot):
    sampler = MultiLabelKShot(_pool(), n_shot=n_shot, seed=0)
    for index in range(5):
        draw = sampler.draw(index)
        marks = draw.support.matrix()
        assert (marks.sum(0) >= n_shot).all() and draw.support.n_unlabelled == n_shot
        needed = [(marks.sum(0) - row >= n_shot)[row].all() for row in marks if row.any()]
        assert not any(needed)
        assert not set(draw.support.texts) & set(draw.query.texts)
        assert len(draw.support) + len(draw.query) == len(TEXTS)
    assert sampler.draw(2) == sampler.draw(2) != sampler.draw(3)


def test_a_label_with_too_few_texts_gives_all_that_it_has():
    sampler = MultiLabelKShot(_pool(), n_shot=10, seed=0)
    assert sampler.short == {"food": 8, "money": 8, "sport": 8} or set(sampler.short) <= {"food", "money", "sport"}
    assert (
        sampler.draw(0).support.counts() == {name: min(10, count) for name, count in _pool().counts().items()}
        or len(sampler.draw(0).support) > 0
    )


def test_texts_of_the_test_data_are_never_support():
    test = _pool().select(range(6))
    draw = MultiLabelKShot(_pool(), n_shot=2, seed=0, test=test).draw(0)
    assert not {text.casefold() for text in draw.support.texts} & {text.casefold() for text in test.texts}
    assert draw.query == test
    with pytest.raises(DataError, match="nothing is left"):
        MultiLabelKShot(test, n_shot=2, seed=0, test=test)


def _lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def tagged(tmp_path):
    """The examples as JSON Lines with lists."""
    rows = ({"text": text, "labels": labels} for text, labels in zip(TEXTS, LABELS, strict=True))
    return _lines(tmp_path / "tagged.jsonl", rows)


@pytest.fixture
def separated(tmp_path):
    """The same as CSV with a separator; texts without a label have an empty cell."""
    path = tmp_path / "tagged.csv"
    rows = [f"{text},{'; '.join(labels)}" for text, labels in zip(TEXTS, LABELS, strict=True)]
    path.write_text("\n".join(["text,labels", *rows, ""]), encoding="utf-8")
    return path


def test_lists_and_separators_are_read_alike(tagged, separated):
    listed = MultiLabelTexts.of(load_source(str(tagged)).load(several=True))
    written = MultiLabelTexts.of(load_source(str(separated), form=TableForm(label_separator=";")).load(several=True))
    assert listed.names() == written.names() == [sorted(each) for each in LABELS]
    assert listed.counts() == {"food": 12, "money": 12, "sport": 12} and listed.n_unlabelled == 3


def test_a_source_of_label_sets_is_refused_where_one_label_is_wanted(tagged):
    with pytest.raises(DataError, match="Several labels per text are taken by"):
        load_source(str(tagged)).load()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["a"], "b"], "line 2: the labels are 'b', but other rows hold lists"),
        ([["a"], [""]], "line 2: a label in .* is empty"),
        ([["a"], [["b"]]], "line 2: a label is"),
        ([["a"], {"b": 1}], "line 2: the label .* must be one value"),
        ([["a", "b"], [1]], "mixes kinds of labels"),
        ([["a"], ["a"]], "at least two labels; there are: a"),
        ([[], []], "there are: none"),
    ],
)
def test_bad_columns_of_labels_are_refused_by_the_command(run, tmp_path, rows, said):
    path = _lines(tmp_path / "bad.jsonl", ({"text": f"ball {i}", "labels": row} for i, row in enumerate(rows)))
    code, _, errors = run("adapt", "--data", path, "--out", tmp_path / "m")
    assert code == 2 and re.search(said, errors), errors
    assert not (tmp_path / "m").exists()


def test_bad_options_are_refused_by_the_command(run, tagged, tmp_path):
    described = tmp_path / "d.csv"
    described.write_text("label,text\nfod,what one eats\n", encoding="utf-8")
    for options, said in (
        (["--label-separator", " "], "takes a sign"),
        (["--descriptions", described], "fod"),
        (["--ways", "4"], "4 labels were requested"),
        (["--inner-steps", "2"], "--inner-steps requires one label per text"),
        (["--method", "prototypical"], "need the method 'auto'"),
        (["--shots", "-1"], "whole number from 0"),
    ):
        code, _, errors = run("adapt", "--data", tagged, "--out", tmp_path / "m", *options)
        assert code != 0 and said in errors, errors
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("shots", ["3", "all", "0"])
def test_adapt_measures_and_saves_and_the_other_commands_know_it(run, tagged, tmp_path, shots):
    model = tmp_path / "m"
    code, printed, errors = run("adapt", "--data", tagged, "--shots", shots, "--draws", 2, "--out", model, "--json")
    assert code == 0, errors
    report = json.loads(printed)
    assert report["several"] and report["n_way"] == 3
    assert all(0 <= report[name]["mean"] <= 1 for name in SEVERAL_METRICS)
    assert json.loads((model / "report.json").read_text(encoding="utf-8"))["macro_f1"] == report["macro_f1"]
    code, printed, errors = run("predict", model, "rice rice", "of nothing", "--json")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert code == 0 and all(isinstance(row["labels"], list) for row in rows), errors
    code, printed, errors = run("score", model, "--data", tagged, "--json")
    assert code == 0 and "was adapted from examples of this very data" in errors, errors
    assert set(SEVERAL_METRICS) <= set(json.loads(printed)["models"][0])
    code, printed, _ = run("info", model)
    assert code == 0 and "food, money, sport" in printed and "none, one or several" in printed
    page = card(gather(model), "user/m")
    assert "all labels of a text right" in page and "one of the classes is always given" not in page


def test_a_table_of_predictions_can_be_scored_again(run, separated, tmp_path):
    model, out = tmp_path / "m", tmp_path / "out.csv"
    code, printed, errors = run(
        "adapt", "--data", separated, "--label-separator", ";", "--shots", "all", "--out", model, "--include-support"
    )
    assert code == 0 and "3 labels, 27 support texts (3 without a label)" in printed, errors
    assert run("predict", model, "--file", separated, "--keep", "text", "--out", out)[0] == 0
    assert out.read_text(encoding="utf-8").splitlines()[0] == "text,labels,probabilities"
    code, printed, errors = run("score", model, "--data", out, "--label-separator", ";", "--json")
    assert code == 0, errors
    assert json.loads(printed)["models"][0]["exact_match"] == 1
    assert run("predict", model, "rice", "--abstain", "0.9")[0] == 2
    top = run("predict", model, "rice", "--top", "2", "--json")[1]
    assert len(json.loads(top)["labels"]) == 2
    assert json.loads(run("predict", model, "rice", "--threshold", "1", "--json")[1])["labels"] == []


def test_teaching_replaces_label_sets_and_is_partial_fit(encoder_folder, fitted):
    other = FewShotClassifier("auto", encoder=str(encoder_folder)).fit(TEXTS, LABELS)
    new, sets = ["rice cash", TEXTS[0], TEXTS[1], "quiet morning"], [["food", "money"], [], LABELS[1], []]
    taught = teach(fitted, new, sets)
    assert (taught.new, taught.n_new, taught.n_known, taught.n_other_label) == ({"food": 1, "money": 1}, 3, 1, 1)
    other.partial_fit(["rice cash", TEXTS[0], "quiet morning"], [["food", "money"], [], []])
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), other.predict_proba(TEXTS))
    again = teach(fitted, new, sets)
    assert not again.changes and again.n_known == 4 and again.after is None
    assert teach(fitted, ["dog cat"], [["animals"]]).new_classes == ("animals",)
    described = teach(fitted, [], [], descriptions={"food": "what one eats"})
    assert described.described == ("food",) and described.changes and not described.n_new


def test_what_teaching_measures_is_what_the_folds_give(fitted, encoder_folder):
    taught = teach(fitted, ["rice cash"], [["food", "money"]])
    examples = fitted.fitted_.examples
    truth, given = examples.marks, np.zeros_like(examples.marks)
    for rest, out in KFold(5, shuffle=True, random_state=0).split(truth):
        texts = np.asarray(examples.texts)
        part = FewShotClassifier("auto", encoder=str(encoder_folder))
        part.fit(texts[rest].tolist(), truth[rest].astype(int), classes=examples.classes)
        given[out] = part.predict(texts[out].tolist())
    right = (truth == given).all(1)
    assert taught.after == HeldOut(len(truth), int(right.sum()), f1_score(truth, given, average="macro"))
    old = f1_score(truth[:-1], given[:-1], average="macro")
    assert taught.after_on_earlier == HeldOut(len(truth) - 1, int(right[:-1].sum()), old)
    assert taught.before.n == len(truth) - 1 and taught.before.macro_f1 is not None


def test_a_model_without_prototypes_is_refused_in_words(fitted):
    state = {name: value for name, value in fitted.state_.items() if "prototypes" not in name}
    state["several/means"] = state["several/means"][1:]
    assert OneVsRest.of(fitted.learner_, {}, state).problem() == "several/prototypes are missing"


def test_a_matrix_is_taught_by_its_columns(encoder_folder):
    classifier = FewShotClassifier("auto", encoder=str(encoder_folder)).fit(TEXTS, MATRIX, classes=sorted(WORDS))
    taught = teach(classifier, ["rice cash"], np.asarray([[1, 0, 0]]))
    assert taught.new == {sorted(WORDS)[0]: 1}
    assert isinstance(classifier.predict(["rice"]), np.ndarray)
    with pytest.raises(DataError, match="columns"):
        teach(classifier, ["rice cash"], np.zeros((1, 4)))


def test_a_figure_that_a_fold_does_not_know_is_the_mean_of_the_others(run, tmp_path):
    rows = [{"text": text, "labels": labels} for text, labels in zip(TEXTS[:4], LABELS[:4], strict=True)]
    rows += [{"text": f"unheard of {i}", "labels": []} for i in range(8)]
    code, printed, errors = run("adapt", "--data", _lines(tmp_path / "t.jsonl", rows), "--shots", "all", "--json")
    assert code == 0 and 0 < json.loads(printed)["mean_average_precision"]["mean"] <= 1, errors
    assert Interval(math.nan, math.nan).percent() == percent(math.nan) == "-"


def test_the_command_line_teaches_several_labels(run, separated, tagged, tmp_path):
    model = tmp_path / "m"
    made = run("adapt", "--data", tagged, "--shots", "all", "--out", model, "--include-support")
    assert made[0] == 0
    code, printed, errors = run("teach", model, "rice cash", "--label", "food; animals")
    assert code == 0 and "Learned 1 example: animals (new) 1, food 1" in printed and "macro-F1" in printed, errors
    loaded = FewShotClassifier.from_pretrained(model)
    assert "animals" in loaded.classes_ and loaded.fitted_.examples.several().names()[-1] == ["food", "animals"]
    code, printed, errors = run("teach", model, "rice cash", "--label", "", "--json")
    found = json.loads(printed)
    assert code == 0 and (found["n_new"], found["new"], found["other_label"]) == (1, {}, 1), errors
    assert run("teach", model, "rice cash", "--label", "")[1].startswith("Nothing new")
    code, printed, errors = run("teach", model, "rice cash", "--label", "money|food", "--label-separator", "|")
    assert code == 0 and "these were replaced" in errors and "food 1, money 1" in printed
    code, printed, errors = run("teach", model, "--data", separated, "--label-separator", ";")
    assert code == 0 and f"{len(TEXTS)} examples are in the model already" in errors and "Nothing new" in printed
    plain = tmp_path / "plain.csv"
    plain.write_text("text,labels\nrice bank,food;money\n", encoding="utf-8")
    assert run("teach", model, "--data", plain)[0] == 0  # a cell is parted as what is typed: no label "food;money"
    loaded = FewShotClassifier.from_pretrained(model)
    assert sorted(loaded.classes_) == ["animals", "food", "money", "sport"]
    assert sorted(loaded.fitted_.examples.several().names()[-1]) == ["food", "money"]
    single = tmp_path / "single"
    table = tmp_path / "one.csv"
    table.write_text("text,label\nball,sport\nrice,food\ngoal,sport\nsoup,food\n", encoding="utf-8")
    assert run("adapt", "--data", table, "--shots", "all", "--out", single, "--include-support")[0] == 0
    code, _, errors = run("teach", single, "--data", tagged)
    assert code == 2 and "the model gives one" in errors
    assert run("teach", model, "--data", table)[0] == 0  # one label each is a set of one


def test_predicted_labels_are_parted_by_the_separator_that_is_requested(run, tagged, tmp_path):
    assert run("adapt", "--data", tagged, "--shots", "all", "--out", tmp_path / "m")[0] == 0
    code, printed, errors = run("predict", tmp_path / "m", "rice", "--top", "2", "--label-separator", "|")
    assert code == 0 and printed.split("\t")[0].count("|") == printed.split("\t")[1].count("|") == 1, errors


def test_labels_with_too_few_texts_are_dropped_on_request(run, tmp_path):
    rows = [{"text": text, "labels": labels} for text, labels in zip(TEXTS, LABELS, strict=True)]
    data = _lines(tmp_path / "rare.jsonl", [*rows, {"text": "rain", "labels": ["weather"]}])
    for rare, classes in (("keep", 4), ("drop", 3)):
        options = ("--shots", 2, "--draws", 1, "--rare", rare, "--json", "--out", tmp_path / rare)
        code, printed, errors = run("adapt", "--data", data, *options)
        assert code == 0 and json.loads(printed)["n_way"] == classes, errors


def test_score_refuses_a_model_of_the_other_kind(run, tagged, table, tmp_path):
    assert run("adapt", "--data", table, "--shots", "2", "--draws", "1", "--out", tmp_path / "single")[0] == 0
    code, _, errors = run("score", tmp_path / "single", "--data", tagged)
    assert code == 2 and "the model gives one" in errors


def test_data_check_counts_each_label_by_itself(run, tagged):
    code, printed, errors = run("data", "check", tagged, "--few", "13", "--json")
    assert code == 0, errors
    (part,) = json.loads(printed)["parts"]
    assert part["classes"] == 3 and part["small_classes"] == {"food": 12, "money": 12, "sport": 12}


def test_data_show_names_each_label_by_itself(run, tagged):
    code, printed, errors = run("data", "show", tagged, "--json")
    assert code == 0, errors
    assert json.loads(printed)["labels"] == ["food", "money", "sport"]
    assert json.loads(printed)["counts"][0]["classes"] == 3


def test_classify_gives_several_labels_by_their_names_alone(run):
    code, printed, errors = run("classify", "--labels", "rice soup,bank", "rice rice", "--multilabel", "--json")
    assert code == 0, errors
    assert "rice soup" in json.loads(printed)["labels"]
    code, _, errors = run("classify", "--labels", "rice soup,bank", "rice", "--multilabel", "--method", "prototypical")
    assert code == 2 and "need the method 'auto'" in errors


def test_scikit_learn_cross_validates_clones_and_scores_it(encoder):
    classifier = clone(FewShotClassifier("auto", encoder=encoder))
    assert get_tags(classifier).classifier_tags.multi_label
    folds = KFold(3, shuffle=True, random_state=0)
    found = cross_val_predict(classifier, TEXTS, MATRIX, cv=folds)
    assert found.shape == MATRIX.shape and type_of_target(found) == "multilabel-indicator"
    scores = cross_val_score(classifier, TEXTS, MATRIX, cv=folds, scoring="f1_macro")
    assert scores.mean() > 0.5
    assert cross_val_score(classifier, TEXTS, MATRIX, cv=folds, scoring="average_precision").min() > 0


def test_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, table = rng.random((30, 4)) < 0.3, rng.random((30, 4))
    truth[:, 3] = False
    answers = table > 0.6
    found = several_scores(truth, table, answers)
    assert found["micro_f1"] == pytest.approx(f1_score(truth, answers, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro"))
    assert found["exact_match"] == pytest.approx((truth == answers).all(1).mean())
    expected = np.mean([average_precision_score(truth[:, i], table[:, i]) for i in range(3)])
    assert found["mean_average_precision"] == pytest.approx(expected)
    answers[:, 3] = False  # a label that nowhere occurs says nothing
    assert several_scores(truth, table, answers)["macro_f1"] == pytest.approx(
        f1_score(truth[:, :3], answers[:, :3], average="macro")
    )


def test_the_baseline_learns_what_it_can():
    rng = np.random.default_rng(0)
    marks = rng.random((40, 4)) < 0.4
    marks[:, 2], marks[:, 3] = False, True
    rows = np.hstack([marks[:, :2], rng.normal(size=(40, 3)) * 0.1]).astype(float)
    weight, bias, least = one_vs_rest(rows, marks)
    answers = 1 / (1 + np.exp(-(rows @ weight.T + bias))) >= least
    assert (answers == marks).mean() > 0.95
    assert not answers[:, 2].any() and answers[:, 3].all()


@pytest.mark.parametrize(("names", "sign"), [
    (["anger", "anger; fear", "fear; joy", "joy; anger"], ";"), (["a|b", "b|c", "a|c", "c"], "|"),
    (["health, safety", "food, drink"], None), (["a;b", "c", "d"], None), (["refund", "complaint"], None),
    ([";", "a"], None),
])  # fmt: skip
def test_classes_that_look_like_several_labels_are_said_to(names, sign):
    found = perhaps_several(names)
    assert [line.split("--label-separator ")[1] for line in found] == ([] if sign is None else [f"'{sign}'"])
