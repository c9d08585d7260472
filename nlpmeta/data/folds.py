"""The one k-fold: texts are dealt into folds class by class, so that each class is spread over them evenly."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Integers: TypeAlias = "NDArray[np.int64]"


def by_label(labels: Integers) -> list[Integers]:
    """The rows of each class that occurs in ``labels`` ``(n,)``, classes in ascending order."""
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def deal_folds(
    classes: Sequence[Integers],
    n_folds: int,
    *,
    n_rows: int,
    order: Callable[[Integers], Integers] | None = None,
    carry_below: float = 0,
) -> Integers:
    """The fold of each row, ``(n_rows,)``; -1 for a row that is in none of ``classes``.

    Args:
        classes: the rows of each class, in the order in which classes are dealt.
        n_folds: how many folds.
        n_rows: how many rows there are.
        order: reorders the folds that were dealt to a class before its rows take them, such as a shuffle; by default
            the first row gets the first.
        carry_below: a class with fewer rows than this starts where the last such class ended, so that small classes
            do not all land in the first folds; larger classes start at fold 0.
    """
    folds, turn = np.full(n_rows, -1, dtype=np.int64), 0
    for rows in classes:
        carries = len(rows) < carry_below
        dealt = (np.arange(len(rows)) + turn * carries) % n_folds
        folds[rows] = dealt if order is None else order(dealt)
        turn += len(rows) * carries
    return folds
