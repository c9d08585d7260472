"""All classes at once, K support texts each, scored on the rest: what a user's own data looks like."""

from typing import Literal

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import DataError, NLPMetaError, NotEnoughExamplesError
from nlpmeta.sampling.base import generator
from nlpmeta.sampling.index import Index, draw
from nlpmeta.sampling.leaks import Known
from nlpmeta.sampling.sentences import Integers, sentences_of

Rare = Literal["error", "drop", "keep"]


class KShotSampler:
    """Draws ``n_shot`` support texts of every class; the query set is ``test``, or all texts that were not drawn.

    No query text agrees with a support text after normalisation, or is its translation (the same id): with ``test``
    such texts are left out of the support, without it they are left out of the query. The ids of ``test`` may be
    numbered on their own, so they count only across languages. Query rows whose class has no support are left out and
    counted in ``left_out`` (label name to rows).

    Args:
        pool: the texts that the support is drawn from.
        n_shot: support texts of each class; ``None`` takes all of them.
        seed: decides the draws.
        test: the texts to score on, if they are not the rest of ``pool``.
        rare: what becomes of classes with fewer than ``n_shot`` distinct texts: an error, dropped, or kept as they are.
        max_query: at most this many query texts, the same share for every draw.

    Raises:
        NLPMetaError: if a size is less than 1.
        NotEnoughExamplesError: if ``rare`` is ``"error"`` and a class has too few texts.
        DataError: if fewer than two classes remain, or no query text does.
    """

    def __init__(
        self,
        pool: LabeledTexts,
        *,
        n_shot: int | None,
        seed: int,
        test: LabeledTexts | None = None,
        rare: Rare = "error",
        max_query: int | None = None,
    ) -> None:
        for size, what in ((n_shot, "n_shot"), (max_query, "max_query")):
            if size is not None and size < 1:
                raise NLPMetaError(f"{what} must be at least 1; got {size}.")
        self.n_shot, self.seed, self.max_query, self._pool = n_shot, seed, max_query, pool
        self._sentences = sentences_of(pool)
        self._free = self._unknown_to(test)
        self._index = Index(pool, sentences=self._sentences, rows=self._free)
        self._texts = Index(pool, sentences=sentences_of(pool, by_id=False), rows=self._free)
        found = (self._texts if n_shot is None else self._index).by_class
        counts = {
            label: len(found[label]) * bool(len(self._texts.by_class[label])) for label in sorted(set(pool.labels))
        }
        self._labels = _classes_with_enough(pool, counts, n_shot or 1, rare)
        self.label_names = tuple(pool.label_names[label] for label in self._labels)
        self.test, self.left_out = _scorable(test, self.label_names)

    def episode(self, index: int) -> Episode:
        """Draw ``index``: support grouped by class, query in the order of the data."""
        rng = generator(self.seed, index)
        chosen = self._support_rows(rng)
        support = self._pool.select(chosen.tolist()).with_classes(self.label_names)
        query = self._query(chosen)
        if self.max_query is not None and len(query) > self.max_query:
            picked = generator(self.seed, index, stream=1).choice(len(query), self.max_query, replace=False)
            query = query.select(sorted(int(row) for row in picked))
        return Episode(support, query)

    def has_query(self) -> bool:
        """Whether anything is left to score on once the support of draw 0 is taken."""
        try:
            self.episode(0)
        except DataError:
            return False
        return True

    def everything(self) -> LabeledTexts:
        """All distinct texts of the classes that are kept, translations included."""
        return self._pool.select(self._all_rows().tolist()).with_classes(self.label_names)

    def _unknown_to(self, test: LabeledTexts | None) -> Integers:
        """The rows whose sentence is not in ``test``, neither as the same text nor as a translation."""
        if test is None:
            return np.arange(len(self._pool))
        of_row = self._sentences.of_row
        barred = of_row[np.asarray(Known(test).has_rows(self._pool))]
        return np.flatnonzero(~np.isin(of_row, barred))

    def _all_rows(self) -> Integers:
        return self._texts.first_rows(np.concatenate([self._texts.by_class[label] for label in self._labels]))

    def _support_rows(self, rng: np.random.Generator) -> Integers:
        size = self.n_shot
        if size is None:
            return self._all_rows()
        drawn = [draw(rng, self._index.by_class[label], size) for label in self._labels]
        return self._index.rows(np.concatenate(drawn), rng)

    def _query(self, support_rows: Integers) -> LabeledTexts:
        if self.test is not None:
            return self.test
        of_row = self._sentences.of_row
        rest = np.flatnonzero(~np.isin(of_row, of_row[support_rows]))
        if not len(rest):
            raise DataError("Every text is in the support set; nothing is left to score on.")
        return self._pool.select(rest.tolist()).with_classes(self.label_names)


def keep_classes(pool: LabeledTexts, n_way: int, *, seed: int) -> LabeledTexts:
    """``n_way`` classes of the pool, drawn with the seed.

    Raises:
        DataError: if the pool has fewer.
    """
    if n_way > pool.n_way:
        raise DataError(f"{n_way} classes were asked for but the data has {pool.n_way}: {', '.join(pool.label_names)}.")
    drawn = generator(seed, 0, stream=2).choice(pool.n_way, n_way, replace=False)
    return pool.with_classes([pool.label_names[label] for label in sorted(int(d) for d in drawn)])


class FoldSampler:
    """Stratified folds of one small support set: fold ``i`` is the query, the others are the support.

    For data that is all support, where the only honest score is cross-validation. Rows of one sentence (the same text
    after normalisation, or the same id) are in one fold. A class with fewer distinct texts than there are folds is in
    the query of as many; the only text of a class is always support (``never_scored`` names such classes).

    Raises:
        DataError: if no class has as many distinct texts as there are folds, or some class none of its own.
    """

    def __init__(self, pool: LabeledTexts, *, n_folds: int, seed: int) -> None:
        index = Index(pool)
        sizes = [len(found) for found in index.by_class]
        if n_folds < 2 or max(sizes) < n_folds or min(sizes) < 1:
            raise DataError(
                f"{n_folds} folds (at least 2) need a class with as many distinct texts, and each class one or more. "
                f"The classes have {min(sizes)} to {max(sizes)}."
            )
        self.n_folds, self._pool = n_folds, pool
        self.never_scored = tuple(name for name, size in zip(pool.label_names, sizes, strict=True) if size == 1)
        rng, turn = generator(seed, 0), 0
        fold_of = np.full(len(index.sentences.labels), -1, dtype=np.int64)
        for found in index.by_class:
            small = len(found) < n_folds
            if len(found) > 1:
                fold_of[rng.permutation(found)] = (np.arange(len(found)) + turn * small) % n_folds
                turn += len(found) * small  # small classes go on where the one before ended, so that folds are even
        self._fold = fold_of[index.sentences.of_row]

    def episode(self, index: int) -> Episode:
        """Fold ``index % n_folds`` held out."""
        held_out = self._fold == index % self.n_folds
        support, query = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        return Episode(self._pool.select(support.tolist()), self._pool.select(query.tolist()))


def _classes_with_enough(pool: LabeledTexts, counts: dict[int, int], n_shot: int, rare: Rare) -> list[int]:
    short = {pool.label_names[label]: count for label, count in counts.items() if count < n_shot}
    if short and rare == "error":
        advice = (
            "Add examples, ask for fewer shots, or pass --rare drop (leave out) or --rare keep (use what is there)."
        )
        raise NotEnoughExamplesError(short, n_shot, advice=advice)
    kept = [label for label, count in counts.items() if count >= (1 if rare == "keep" else n_shot)]
    if len(kept) < 2:
        names = ", ".join(pool.label_names[label] for label in kept) or "none"
        raise DataError(
            f"A classifier needs at least two classes; {len(kept)} remain{'s' * (len(kept) == 1)} ({names})."
        )
    return kept


def _scorable(test: LabeledTexts | None, label_names: tuple[str, ...]) -> tuple[LabeledTexts | None, dict[str, int]]:
    """The test rows whose class has a support, and a count of the others by label name."""
    if test is None:
        return None, {}
    left_out = {name: count for name, count in test.counts().items() if count and name not in label_names}
    return test.with_classes(label_names), left_out
