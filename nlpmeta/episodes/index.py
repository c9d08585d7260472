"""Rows of a pool by class and sentence, ready for drawing episodes that cannot leak."""

from collections.abc import Sequence
from operator import itemgetter

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes.base import Integers, Sentences, Shape, sentences_of

_SMALL = 400


class Index:
    """Some rows of a pool (all by default), grouped into sentences and these into classes.

    Args:
        pool: where the rows are.
        sentences: those of the whole pool; computed if not given.
        rows: the rows to index, each at most once.
    """

    def __init__(
        self, pool: LabeledTexts, *, sentences: Sentences | None = None, rows: Sequence[int] | Integers | None = None
    ) -> None:
        self.pool = pool
        self.sentences = sentences if sentences is not None else sentences_of(pool)
        numbers, labels = self.sentences.of_row, self.sentences.labels
        chosen = np.arange(len(pool)) if rows is None else np.asarray(rows, dtype=np.int64)
        kept = chosen[np.asarray(pool.labels)[chosen] == labels[numbers[chosen]]]
        self._order = kept[np.argsort(numbers[kept], kind="stable")]
        self._count = np.bincount(numbers[kept], minlength=len(labels))
        self._start = np.cumsum(self._count) - self._count
        self._has_choice = bool((self._count > 1).any())
        self.present = self._count > 0
        found = np.flatnonzero(self.present)
        self.by_class = [found[labels[found] == label] for label in range(pool.n_way)]
        """The sentences of each class, in the order of ``label_names``."""
        self.labels = np.unique(np.asarray(pool.labels)[chosen])
        """The classes that any of the rows has."""

    def counts(self) -> dict[str, int]:
        """The sentences of each class that any of the rows has, by label name."""
        return {self.pool.label_names[label]: len(self.by_class[label]) for label in self.labels}

    def rich(self, need: int) -> Integers:
        """The classes with at least ``need`` sentences."""
        return np.asarray([label for label, found in enumerate(self.by_class) if len(found) >= need], dtype=np.int64)

    def rows(self, sentences: Integers, rng: np.random.Generator) -> Integers:
        """One row of each sentence, drawn uniformly from its rows; same shape as ``sentences``."""
        first = self._start[sentences]
        if self._has_choice:
            first = first + (rng.random(sentences.shape) * self._count[sentences]).astype(np.int64)
        chosen: Integers = self._order[first]
        return chosen

    def episode(self, rng: np.random.Generator, labels: Integers, n_shot: int, n_query: int) -> Episode:
        """Support and query of these classes, no sentence twice."""
        size = n_shot + n_query
        rows = self.rows(np.stack([draw(rng, self.by_class[label], size) for label in labels]), rng)
        names = tuple(self.pool.label_names[label] for label in labels)
        return Episode(labelled(self.pool, rows[:, :n_shot], names), labelled(self.pool, rows[:, n_shot:], names))


class TwoSided:
    """Support from some rows of a pool, query from others, which may overlap in sentences but not in an episode.

    ``labels`` are the classes that can always be drawn.
    """

    def __init__(self, support: Index, query: Index, shape: Shape) -> None:
        self._support, self._query = support, query
        owner, n_way, shots = support.sentences.labels, support.pool.n_way, shape.n_shot.high
        have, want, both = (
            np.bincount(owner[present], minlength=n_way)
            for present in (support.present, query.present, support.present & query.present)
        )
        # At worst every support sentence is one that the query side has as well.
        self.labels = np.flatnonzero((have >= shots) & (want - np.minimum(shots, both) >= shape.n_query))

    def episode(self, rng: np.random.Generator, labels: Integers, n_shot: int, n_query: int) -> Episode:
        """Support and query of these classes, no sentence on both sides."""
        shots, queries = [], []
        for label in labels:
            shots.append(draw(rng, self._support.by_class[label], n_shot))
            others = self._query.by_class[label]
            queries.append(draw(rng, others[~np.isin(others, shots[-1])], n_query))
        pool = self._support.pool
        names = tuple(pool.label_names[label] for label in labels)
        support = labelled(pool, self._support.rows(np.stack(shots), rng), names)
        return Episode(support, labelled(pool, self._query.rows(np.stack(queries), rng), names))


def draw(rng: np.random.Generator, items: Integers, size: int) -> Integers:
    """``size`` different items (all if there are fewer) in random order."""
    if len(items) <= max(_SMALL, size):  # a permutation of few items is several times faster than a choice
        return rng.permuted(items)[:size]
    return rng.choice(items, size=size, replace=False)


def grouped(texts: Sequence[Sequence[str]], label_names: Sequence[str]) -> LabeledTexts:
    """The texts of each class, one class after another."""
    labels = tuple(label for label, each in enumerate(texts) for _ in each)
    return LabeledTexts(tuple(text for each in texts for text in each), labels, tuple(label_names))


def labelled(pool: LabeledTexts, rows: Integers, label_names: tuple[str, ...]) -> LabeledTexts:
    """The rows ``(n_way, n)`` of a pool, those of class ``c`` in row ``c``, grouped by class."""
    flat = rows.ravel().tolist()
    pick = itemgetter(*flat) if len(flat) > 1 else lambda column: (column[flat[0]],)
    labels = np.arange(len(rows)).repeat(rows.shape[1]).tolist()
    return LabeledTexts(
        pick(pool.texts),
        tuple(labels),
        label_names,
        *(
            None if column is None else pick(column)
            for column in (pool.langs, pool.domains, pool.ids, pool.users, pool.times)
        ),
        descriptions=pool.descriptions_of(label_names),
        by_name=pool.by_name,
    )
