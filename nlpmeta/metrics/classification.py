"""How often predictions are right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.learners.logistic import few_texts_a_class

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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
