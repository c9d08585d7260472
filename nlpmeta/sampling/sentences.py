"""Which rows of a pool are one sentence: the same text in another spelling, or its translation."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nlpmeta.data import LabeledTexts
from nlpmeta.sampling.leaks import fingerprints

Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sentences:
    """The sentences of a pool, numbered in the order of their first rows."""

    of_row: Integers
    """The sentence of each row, ``(n,)``."""
    labels: Integers
    """The class of each sentence, ``(n_sentences,)``: that of most of its rows, of the first of these if several."""


def sentences_of(pool: LabeledTexts) -> Sentences:
    """Rows are one sentence if their texts agree after normalisation or their ids are equal, directly or in a chain.

    An episode that takes a sentence at most once then has neither on both sides. A sentence has one class, so that a
    text that occurs under two labels is drawn under one of them only.
    """
    keys: list[list[Hashable]] = [[(mark, "text") for mark in fingerprints(pool.texts)]]
    if pool.ids is not None:
        keys.append([(id_, "id") for id_ in pool.ids])
    roots = _connected(keys)
    _, first, of_row = np.unique(roots, return_index=True, return_inverse=True)
    return Sentences(of_row.astype(np.int64), _majority(of_row, np.asarray(pool.labels), first))


def _connected(keys: list[list[Hashable]]) -> Integers:
    """For each row the first row that it shares a key with, directly or in a chain (union-find, Tarjan 1975)."""
    parent = list(range(len(keys[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for column in keys:
        first: dict[Hashable, int] = {}
        for row, key in enumerate(column):
            a, b = root(row), root(first.setdefault(key, row))
            parent[max(a, b)] = min(a, b)
    return np.asarray([root(row) for row in range(len(parent))], dtype=np.int64)


def _majority(of_row: Integers, labels: Integers, first: Integers) -> Integers:
    """The most frequent label of each sentence; a loop over the few that have several."""
    chosen = labels[first].astype(np.int64)
    mixed = np.unique(of_row[labels != chosen[of_row]])
    votes: dict[int, Counter[int]] = {int(number): Counter() for number in mixed}
    for row in np.flatnonzero(np.isin(of_row, mixed)):
        votes[int(of_row[row])][int(labels[row])] += 1
    for number, counter in votes.items():
        chosen[number] = counter.most_common(1)[0][0]
    return chosen
