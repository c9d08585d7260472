"""``nlpmeta score``: saved models on labelled data, each as it is."""

import csv
import json
from collections import Counter
from math import comb

import numpy as np
import pytest

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.evaluation.saved import Answers, compare, match_labels
from nlpmeta.metrics.scores import Proportion, says_little


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run ``nlpmeta score``; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main(["score", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def saved(encoder_folder, pool, tmp_path):
    """Save a model of the first examples of each topic; ``names`` are what the topics are called."""

    def save(folder, names=("food", "money", "sport"), method="prototypical", per_class=2):
        rows = [row for label in range(3) for row in [i for i, y in enumerate(pool.labels) if y == label][:per_class]]
        labels = [names[pool.labels[row]] for row in rows]
        model = FewShotClassifier(method, encoder=str(encoder_folder), checkpoint="none")
        model.fit([pool.texts[row] for row in rows], labels).save_pretrained(tmp_path / folder)
        return model

    return save


def write(path, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path


def answers(name, right, n_way=2):
    """Made-up answers of two classes to texts that are all of class ``a``."""
    data = LabeledTexts(tuple(f"text {i}" for i in range(len(right))), (0,) * len(right), ("a", "b"))
    probabilities = np.asarray([[0.9, 0.1] if each else [0.2, 0.8] for each in right])
    return Answers.of(name, np.asarray(["a", "b"]), data, probabilities)


def test_figures_are_those_of_scikit_learn_on_the_predictions_of_the_model_as_it_is(run, saved, table, pool):
    from sklearn.metrics import accuracy_score, f1_score

    guesses = saved("model").predict(list(pool.texts)).tolist()
    code, out, err = run("model", "--data", table, "--json", "--quiet")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)["models"]
    assert found["accuracy"]["mean"] == pytest.approx(accuracy_score(pool.names(), guesses))
    assert found["macro_f1"] == pytest.approx(f1_score(pool.names(), guesses, average="macro"))
    assert found["n_scored_texts"] == found["accuracy"]["n_texts"] == 48
    wrong = Counter((a, b) for a, b in zip(pool.names(), guesses, strict=True) if a != b)
    assert [times for _, _, times in found["confused"]] == [times for _, times in wrong.most_common(5)]


def test_wilsons_interval_is_the_formula_of_1927():
    right, n, z = 17, 20, 1.959963984540054
    share = right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert Proportion(right, n).interval == pytest.approx((middle - half, middle + half))
    with pytest.raises(NLPMetaError, match="needs texts"):
        Proportion(0, 0)


def test_mcnemar_is_the_exact_binomial_test_on_texts_that_one_alone_has_right():
    one = answers("one", [True] * 9 + [False] * 7 + [True] * 20)
    two = answers("two", [False] * 2 + [True] * 14 + [True] * 20)
    pair = compare(one, two)
    assert (pair.only_baseline, pair.only_other, pair.n_texts) == (2, 7, 36)
    assert pair.p_value == pytest.approx(2 * sum(comb(9, k) for k in range(3)) / 2**9)
    assert pair.gain.mean == pytest.approx(5 / 36)
    assert pair.differ == (0, 1, 9, 10, 11, 12, 13, 14, 15)


def test_two_models_with_the_same_answers_are_not_told_apart():
    pair = compare(answers("one", [True, False] * 20), answers("two", [True, False] * 20))
    assert (pair.p_value, pair.gain.mean, pair.differ) == (1.0, 0.0, ())


@pytest.mark.parametrize(
    ("classes", "label", "number"),
    [
        (np.asarray([1, 2]), "2", 1),
        (np.asarray([1, 2]), "2.0", 1),
        (np.asarray([1, 2]), "two", None),
        (np.asarray([1, 2]), "1.5", None),
        (np.asarray([0.5, 1.5]), "1.50", 1),
        (np.asarray([False, True]), "TRUE", 1),
        (np.asarray([False, True]), "0", 0),
        (np.asarray(["1", "2"]), "2", 1),
        (np.asarray(["1", "2"]), "2.0", None),
        (np.asarray([2**62, 2**62 + 1]), str(2**62 + 1), 1),
    ],
)
def test_labels_are_matched_as_the_kind_they_were_saved_as(classes, label, number):
    assert match_labels([label], classes).get(label) == number


def test_a_model_of_numbers_is_scored_on_numbers_of_a_table(run, saved, pool, tmp_path):
    model = saved("model", names=(10, 20, 30))
    rows = [(text, 10 * (label + 1)) for text, label in zip(pool.texts, pool.labels, strict=True)]
    code, out, _ = run("model", "--data", write(tmp_path / "numbers.csv", rows), "--json", "-q")
    assert code == 0
    right = np.mean(model.predict(list(pool.texts)) == np.asarray([label for _, label in rows]))
    assert json.loads(out)["models"][0]["accuracy"]["mean"] == pytest.approx(right)


def test_labels_that_the_model_does_not_know_are_counted_and_left_out(run, saved, pool, tmp_path):
    saved("model")
    rows = [*zip(pool.texts, pool.names(), strict=True), ("ball ball", "weather"), ("soup soup", "weather")]
    path = write(tmp_path / "more.csv", rows)
    found = json.loads(run("model", "--data", path, "--json", "-q")[1])["models"][0]
    assert found["unseen_labels"] == {"weather": 2}
    assert (found["n_scored_texts"], found["accuracy_with_unseen_as_wrong"]["n_texts"]) == (48, 50)
    assert "does not know 1 of the labels: weather (2)" in run("model", "--data", path, "-q")[1]


def test_data_of_other_labels_is_refused_with_both_sets(run, saved, tmp_path):
    saved("model")
    code, out, err = run("model", "--data", write(tmp_path / "other.csv", [("rain", "wet"), ("sun", "dry")]), "-q")
    assert (code, out) == (2, "")
    assert "'food', 'money', 'sport'" in err
    assert "'dry', 'wet'" in err


def test_several_models_are_compared_on_the_texts_they_differ_on(run, saved, table, tmp_path):
    one, two = saved("one", per_class=1), saved("two", method="knn", per_class=8)
    texts = [row["text"] for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())]
    differ = [text for text, a, b in zip(texts, one.predict(texts), two.predict(texts), strict=True) if a != b]
    assert differ, "the test needs two models that differ"
    pair = json.loads(run("one", "two", "--data", table, "--show", 100, "--json", "-q")[1])["pairs"][0]
    assert [each["text"] for each in pair["differ"]] == differ
    assert pair["n_differ"] == len(differ)
    out = run("one", "two", "--data", table, "--show", 1, "-q")[1]
    assert "McNemar" in out
    assert repr(differ[0]) in out


def test_a_row_a_text_is_written_in_order(run, saved, table, pool, tmp_path):
    guesses = saved("model").predict(list(pool.texts)).tolist()
    assert run("model", "--data", table, "--out", "rows.csv", "-q")[0] == 0
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["text"] for row in rows] == list(pool.texts)
    assert [row["model:label"] for row in rows] == guesses
    code, _, err = run("model", "--data", table, "--out", "rows.csv", "-q")
    assert code == 2
    assert "--overwrite" in err


def test_few_texts_are_said_to_say_little(run, saved, pool, table, tmp_path):
    saved("model")
    few = write(tmp_path / "few.csv", list(zip(pool.texts[::4], pool.names()[::4], strict=True)))
    assert "only 12 texts were scored" in run("model", "--data", few, "-q")[1]
    assert "says little" not in run("model", "--data", table, "-q")[1]
    assert says_little(30) is None
    assert says_little(1) is not None


def test_a_stream_model_is_scored_like_any_other(run, encoder_folder, pool, table, tmp_path):
    model = FewShotClassifier("mann", encoder=str(encoder_folder), checkpoint="none")
    model.fit(list(pool.texts[::5]), pool.names()[::5]).save_pretrained(tmp_path / "stream")
    code, out, err = run("stream", "--data", table, "--json", "-q")
    assert code == 0, err
    right = np.mean(np.asarray(model.predict(list(pool.texts))) == np.asarray(pool.names()))
    assert json.loads(out)["models"][0]["accuracy"]["mean"] == pytest.approx(right)


def test_usage_errors_have_their_exit_codes(run, saved, table):
    saved("model")
    assert run("model")[0] == 2
    assert run("--data", table)[0] == 2
    assert run("model", "model", "--data", table)[0] == 2
    assert run("absent", "--data", table)[0] == 2


def test_answers_need_one_label_in_common():
    with pytest.raises(DataError, match="knows none"):
        Answers.of("m", np.asarray([1, 2]), LabeledTexts(("x",), (0,), ("a",)), np.ones((1, 2)))
    one = answers("one", [True])
    other = Answers.of("two", np.asarray(["b", "c"]), LabeledTexts(("x", "y"), (0, 1), ("a", "b")), np.ones((2, 2)) / 2)
    with pytest.raises(DataError, match="both one and two"):
        compare(Answers("one", one.classes, np.asarray([0, -1]), ("a", "z"), np.ones((2, 2)) / 2), other)


def test_an_interval_that_spans_all_there_is_is_not_shown():
    from nlpmeta.metrics.scores import Interval

    assert Interval.of([0.5, 0.7]).percent() == "60.0"
    assert Interval.of([0.60, 0.61, 0.62]).percent().startswith("61.0 ± ")
