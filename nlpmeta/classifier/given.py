"""What is given to a classifier, checked: texts with labels, weights, classes without an example."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from nlpmeta.data.inputs import checked_texts, is_missing, values_of
from nlpmeta.data.labels import checked_labels, kind_of
from nlpmeta.errors import DataError, visible

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def checked_weights(sample_weight: object, n: int) -> "NDArray[np.float64] | None":
    """The weight of each of ``n`` texts, ``None`` if none are given.

    Raises:
        DataError: if one is no number from 0 on, all are 0, or there are not ``n``.
    """
    if sample_weight is None:
        return None
    values = values_of(sample_weight, name="sample_weight", what="numbers")
    if len(values) != n:
        raise DataError(f"There are {n} texts but sample_weight has {len(values)} numbers.")
    for row, value in enumerate(values):
        if kind_of(value) not in (int, float) or not np.isfinite(value) or value < 0:  # type: ignore[call-overload,operator]
            raise DataError(f"sample_weight must hold numbers from 0 on; row {row} is {visible(repr(value))[:40]}.")
    weights = np.asarray(values, dtype=np.float64)
    if not weights.any():
        raise DataError("Every number in sample_weight is 0: nothing is left to learn from.")
    return weights


def at_least_two(classes: "NDArray[np.generic]") -> None:
    """Refuse a task with one class.

    Raises:
        DataError: names it.
    """
    if len(classes) < 2:
        raise DataError(f"A classifier needs at least two classes; y has one: {classes.tolist()[0]!r}.")


def checked_pairs(
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
) -> "tuple[tuple[str, ...], NDArray[np.generic]]":
    """Texts and a label for each, checked.

    Raises:
        DataError: if a text or label cannot be used, or there are not as many of the one as of the other.
    """
    texts, labels = checked_texts(X), checked_labels(y)
    if len(texts) != len(labels):
        raise DataError(f"X has {len(texts)} texts but y has {len(labels)} labels.")
    return texts, labels


def pairs_and_classes(
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
    classes: "ArrayLike | None",
) -> "tuple[tuple[str, ...], NDArray[np.generic], NDArray[np.generic] | None]":
    """``checked_pairs``, which may be none if ``classes`` names the classes, and the classes without an example.

    Raises:
        DataError: as ``checked_pairs``, if a class is empty or there twice, or a label in ``y`` is none of them.
    """
    if classes is None:
        return *checked_pairs(X, y), None
    named = values_of(classes, name="classes", what="labels")
    empty = [name for name in named if is_missing(name) or (isinstance(name, str | bytes) and not name.strip())]
    if empty or not named:
        raise DataError(
            f"classes must hold a name for each class; {f'it holds {empty[0]!r}' if empty else 'it is empty'}."
        )
    every = checked_labels(named)
    known = Counter(every.tolist())
    label, count = known.most_common(1)[0]
    if count > 1:
        raise DataError(f"classes holds {label!r} twice.")
    texts, labels = values_of(X, name="X", what="texts"), values_of(y, name="y", what="labels")
    if not texts and not labels:
        return (), every[:0], every
    pairs = checked_pairs(cast("Sequence[str]", texts), cast("ArrayLike", labels))
    seen = dict.fromkeys(pairs[1].tolist())
    unknown = [label for label in seen if label not in known]
    if unknown:
        raise DataError(f"y holds the label {unknown[0]!r}, which is none of the classes; add it to classes.")
    return *pairs, every[[label not in seen for label in every.tolist()]]
