"""How good predictions are, on scikit-learn: accuracy, macro-F1, calibration and out-of-scope detection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from nlpmeta.errors import UnknownNameError
from nlpmeta.learners.logistic import few_texts_a_class

if TYPE_CHECKING:
    from evaluate import Metric, MetricInfo
    from numpy.typing import ArrayLike, NDArray

Bins: TypeAlias = "NDArray[np.float64]"
"""Texts, summed confidence and right answers by confidence, shape ``(..., n_bins, 3)``; bins of several sets add up."""

N_BINS = 15


def calibration_bins(labels: "ArrayLike", probabilities: "ArrayLike", *, n_bins: int = N_BINS) -> Bins:
    """Sort texts by confidence into ``n_bins`` bins ``((m - 1) / n_bins, m / n_bins]`` of equal width.

    Args:
        labels: ``(n,)``.
        probabilities: ``(n, n_way)``; the largest of a row is its confidence.
        n_bins: how many bins.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    confidence, right = table.max(1), table.argmax(1) == np.asarray(labels)
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    columns = [np.bincount(bins, weights, n_bins) for weights in (np.ones_like(confidence), confidence, right)]
    return np.stack(columns, axis=1)


def error_of_bins(bins: Bins) -> "NDArray[np.float64]":
    """The calibration error that ``bins`` ``(..., n_bins, 3)`` show; shape ``(...)``."""
    n_texts, confidence, right = np.moveaxis(bins, -1, 0)
    error: NDArray[np.float64] = np.abs(right - confidence).sum(-1) / n_texts.sum(-1)
    return error


def calibration_error(labels: "ArrayLike", probabilities: "ArrayLike", *, n_bins: int = N_BINS) -> float:
    """The expected calibration error: how far confidence and accuracy are apart, averaged over texts.

    Source: Guo, Pleiss, Sun and Weinberger, ICML 2017, equation 3 (arXiv:1706.04599), with their 15 bins.

    Args:
        labels: ``(n,)``.
        probabilities: ``(n, n_way)``.
        n_bins: bins of equal width.
    """
    return float(error_of_bins(calibration_bins(labels, probabilities, n_bins=n_bins)))


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """The share of predictions that are right."""
    from sklearn.metrics import accuracy_score

    with few_texts_a_class():
        return float(accuracy_score(labels, predictions))


def macro_f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """The unweighted mean of F1 over the classes that occur among labels or predictions."""
    from sklearn.metrics import f1_score

    with few_texts_a_class():
        return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def macro_f1_of_each(tasks: "Sequence[tuple[ArrayLike, ArrayLike]]") -> list[float]:
    """``macro_f1`` of many small tasks ``(labels, predictions)`` in one call, which costs little more than for one."""
    from sklearn.metrics import f1_score

    arrays = [(np.asarray(labels), np.asarray(predictions)) for labels, predictions in tasks]
    width = 1 + max(int(max(labels.max(), predictions.max())) for labels, predictions in arrays)
    labels = np.concatenate([labels + i * width for i, (labels, _) in enumerate(arrays)])  # no class in two tasks
    predictions = np.concatenate([predictions + i * width for i, (_, predictions) in enumerate(arrays)])
    present = np.union1d(labels, predictions)
    with few_texts_a_class():
        scores = f1_score(labels, predictions, average=None, labels=present, zero_division=0.0)
    task = present // width
    return [float(mean) for mean in np.bincount(task, weights=scores) / np.bincount(task)]


OUT_OF_SCOPE = -1
"""The label of a text that belongs to no class."""


def oos_auroc(labels: "ArrayLike", probabilities: "ArrayLike") -> float:
    """How well a low largest probability tells texts out of scope from others: the area under the ROC curve.

    Source: Hendrycks and Gimpel, ICLR 2017 (arXiv:1610.02136).

    Args:
        labels: ``(n,)``, ``OUT_OF_SCOPE`` where a text belongs to no class; some do and some do not.
        probabilities: ``(n, n_way)``.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(np.asarray(labels) == OUT_OF_SCOPE, -np.asarray(probabilities).max(1)))


def oos_recall(labels: "ArrayLike", probabilities: "ArrayLike", *, in_scope_accuracy: float = 0.8) -> float:
    """The share of texts out of scope that are refused at the threshold that just keeps ``in_scope_accuracy``.

    A text is refused if its largest probability lies below the threshold; a text in scope that is refused counts as
    wrong. Where the accuracy is not reached even if nothing is refused, the recall is 0.

    Source: the two figures that Larson et al., EMNLP 2019 (arXiv:1909.02027), report for CLINC150. Where we differ: one
    of them is held fixed, so that methods can be compared by the other.

    Args:
        labels: ``(n,)``, ``OUT_OF_SCOPE`` where a text belongs to no class; some do and some do not.
        probabilities: ``(n, n_way)``.
        in_scope_accuracy: the share of texts in scope that must be accepted and right.
    """
    truth, table = np.asarray(labels), np.asarray(probabilities)
    outside, confidence = truth == OUT_OF_SCOPE, table.max(1)
    right = np.sort(confidence[~outside & (table.argmax(1) == truth)])[::-1]
    needed = int(np.ceil(round(in_scope_accuracy * int((~outside).sum()), 9)))
    if needed > len(right):
        return 0.0
    threshold = right[needed - 1] if needed else np.inf
    return float((confidence[outside] < threshold).mean())


SEVERAL_METRICS = ("macro_f1", "micro_f1", "mean_average_precision", "exact_match")
"""The figures of texts with several labels, the main one first."""


def several_scores(marks: "ArrayLike", probabilities: "ArrayLike", answers: "ArrayLike") -> dict[str, float]:
    """The figures of ``SEVERAL_METRICS``, by scikit-learn.

    Macro-F1 is the mean over the labels that occur among truth or answers, mean average precision over those that
    occur among the truth (NaN if none does); of an exact match all labels of a text are right and none is missing.

    Args:
        marks: which labels each text has, ``(n, n_labels)``.
        probabilities: of each label, ``(n, n_labels)``.
        answers: which labels were given, ``(n, n_labels)``.
    """
    from sklearn.metrics import average_precision_score, f1_score

    truth, given, table = np.asarray(marks, bool), np.asarray(answers, bool), np.asarray(probabilities, np.float64)
    seen = truth.any(0)
    macro = f1_score(truth, given, average="macro", zero_division=np.nan) if (truth | given).any() else 1.0
    precise = average_precision_score(truth[:, seen], table[:, seen], average="macro") if seen.any() else np.nan
    micro = f1_score(truth, given, average="micro", zero_division=1.0)
    found = (macro, micro, precise, (truth == given).all(1).mean())
    return {name: float(value) for name, value in zip(SEVERAL_METRICS, found, strict=True)}


def several_bins(marks: "ArrayLike", probabilities: "ArrayLike") -> Bins:
    """``calibration_bins`` where texts have several labels: each pair of text and label counts as one text.

    The confidence is the probability that the label is given, or that it is not, whichever is larger.

    Args:
        marks: which labels each text has, ``(n, n_labels)``.
        probabilities: of each label, ``(n, n_labels)``.
    """
    given = np.asarray(probabilities, dtype=np.float64).reshape(-1)
    return calibration_bins(np.asarray(marks, bool).reshape(-1), np.stack([1 - given, given], axis=1))


@dataclass(frozen=True)
class _Described:
    """A metric as a module of Hugging Face ``evaluate`` states it."""

    compute: Callable[..., float]
    about: str
    citation: str = ""
    takes_labels: bool = False


_MODULES = {
    "accuracy": _Described(accuracy, "The share of predictions that are right.", takes_labels=True),
    "macro_f1": _Described(macro_f1, "The unweighted mean of F1 over the classes that occur.", takes_labels=True),
    "calibration_error": _Described(
        calibration_error, "Expected calibration error.", "Guo et al. 2017, arXiv:1706.04599"
    ),
    "oos_auroc": _Described(oos_auroc, "Area under the ROC curve of refusing texts out of scope.", "arXiv:1610.02136"),
    "oos_recall": _Described(
        oos_recall, "Recall of texts out of scope at a fixed in-scope accuracy.", "arXiv:1909.02027"
    ),
}


def load_metric(name: str) -> "Metric":
    """A metric of this package as a module of Hugging Face ``evaluate``; nothing is fetched from the Hub.

    ``load_metric(name).compute(predictions=..., references=...)`` takes labels for ``accuracy`` and ``macro_f1``, and
    for ``calibration_error``, ``oos_auroc`` and ``oos_recall`` the probabilities of all classes for each text.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    if name not in _MODULES:
        raise UnknownNameError("metric", name, _MODULES)
    from datasets import Features, Value
    from datasets import Sequence as Row
    from evaluate import Metric, MetricInfo

    described, number = _MODULES[name], Value("int64")
    if described.takes_labels:
        inputs, takes = "predictions: predicted labels; references: true labels.", number
    else:
        takes = Row(Value("float64"))
        inputs = (
            "predictions: for each text the probabilities of all classes; references: true labels, "
            f"{OUT_OF_SCOPE} for a text that belongs to none."
        )

    def info(self: "Metric") -> "MetricInfo":
        features = Features({"predictions": takes, "references": number})
        return MetricInfo(described.about, citation=described.citation, features=features, inputs_description=inputs)

    def compute(
        self: "Metric", predictions: Sequence[object], references: Sequence[int], **options: float
    ) -> dict[str, float]:
        return {name: described.compute(references, predictions, **options)}

    module: Metric = type(name, (Metric,), {"_info": info, "_compute": compute})(keep_in_memory=True)
    return module
