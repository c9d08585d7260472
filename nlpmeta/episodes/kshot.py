"""All classes at once, K support texts each, scored on the rest: what a user's own data looks like."""

from typing import Literal

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes import Integers, Known, deal_folds, generator, sentences_of
from nlpmeta.episodes.index import Index, draw
from nlpmeta.errors import DataError, NLPMetaError, NotEnoughExamplesError

Rare = Literal["error", "drop", "keep"]


class KShotSampler:
    """Draws ``n_shot`` support texts of every class; the query set is ``test``, or all texts that were not drawn.

    A draw takes texts that differ in more than case and digits first, and further texts of the class where these are
    too few. No query text agrees with a support text after normalisation, or is its translation (the same id): with
    ``test`` such texts are left out of the support, without it they are left out of the query. The ids of ``test`` may
    be numbered on their own, so they count only across languages. Nothing else is left out: with ``n_shot=None`` every
    row is support. ``in_test`` and ``rare_rows`` are the rows of ``pool`` that are not used because of ``test`` and
    ``rare``, as numbers; ``left_out`` counts the query rows whose class has no support, by label name.

    Args:
        pool: the texts that the support is drawn from.
        n_shot: support texts of each class; ``None`` takes all of them.
        seed: decides the draws.
        test: the texts to score on, if they are not the rest of ``pool``.
        rare: what becomes of classes with fewer than ``n_shot`` different texts: an error, dropped, or kept as is.
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
        self.n_shot, self.seed, self.max_query, self.pool = n_shot, seed, max_query, pool
        self._sentences = sentences_of(pool)
        self._free = self._unknown_to(test)
        self.in_test: list[int] = np.setdiff1d(np.arange(len(pool)), self._free).tolist()
        self._index = Index(pool, sentences=self._sentences, rows=self._free)
        self._rows = _different_texts(pool, self._free)
        counts = {label: len(self._rows.get(label, ())) for label in sorted(set(pool.labels))}
        self._labels = _classes_with_enough(pool, counts, n_shot or 1, rare, n_in_test=len(self.in_test))
        self.rare_rows = [int(row) for row in self._free if pool.labels[row] not in set(self._labels)]
        self.label_names = tuple(pool.label_names[label] for label in self._labels)
        self.given_test = test
        self.test, self.left_out = _scorable(test, self.label_names)

    def episode(self, index: int) -> Episode:
        """Draw ``index``: support grouped by class, query in the order of the data."""
        rng = generator(self.seed, index)
        chosen = self._support_rows(rng)
        support = self.pool.select(chosen.tolist()).with_classes(self.label_names)
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
        """All rows of the classes that are kept, but for those that ``test`` has too."""
        return self.pool.select(self._all_rows().tolist()).with_classes(self.label_names)

    def not_scored(self, index: int) -> list[int]:
        """The rows that are neither support nor query of a draw: those that agree with a support text."""
        support = self._support_rows(generator(self.seed, index))
        of_row = self._sentences.of_row
        same = np.flatnonzero(np.isin(of_row, of_row[support]))
        return [row for row in np.setdiff1d(same, support).tolist() if self.pool.labels[row] in self._labels]

    @property
    def rows_without_support(self) -> list[int]:
        """The rows of the test texts that were given whose class has no support."""
        names = [] if self.given_test is None else self.given_test.names()
        return [row for row, name in enumerate(names) if name not in self.label_names]

    def _unknown_to(self, test: LabeledTexts | None) -> Integers:
        """The rows whose sentence is not in ``test``, neither as the same text nor as a translation."""
        if test is None:
            return np.arange(len(self.pool))
        of_row = self._sentences.of_row
        barred = of_row[np.asarray(Known(test).has_rows(self.pool))]
        return np.flatnonzero(~np.isin(of_row, barred))

    def _all_rows(self) -> Integers:
        labels = np.asarray(self.pool.labels)[self._free]
        return self._free[np.isin(labels, self._labels)]

    def _support_rows(self, rng: np.random.Generator) -> Integers:
        size = self.n_shot
        if size is None:
            return self._all_rows()
        drawn = [draw(rng, self._index.by_class[label], size) for label in self._labels]
        rows = self._index.rows(np.concatenate(drawn), rng)
        parts = np.split(rows, np.cumsum([len(each) for each in drawn])[:-1])
        every = set(self._sentences.of_row[rows].tolist())
        return np.concatenate(
            [self._topped_up(part, label, every, rng) for part, label in zip(parts, self._labels, strict=True)]
        )

    def _topped_up(self, rows: Integers, label: int, in_support: set[int], rng: np.random.Generator) -> Integers:
        """The rows drawn of a class, with further texts of it where it has too few sentences of its own.

        Sentences that this class has not given yet come first, of these such as another class gave: they cannot be
        scored any more. ``in_support`` grows by what is taken.
        """
        missing = min(self.n_shot or 0, len(self._rows[label])) - len(rows)
        if missing <= 0:
            return rows
        texts = {self.pool.texts[row] for row in rows}
        others = rng.permutation([row for row in self._rows[label] if self.pool.texts[row] not in texts])
        own = set(self._sentences.of_row[rows].tolist())
        taken: list[int] = []
        while len(taken) < missing:
            sentences = self._sentences.of_row[others]
            ranks = [2 * (number in own) + (number not in in_support) for number in sentences.tolist()]
            best = int(np.argmin(ranks))
            taken.append(int(others[best]))
            own.add(int(sentences[best]))
            others = np.delete(others, best)
        in_support |= own
        return np.concatenate([rows, np.asarray(taken, dtype=np.int64)])

    def _query(self, support_rows: Integers) -> LabeledTexts:
        if self.test is not None:
            return self.test
        of_row = self._sentences.of_row
        rest = np.flatnonzero(~np.isin(of_row, of_row[support_rows]))
        if not len(rest):
            raise DataError("Every text is in the support set; nothing is left to score on.")
        return self.pool.select(rest.tolist()).with_classes(self.label_names)


class NamesAlone:
    """The one episode without any example: classes are known by their names, and all texts of the data are scored.

    Args:
        pool: where the classes come from, and the texts unless ``test`` is given.
        test: the texts to score on; ``left_out`` counts those of other classes, by label name.

    Raises:
        DataError: if there are fewer than two classes, or no text of one of them.
    """

    def __init__(self, pool: LabeledTexts, *, test: LabeledTexts | None = None) -> None:
        names = pool.without_empty_classes().label_names
        if len(names) < 2:
            raise DataError(f"A classifier needs at least two classes; there is one ({names[0]}).")
        scored, self.left_out = _scorable(test, names)
        self._episode = Episode(pool.with_classes(names).names_alone(), scored or pool.with_classes(names))

    def episode(self, index: int) -> Episode:
        """The same whatever its number."""
        return self._episode


def keep_classes(pool: LabeledTexts, n_way: int, *, seed: int) -> LabeledTexts:
    """``n_way`` classes of the pool, drawn with the seed.

    Raises:
        DataError: if the pool has fewer.
    """
    if n_way > pool.n_way:
        raise DataError(f"{n_way} classes were requested but the data has {pool.n_way}: {', '.join(pool.label_names)}.")
    drawn = generator(seed, 0, stream=2).choice(pool.n_way, n_way, replace=False)
    return pool.with_classes([pool.label_names[label] for label in sorted(int(d) for d in drawn)])


class FoldSampler:
    """Stratified folds of one small support set: fold ``i`` is the query, the others are the support.

    For data that is all support, where the only honest score is cross-validation. Rows of one sentence (the same text
    after normalisation, or the same id) are in one fold. A class with fewer distinct texts than there are folds is in
    the query of as many; the only sentence of a class is always support (``never_scored`` names such classes).

    Raises:
        DataError: if no class has as many distinct texts as there are folds.
    """

    def __init__(self, pool: LabeledTexts, *, n_folds: int, seed: int) -> None:
        index = Index(pool)
        sizes = [len(found) for found in index.by_class]
        if n_folds < 2 or max(sizes) < n_folds:
            raise DataError(
                f"{n_folds} folds (at least 2) need a class with as many distinct texts. "
                f"The classes have {min(sizes)} to {max(sizes)}."
            )
        self.n_folds, self._pool = n_folds, pool
        rng = generator(seed, 0)
        fold_of = deal_folds(
            [found for found in index.by_class if len(found) > 1],
            n_folds,
            n_rows=len(index.sentences.labels),
            order=lambda dealt: dealt[np.argsort(rng.permutation(len(dealt)))],  # a random row gets the first fold
            carry_below=n_folds,
        )
        of_row, labels = index.sentences.of_row, np.asarray(pool.labels)
        for label in range(pool.n_way):
            own = np.unique(of_row[labels == label])
            if len(set(fold_of[own].tolist()) | {-1}) == 2 and -1 not in fold_of[own]:
                fold_of[own[0]] = -1  # all its texts would be held out together
        self._fold = fold_of[of_row]
        scored = set(labels[self._fold >= 0].tolist())
        self.never_scored = tuple(name for label, name in enumerate(pool.label_names) if label not in scored)
        if set(self._fold.tolist()) - {-1} != set(range(n_folds)):
            raise DataError(f"{n_folds} folds are too many: every text of some fold is needed in the support.")

    @classmethod
    def at_most(cls, pool: LabeledTexts, n_folds: int, *, seed: int) -> "FoldSampler | None":
        """As many folds as can be made, up to ``n_folds``; ``None`` where nothing can be held out."""
        for fewer in range(min(n_folds, max(pool.counts().values())), 1, -1):
            try:
                return cls(pool, n_folds=fewer, seed=seed)
            except DataError:
                continue
        return None

    def episode(self, index: int) -> Episode:
        """Fold ``index % n_folds`` held out."""
        return Episode(self._pool.select(self.learned_from(index)), self._pool.select(self.held_out(index)))

    def learned_from(self, index: int) -> list[int]:
        """The rows that are the support where fold ``index % n_folds`` is held out, in order."""
        rows: list[int] = np.flatnonzero(self._fold != index % self.n_folds).tolist()
        return rows

    def held_out(self, index: int) -> list[int]:
        """The rows of fold ``index % n_folds``, in order."""
        rows: list[int] = np.flatnonzero(self._fold == index % self.n_folds).tolist()
        return rows


def _different_texts(pool: LabeledTexts, rows: Integers) -> dict[int, list[int]]:
    """The rows of each class without those that repeat an earlier text of it as it stands."""
    found: dict[int, dict[str, int]] = {}
    for row in rows.tolist():
        found.setdefault(pool.labels[row], {}).setdefault(pool.texts[row], row)
    return {label: list(texts.values()) for label, texts in found.items()}


def _classes_with_enough(
    pool: LabeledTexts, counts: dict[int, int], n_shot: int, rare: Rare, *, n_in_test: int
) -> list[int]:
    short = {pool.label_names[label]: count for label, count in counts.items() if count < n_shot}
    if short and rare == "error":
        advice = (
            "Add examples, ask for fewer shots, or pass --rare drop (leave out) or --rare keep (use what is there)."
        )
        if n_in_test:
            advice = f"{n_in_test} of {len(pool)} texts are in the test data too and were not counted. {advice}"
        raise NotEnoughExamplesError(short, n_shot, advice=advice)
    kept = [label for label, count in counts.items() if count >= (1 if rare == "keep" else n_shot)]
    if len(kept) < 2:
        names = ", ".join(pool.label_names[label] for label in kept) or "none"
        why = f" {n_in_test} of {len(pool)} texts are in the test data too and were not used." if n_in_test else ""
        raise DataError(
            f"A classifier needs at least two classes; {len(kept)} remain{'s' * (len(kept) == 1)} ({names}).{why}"
        )
    return kept


def _scorable(test: LabeledTexts | None, label_names: tuple[str, ...]) -> tuple[LabeledTexts | None, dict[str, int]]:
    """The test rows whose class has a support, and a count of the others by label name."""
    if test is None:
        return None, {}
    left_out = {name: count for name, count in test.counts().items() if count and name not in label_names}
    return test.with_classes(label_names), left_out
