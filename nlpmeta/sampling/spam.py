"""Wanted or unwanted: binary tasks, one a channel, or one a channel and stretch of time."""

from collections.abc import Iterator, Sequence

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.sampling.base import Range, generator
from nlpmeta.sampling.index import Index, TwoSided
from nlpmeta.sampling.pools import split_by, time_windows
from nlpmeta.sampling.sentences import sentences_of
from nlpmeta.sampling.shape import Shape


class SpamSampler:
    """Samples a binary task uniformly: a channel, or two successive windows of time of one.

    With windows, the support comes from one and the query from the next, as a filter meets messages that are newer
    than what it was taught. ``tasks`` are the (channel, window) that are drawn; windows in which a class is too rare
    are passed over.

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
