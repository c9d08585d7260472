"""Each metric against scikit-learn, a loop written another way, or numbers worked out by hand."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from nlpmeta import metrics
from nlpmeta.errors import UnknownNameError
from nlpmeta.learners.logistic import few_texts_a_class
from nlpmeta.metrics import (
    OUT_OF_SCOPE,
    accuracy,
    calibration_bins,
    calibration_error,
    error_of_bins,
    load_metric,
    macro_f1,
    macro_f1_of_each,
    oos_auroc,
    oos_recall,
)


@pytest.fixture
def probabilities():
    return np.random.default_rng(0).dirichlet(np.ones(4), 200)


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(OUT_OF_SCOPE, 4, 200)


def test_accuracy_and_macro_f1_of_six_texts_are_what_a_pencil_says():
    truth, guess = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]
    assert accuracy(truth, guess) == pytest.approx(4 / 6)
    assert macro_f1(truth, guess) == pytest.approx((4 / 5 + 2 / 4 + 2 / 3) / 3)


def test_macro_f1_counts_a_class_that_only_occurs_among_predictions():
    assert macro_f1([0, 0], [0, 1]) == pytest.approx((2 / 3 + 0) / 2)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30), st.integers(0, 99)), min_size=1, max_size=8))
def test_many_tasks_at_once_have_the_macro_f1_of_each_by_itself(shapes):
    tasks = []
    for n_way, n_query, seed in shapes:
        rng = np.random.default_rng(seed)
        tasks.append((rng.integers(0, n_way, n_query), rng.integers(0, n_way, n_query)))
    with few_texts_a_class():
        theirs = [f1_score(truth, guess, average="macro", zero_division=0.0) for truth, guess in tasks]
    assert macro_f1_of_each(tasks) == pytest.approx(theirs)


def test_calibration_error_of_four_texts_is_what_a_pencil_says():
    # 15 bins: 0.95 and 0.97 share the last, 0.60 and 0.62 lie in the ninth and tenth: (0.533, 0.6] and (0.6, 0.667].
    confident = [0.95, 0.97, 0.60, 0.62]
    table = [[1 - c, c] for c in confident]
    truth = [1, 0, 1, 1]
    expected = (abs(1 - 1.92) + abs(1 - 0.60) + abs(1 - 0.62)) / 4
    assert calibration_error(truth, table) == pytest.approx(expected)


def test_a_confidence_on_the_border_of_two_bins_belongs_to_the_lower_one():
    # Two bins, (0, 0.5] and (0.5, 1]: a right text of confidence 0.5 and a wrong one of 0.75 do not make up for it.
    assert calibration_error([0, 0], [[0.5, 0.5], [0.25, 0.75]], n_bins=2) == pytest.approx((0.5 + 0.75) / 2)


def test_calibration_error_agrees_with_a_loop_over_bins(probabilities):
    truth = np.random.default_rng(2).integers(0, 4, 200)
    total = 0.0
    for m in range(1, 16):
        inside = [i for i, row in enumerate(probabilities) if (m - 1) / 15 < max(row) <= m / 15]
        if inside:
            right = np.mean([probabilities[i].argmax() == truth[i] for i in inside])
            total += len(inside) / 200 * abs(right - np.mean([max(probabilities[i]) for i in inside]))
    assert calibration_error(truth, probabilities) == pytest.approx(total)


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not():
    table = np.eye(3)
    assert calibration_error([0, 1, 2], table) == 0
    assert calibration_error([1, 2, 0], table) == 1


def test_bins_of_two_halves_add_up_to_the_bins_of_the_whole(probabilities):
    truth = np.random.default_rng(3).integers(0, 4, 200)
    halves = calibration_bins(truth[:70], probabilities[:70]) + calibration_bins(truth[70:], probabilities[70:])
    assert error_of_bins(halves) == pytest.approx(calibration_error(truth, probabilities))


def test_auroc_is_the_share_of_pairs_in_the_right_order(probabilities, labels):
    confidence = probabilities.max(1)
    outside, inside = confidence[labels == OUT_OF_SCOPE], confidence[labels != OUT_OF_SCOPE]
    pairs = [(o < i) + 0.5 * (o == i) for o in outside for i in inside]
    assert oos_auroc(labels, probabilities) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("wanted", [0.0, 0.05, 0.1, 0.2, 0.25, 0.3, 0.9])
def test_recall_is_the_best_that_any_threshold_reaches_at_that_accuracy(probabilities, labels, wanted):
    confidence, outside = probabilities.max(1), labels == OUT_OF_SCOPE
    right = probabilities.argmax(1) == labels
    best = 0.0
    for threshold in [*confidence, np.inf]:
        kept = ((confidence >= threshold) & right)[~outside].mean()
        if kept >= wanted - 1e-12:
            best = max(best, (confidence < threshold)[outside].mean())
    assert oos_recall(labels, probabilities, in_scope_accuracy=wanted) == pytest.approx(best)


def test_recall_is_zero_where_the_accuracy_is_out_of_reach():
    assert oos_recall([0, 1, OUT_OF_SCOPE], [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], in_scope_accuracy=0.6) == 0


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_label_metrics_are_modules_of_evaluate_that_load_without_the_hub(name):
    truth, guess = [0, 0, 1, 2], [0, 1, 1, 2]
    expected = {"accuracy": accuracy_score(truth, guess), "macro_f1": f1_score(truth, guess, average="macro")}
    assert load_metric(name).compute(predictions=guess, references=truth) == {name: pytest.approx(expected[name])}


@pytest.mark.parametrize(
    ("name", "options"),
    [("calibration_error", {"n_bins": 5}), ("oos_auroc", {}), ("oos_recall", {"in_scope_accuracy": 0.1})],
)
def test_probability_metrics_are_modules_of_evaluate_too(name, options, probabilities, labels):
    if name == "calibration_error":
        labels = labels.clip(0)
    module = load_metric(name)
    found = module.compute(predictions=probabilities.tolist(), references=labels.tolist(), **options)
    assert found == {name: pytest.approx(getattr(metrics, name)(labels, probabilities, **options))}


def test_modules_can_be_fed_in_batches():
    module = load_metric("accuracy")
    module.add_batch(predictions=[0, 1], references=[0, 0])
    module.add_batch(predictions=[1], references=[1])
    assert module.compute() == {"accuracy": pytest.approx(2 / 3)}


def test_an_unknown_metric_is_said_with_those_that_there_are():
    with pytest.raises(UnknownNameError, match="macro_f1"):
        load_metric("makro_f1")


@pytest.mark.slow
def test_plain_functions_do_not_pay_for_importing_evaluate():
    code = "import sys, nlpmeta.metrics; sys.exit('evaluate' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
