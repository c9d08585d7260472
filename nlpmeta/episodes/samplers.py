"""Episodes drawn from pools: N ways and K shots, across languages, of one user, or of successive windows of time."""

from collections.abc import Iterator, Sequence
from itertools import product

from nlpmeta.data import Episode, LabeledTexts, languages
from nlpmeta.episodes import Range, Shape, generator, sentences_of
from nlpmeta.episodes.index import Index, TwoSided
from nlpmeta.episodes.pools import rows_by, split_by, time_windows
from nlpmeta.errors import DataError, NLPMetaError


class EpisodeSampler:
    """Samples a pool uniformly, then ``n_way`` of its classes, then disjoint support and query texts of each.

    Texts that agree after normalisation count as one, and so do rows with the same id (the same sentence in several
    languages): no episode has one twice. Sizes may be ranges: each episode then draws its own.

    Source: the episodic protocol of Vinyals et al., NeurIPS 2016 (arXiv:1606.04080), section 4.

    Raises:
        NLPMetaError: if there is no pool, a pool has fewer classes than ``n_way``, or ``n_query`` is less than 1.
        NotEnoughExamplesError: if fewer than ``n_way`` classes of a pool have ``n_shot + n_query`` distinct texts.
    """

    def __init__(
        self,
        pools: Sequence[LabeledTexts],
        *,
        n_way: int | Range,
        n_shot: int | Range,
        n_query: int,
        seed: int,
    ) -> None:
        if not pools:
            raise NLPMetaError("An episode sampler needs at least one pool of labelled texts.")
        self.seed, self.shape = seed, Shape.of(n_way, n_shot, n_query)
        self.n_way, self.n_shot, self.n_query = self.shape.n_way, self.shape.n_shot, n_query
        self._pools = [Index(pool) for pool in pools]
        for pool in self._pools:
            self.shape.require(pool.counts(), n_way=self.n_way.high, where="a pool")
        self._labels = [pool.rich(self.shape.need) for pool in self._pools]

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by class."""
        rng = generator(self.seed, index)
        number = int(rng.integers(len(self._pools)))
        n_way, n_shot = self.n_way.draw(rng), self.n_shot.draw(rng)
        labels = rng.choice(self._labels[number], size=n_way, replace=False)
        return self._pools[number].episode(rng, labels, n_shot, self.n_query)


class CrossLingualSampler:
    """Samples a pair of languages uniformly, then classes that both have, support in the first, query in the second.

    Classes are matched by label name. Rows with the same id are one sentence: its translation never stands on the
    other side. ``pairs`` are the pairs (support, query) that are drawn: those with at least ``n_way`` (its lower end,
    for a range) classes that can be filled whichever texts are drawn. A range of ways ends at what the pair has.

    Args:
        pool: texts of several languages, as from ``LabeledTexts.concatenate``.
        n_way: classes of an episode.
        n_shot: support texts of each class.
        n_query: query texts of each class.
        seed: decides the draws.
        support_langs: languages to learn in, in any spelling; all by default.
        query_langs: languages to be scored in, likewise.

    Raises:
        UnknownLanguageError: if the pool does not have a language.
        DataError: if the pool does not say its languages.
        NLPMetaError: if no pair has enough classes, or a language that was requested is in no such pair.
    """

    def __init__(
        self,
        pool: LabeledTexts,
        *,
        n_way: int | Range,
        n_shot: int | Range,
        n_query: int,
        seed: int,
        support_langs: Sequence[str] | None = None,
        query_langs: Sequence[str] | None = None,
    ) -> None:
        self.seed, self.shape = seed, Shape.of(n_way, n_shot, n_query)
        rows, sentences = rows_by(pool, "langs"), sentences_of(pool)
        parts = {lang: Index(pool, sentences=sentences, rows=found) for lang, found in rows.items()}
        asked_support, asked_query = (_asked(asked, tuple(parts)) for asked in (support_langs, query_langs))
        self._sides: dict[tuple[str, str], TwoSided] = {}
        for pair in product(asked_support or parts, asked_query or parts):
            if pair[0] != pair[1]:
                sides = TwoSided(parts[pair[0]], parts[pair[1]], self.shape)
                if len(sides.labels) >= self.shape.n_way.low:
                    self._sides[pair] = sides
        self.pairs = tuple(self._sides)
        self._check(asked_support, asked_query, tuple(parts))

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by class."""
        rng = generator(self.seed, index)
        sides = self._sides[self.pairs[int(rng.integers(len(self.pairs)))]]
        n_way = self.shape.n_way.draw(rng, most=len(sides.labels))
        n_shot = self.shape.n_shot.draw(rng)
        labels = rng.choice(sides.labels, size=n_way, replace=False)
        return sides.episode(rng, labels, n_shot, self.shape.n_query)

    def _check(self, support: tuple[str, ...], query: tuple[str, ...], found: tuple[str, ...]) -> None:
        used = [{pair[side] for pair in self.pairs} for side in (0, 1)]
        idle = [lang for asked, seen in zip((support, query), used, strict=True) for lang in asked if lang not in seen]
        if idle or not self.pairs:
            which = (
                f"{', '.join(dict.fromkeys(idle))} with another language" if idle else f"any two of {', '.join(found)}"
            )
            raise NLPMetaError(
                f"Episodes of {self.shape.n_way.low} ways, {self.shape.n_shot.high} shots and {self.shape.n_query} "
                f"query texts cannot be drawn from {which}: too few classes have enough distinct sentences in both. "
                "Lower n_way, n_shot or n_query, or ask for other languages."
            )


def _asked(asked: Sequence[str] | None, available: tuple[str, ...]) -> tuple[str, ...]:
    if asked is None:
        return ()
    if not asked:
        raise NLPMetaError("A list of languages must name at least one; leave it out to mean all.")
    return tuple(dict.fromkeys(languages.match(lang, available, where="The pool") for lang in asked))


class UserSampler:
    """Samples a user uniformly, then support and query among the texts that this user rated.

    The classes are the user's own: those of which they have ``n_shot + n_query`` distinct texts. ``users`` are those
    that are drawn; the others have too few ratings or classes.

    Args:
        pool: ratings, a row each, with the column ``users``; the same text may be there once for each user.
        n_shot: support texts of each class.
        n_query: query texts of each class.
        seed: decides the draws.
        n_way: classes of an episode; a range ends at what the user has; by default all that the user has.
        min_ratings: users with fewer distinct rated texts are skipped.

    Raises:
        DataError: if the pool does not say who rated, or no user is left.
    """

    def __init__(
        self,
        pool: LabeledTexts,
        *,
        n_shot: int | Range,
        n_query: int,
        seed: int,
        n_way: int | Range | None = None,
        min_ratings: int = 1,
    ) -> None:
        self.seed, self.all_classes = seed, n_way is None
        self.shape = Shape.of(Range(2, max(2, pool.n_way)) if n_way is None else n_way, n_shot, n_query)
        parts = {user: Index(part) for user, part in split_by(pool, "users").items()}
        self._parts = {
            user: (part, rich)
            for user, part in parts.items()
            if len(rich := part.rich(self.shape.need)) >= self.shape.n_way.low and part.present.sum() >= min_ratings
        }
        self.users = tuple(self._parts)
        if not self.users:
            raise DataError(
                f"None of {len(parts)} users has {min_ratings} distinct rated texts or more and {self.shape.n_way.low} "
                f"classes of {self.shape.need}. Lower min_ratings, n_way, n_shot or n_query."
            )

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by class."""
        rng = generator(self.seed, index)
        part, labels = self._parts[self.users[int(rng.integers(len(self.users)))]]
        n_way = len(labels) if self.all_classes else self.shape.n_way.draw(rng, most=len(labels))
        n_shot = self.shape.n_shot.draw(rng)
        return part.episode(rng, rng.choice(labels, size=n_way, replace=False), n_shot, self.shape.n_query)


class SpamSampler:
    """Samples a binary task uniformly: a channel, or two successive windows of time of one.

    With windows, the support comes from one and the query from the next, as a filter meets messages that are newer
    than what it was taught. ``tasks`` are the (channel, window) that are drawn; windows in which a class is too rare
    are skipped.

    Args:
        pools: texts of two classes each. A pool is a channel, or several if ``by_domain``.
        n_shot: support texts of each class.
        n_query: query texts of each class.
        seed: decides the draws.
        n_windows: windows of as many texts each that a channel is cut into; ``None`` leaves time aside.
        by_domain: whether each value of the column ``domains`` is a channel of its own, where a pool has the column.

    Raises:
        DataError: if a pool has not exactly two classes, times are missing, or no task can be filled.
    """

    def __init__(
        self,
        pools: Sequence[LabeledTexts],
        *,
        n_shot: int | Range,
        n_query: int,
        seed: int,
        n_windows: int | None = None,
        by_domain: bool = True,
    ) -> None:
        self.seed, self.shape = seed, Shape.of(2, n_shot, n_query)
        if n_windows is not None and n_windows < 2:
            raise NLPMetaError(
                f"Support and query come from successive windows, so there must be two; got {n_windows}."
            )
        self._sides: list[TwoSided] = []
        tasks: list[tuple[str, int]] = []
        for channel, pool in _channels(pools, by_domain):
            for window, sides in enumerate(_tasks(pool, self.shape, n_windows)):
                if len(sides.labels) == 2:
                    self._sides.append(sides)
                    tasks.append((channel, window))
        self.tasks = tuple(tasks)
        if not tasks:
            raise DataError(
                f"No channel{'' if n_windows is None else ' and window of time'} has {self.shape.need} distinct texts "
                "of both classes (rows with the same id count as one). Lower n_shot or n_query, take fewer windows, or "
                "pass by_domain=False."
            )

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by class."""
        rng = generator(self.seed, index)
        sides = self._sides[int(rng.integers(len(self._sides)))]
        return sides.episode(rng, rng.permutation(sides.labels), self.shape.n_shot.draw(rng), self.shape.n_query)


def _channels(pools: Sequence[LabeledTexts], by_domain: bool) -> Iterator[tuple[str, LabeledTexts]]:
    for number, pool in enumerate(pools):
        found = [name for name, count in pool.counts().items() if count]
        if len(found) != 2:
            raise DataError(f"Spam tasks have two classes but pool {number} has {len(found)}: {', '.join(found)}.")
        if by_domain and pool.domains is not None:
            yield from split_by(pool, "domains").items()
        else:
            yield str(number), pool


def _tasks(pool: LabeledTexts, shape: Shape, n_windows: int | None) -> Iterator[TwoSided]:
    sentences = sentences_of(pool)
    if n_windows is None:
        whole = Index(pool, sentences=sentences)
        yield TwoSided(whole, whole, shape)
        return
    if len(pool) < n_windows:
        return
    windows = [Index(pool, sentences=sentences, rows=rows) for rows in time_windows(pool, n_windows=n_windows)]
    for support, query in zip(windows, windows[1:], strict=False):
        yield TwoSided(support, query, shape)
