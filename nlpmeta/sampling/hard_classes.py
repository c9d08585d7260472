"""Episodes whose classes are each other's nearest, and so hard to tell apart."""

import re

import numpy as np
from numpy.typing import NDArray

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.sampling.base import Range, generator
from nlpmeta.sampling.index import Index
from nlpmeta.sampling.sentences import Integers
from nlpmeta.sampling.shape import Shape

_WORD = re.compile(r"[^\W_]+")


class HardClassSampler:
    """Samples a class uniformly, then the others of the episode among its nearest classes.

    Near are classes with similar names (the Jaccard index of their words and character trigrams), or, if prototypes
    are given, with prototypes at a small Euclidean distance. Ties are broken at random.

    Args:
        pool: the texts.
        n_way: classes of an episode.
        n_shot: support texts of each class.
        n_query: query texts of each class.
        seed: decides the draws.
        n_nearest: the others are drawn among this many nearest classes; by default they are the ``n_way - 1`` nearest.
        prototypes: ``(n, dim)``, a row for each of ``pool.label_names``, in their order.

    Raises:
        NLPMetaError: if there are fewer classes than ``n_way``, ``n_nearest`` is less than ``n_way - 1``, or
            ``prototypes`` are not one finite row a class.
        NotEnoughExamplesError: if fewer than ``n_way`` classes have ``n_shot + n_query`` distinct texts.
    """

    def __init__(
        self,
        pool: LabeledTexts,
        *,
        n_way: int | Range,
        n_shot: int | Range,
        n_query: int,
        seed: int,
        n_nearest: int | None = None,
        prototypes: NDArray[np.floating] | None = None,
    ) -> None:
        self.seed, self.n_nearest, self.shape = seed, n_nearest, Shape.of(n_way, n_shot, n_query)
        if n_nearest is not None and n_nearest < self.shape.n_way.high - 1:
            raise NLPMetaError(f"{self.shape.n_way.high} ways need n_nearest of at least {self.shape.n_way.high - 1}.")
        self._index = Index(pool)
        self.shape.require(self._index.counts(), n_way=self.shape.n_way.high, where="the pool")
        self._labels = self._index.rich(self.shape.need)
        nearness = name_similarities(pool.label_names) if prototypes is None else _nearness(prototypes, pool)
        self._nearness = nearness[np.ix_(self._labels, self._labels)]

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by class."""
        rng = generator(self.seed, index)
        n_way, n_shot = self.shape.n_way.draw(rng), self.shape.n_shot.draw(rng)
        anchor = int(rng.integers(len(self._labels)))
        near = self._nearest(anchor, rng)[: self.n_nearest if self.n_nearest is not None else n_way - 1]
        others = rng.choice(near, size=n_way - 1, replace=False)
        labels = self._labels[rng.permutation(np.append(others, anchor))]
        return self._index.episode(rng, labels, n_shot, self.shape.n_query)

    def _nearest(self, anchor: int, rng: np.random.Generator) -> Integers:
        """The positions of the other classes, the nearest first."""
        order = np.lexsort((rng.random(len(self._labels)), -self._nearness[anchor]))
        others: Integers = order[order != anchor]
        return others


def name_similarities(names: tuple[str, ...]) -> NDArray[np.float64]:
    """The Jaccard index of the words and character trigrams of each pair of names, ``(n, n)``."""
    pieces = [_pieces(name) for name in names]
    return np.asarray([[len(a & b) / (len(a | b) or 1) for b in pieces] for a in pieces])


def _pieces(name: str) -> set[str]:
    words = _WORD.findall(name.casefold())
    padded = f" {' '.join(words)} "
    return {f"word {word}" for word in words} | {padded[i : i + 3] for i in range(len(padded) - 2)}


def _nearness(prototypes: NDArray[np.floating], pool: LabeledTexts) -> NDArray[np.float64]:
    """Negative squared distances, ``(n, n)``."""
    rows = np.asarray(prototypes, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != pool.n_way or not np.isfinite(rows).all():
        raise NLPMetaError(
            f"Prototypes must be finite numbers of shape ({pool.n_way}, dim), a row for each label name; "
            f"got shape {rows.shape}{'' if np.isfinite(rows).all() else ' with values that are not finite'}."
        )
    squares = (rows**2).sum(1)
    nearness: NDArray[np.float64] = 2 * rows @ rows.T - squares[:, None] - squares
    return nearness
