"""Rows of a pool by class and sentence, ready for drawing episodes that cannot leak; K positives a label."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.episodes import Integers, Sentences, Shape, fingerprint, generator, sentences_of
from nlpmeta.errors import DataError, NLPMetaError, visible

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


@dataclass(frozen=True)
class MultiLabelDraw:
    """What to learn from and what to score on, where a text may have several labels."""

    support: MultiLabelTexts
    query: MultiLabelTexts


class MultiLabelKShot:
    """Draws a support with about ``n_shot`` texts of each label, where one text may count for several labels.

    Source: the mini-including algorithm of Hou et al., AAAI 2021, section 4 (arXiv:2010.05256): texts are added label
    by label until each label has ``n_shot``, and those without which each still has enough are taken out again. Where
    we differ: rare labels go first, as their texts fill the frequent ones; ``n_shot`` texts without any label are drawn
    too, as a support of nothing but labelled texts would say that there are no others; and a label with fewer texts
    gives all that it has (``short`` names them).

    A text that repeats one of the query but for case, digits and white space is never support, and the other way round.

    Args:
        pool: the texts that the support is drawn from.
        n_shot: positives of each label; ``None`` takes every text.
        seed: decides the draws.
        test: the texts to score on; by default those of ``pool`` that were not drawn.

    Raises:
        NLPMetaError: if ``n_shot`` is less than 1.
        DataError: if every text of ``pool`` is in ``test`` too.
    """

    def __init__(
        self, pool: MultiLabelTexts, *, n_shot: int | None, seed: int, test: MultiLabelTexts | None = None
    ) -> None:
        if n_shot is not None and n_shot < 1:
            raise NLPMetaError(f"n_shot must be at least 1; got {n_shot}.")
        self.pool, self.n_shot, self.seed = pool, n_shot, seed
        self.test = None if test is None else test.with_labels(pool.label_names)
        self._marks = [fingerprint(text) for text in pool.texts]
        barred = set() if test is None else {fingerprint(text) for text in test.texts}
        self._free = np.asarray([row for row, mark in enumerate(self._marks) if mark not in barred], dtype=np.int64)
        if not len(self._free):
            raise DataError("Every text is in the test data too; nothing is left to learn from.")
        counts = pool.matrix()[self._free].sum(0)
        names = zip(pool.label_names, counts.tolist(), strict=True)
        self.short = {name: count for name, count in names if n_shot is not None and count < n_shot}

    def draw(self, index: int) -> MultiLabelDraw:
        """Draw ``index``; both parts in the order of the data.

        Raises:
            DataError: if nothing is left to score on.
        """
        rows = self._support(generator(self.seed, index))
        support = self.pool.select(rows.tolist())
        if self.test is not None:
            return MultiLabelDraw(support, self.test)
        seen = {self._marks[row] for row in rows.tolist()}
        rest = [row for row, mark in enumerate(self._marks) if mark not in seen]
        if not rest:
            raise DataError("Every text is in the support set; nothing is left to score on.")
        return MultiLabelDraw(support, self.pool.select(rest))

    def support(self, index: int) -> MultiLabelTexts:
        """The support of draw ``index``, whatever is left to score on."""
        return self.pool.select(self._support(generator(self.seed, index)).tolist())

    def _support(self, rng: np.random.Generator) -> Integers:
        if self.n_shot is None:
            return self._free
        marks = self.pool.matrix()[self._free]
        chosen, wanted = np.zeros(len(marks), dtype=bool), np.minimum(self.n_shot, marks.sum(0))
        for label in np.argsort(marks.sum(0), kind="stable").tolist():
            missing = int(wanted[label] - marks[chosen, label].sum())
            others = np.flatnonzero(marks[:, label] & ~chosen)
            chosen[draw(rng, others, max(missing, 0))] = True
        have = marks[chosen].sum(0)
        for row in rng.permutation(np.flatnonzero(chosen)).tolist():
            if (have - marks[row] >= wanted)[marks[row]].all():
                chosen[row], have = False, have - marks[row]
        chosen[draw(rng, np.flatnonzero(~marks.any(1)), self.n_shot)] = True
        rows: Integers = self._free[chosen]
        return rows


@dataclass(frozen=True, kw_only=True)
class MultiLabelTasks:
    """Draws of one shape, all with the same labels. ``notes`` is for the person who asked."""

    draws: tuple[MultiLabelDraw, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        pool: MultiLabelTexts,
        test: MultiLabelTexts | None,
        *,
        n_shot: int,
        n_draws: int,
        max_query: int | None,
        seed: int,
    ) -> "MultiLabelTasks":
        """Supports of ``MultiLabelKShot``, scored on at most ``max_query`` texts of ``test`` or of the rest.

        Without shots there is one draw, whose support has the names of the labels and no text.

        Raises:
            DataError: if nothing is left to learn from or to score on.
        """
        unknown = [name for name in (test.label_names if test is not None else ()) if name not in pool.label_names]
        notes = [f"Labels without examples are not scored: {visible(', '.join(unknown))}."] if unknown else []
        if not n_shot:
            query = pool if test is None else test.with_labels(pool.label_names)
            names = replace(pool, texts=(), marks=(), langs=None)
            return cls(draws=(MultiLabelDraw(names, _at_most(query, max_query, seed, 0)),), notes=tuple(notes))
        sampler = MultiLabelKShot(pool, n_shot=n_shot, seed=seed, test=test)
        if sampler.short:
            notes.append(f"Labels with fewer than {n_shot} texts give all: {visible(', '.join(sampler.short))}.")
        draws = [sampler.draw(index) for index in range(n_draws)]
        each = [index if test is None else 0 for index in range(n_draws)]  # of test texts the same for every draw
        queries = [_at_most(draw.query, max_query, seed, index) for draw, index in zip(draws, each, strict=True)]
        found = (MultiLabelDraw(draw.support, query) for draw, query in zip(draws, queries, strict=True))
        return cls(draws=tuple(found), notes=tuple(notes))

    @property
    def n_way(self) -> int:
        """The number of labels."""
        return len(self.draws[0].support.label_names)

    @property
    def n_episodes(self) -> int:
        """The number of draws."""
        return len(self.draws)

    def texts(self) -> list[str]:
        """All distinct texts, of the supports first."""
        parts = [draw.support for draw in self.draws] + [draw.query for draw in self.draws]
        return list(dict.fromkeys(text for part in parts for text in part.texts))


def _at_most(query: MultiLabelTexts, most: int | None, seed: int, index: int) -> MultiLabelTexts:
    """At most so many of the texts, picked as ``KShotSampler`` picks them, in their order."""
    if most is None or len(query) <= most:
        return query
    return query.select(np.sort(generator(seed, index, stream=1).choice(len(query), most, replace=False)).tolist())


def multilabel_folds(n_texts: int, n_folds: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Rows to learn from and rows to hold out, for each fold; none where a fold would have fewer than two texts."""
    from sklearn.model_selection import KFold

    if n_texts < 2 * n_folds:
        return []
    parts = KFold(n_folds, shuffle=True, random_state=seed).split(np.zeros(n_texts))
    return [(rest.tolist(), out.tolist()) for rest, out in parts]
