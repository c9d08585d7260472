"""Support sets in which some classes have fewer texts than others."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from nlpmeta.data import Episode
from nlpmeta.errors import NLPMetaError
from nlpmeta.sampling.base import Range, Sampler, generator, next_stream
from nlpmeta.sampling.index import draw
from nlpmeta.sampling.sentences import Integers


@dataclass(frozen=True)
class LongTail:
    """Zipf's law: the class of rank ``r`` keeps ``r ** -exponent`` times as many texts as the first, and at least one.

    The ranks are drawn anew for each episode; no class keeps more than it has.
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.exponent) and self.exponent > 0):
            raise NLPMetaError(f"The exponent of a long tail must be positive and finite; got {self.exponent}.")

    def draw(self, rng: np.random.Generator, counts: Integers) -> Integers:
        """The texts to keep of each class, ``(n_way,)``, of the ``counts`` that there are."""
        ranks = rng.permutation(len(counts)) + 1
        wanted = np.rint(counts.max() * ranks ** -float(self.exponent)).astype(np.int64)
        shots: Integers = np.minimum(np.maximum(wanted, 1), counts)
        return shots


@dataclass(frozen=True)
class MetaDatasetShots:
    """Shares of a limited support set, in proportion to the texts of each class times a random factor in [1/2, 2].

    With ``beta`` uniform in (0, 1] and ``a`` uniform in [log 1/2, log 2] for each class, the support has
    ``|S| = min(most, sum of ceil(beta * min(100, n)))`` texts, of which a class gets
    ``min(floor(share * (|S| - n_way)) + 1, n)``, where ``share`` is ``exp(a) * n``, normalised.

    Source: Triantafillou et al., ICLR 2020 (arXiv:1903.03096), section 3 (the support size and shots of an episode).
    We differ in that ``n`` is what the wrapped sampler gives as support, so that it is natural only if that is.
    """

    most: int = 500

    def __post_init__(self) -> None:
        if self.most < 1:
            raise NLPMetaError(f"A support set must have room for at least 1 text; got {self.most}.")

    def draw(self, rng: np.random.Generator, counts: Integers) -> Integers:
        """The texts to keep of each class, ``(n_way,)``, of the ``counts`` that there are."""
        beta = 1 - rng.random()
        total = min(self.most, int(np.ceil(beta * np.minimum(100, counts)).sum()))
        factors = np.exp(rng.uniform(math.log(0.5), math.log(2), len(counts))) * counts
        spare = np.floor(factors / factors.sum() * max(total - len(counts), 0)).astype(np.int64)
        shots: Integers = np.minimum(spare + 1, counts)
        return shots


Shots: TypeAlias = Range | LongTail | MetaDatasetShots


class ImbalancedSampler:
    """Keeps, of each class of an episode's support, as many texts as ``shots`` says; the query stays as it is.

    Wraps any sampler, whose shots are then the most that a class can have.

    Args:
        sampler: gives the episodes.
        shots: a range, of which each class draws its own number, or a law.
        seed: decides the draws.

    Raises:
        NLPMetaError: if a class of an episode has fewer support texts than the upper end of a range.
    """

    def __init__(self, sampler: Sampler, *, shots: Shots, seed: int) -> None:
        self.sampler, self.shots, self.seed, self.stream = sampler, shots, seed, next_stream(sampler)
        self.episode(0)

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the wrapped sampler, with a part of its support."""
        whole = self.sampler.episode(index)
        labels = np.asarray(whole.support.labels)
        counts = np.bincount(labels, minlength=whole.n_way)
        rng = generator(self.seed, index, stream=self.stream)
        keep = self._draw(rng, counts)
        rows = np.concatenate([draw(rng, np.flatnonzero(labels == label), size) for label, size in enumerate(keep)])
        return Episode(whole.support.select(np.sort(rows).tolist()), whole.query, whole.out_of_scope)

    def _draw(self, rng: np.random.Generator, counts: Integers) -> Integers:
        if not isinstance(self.shots, Range):
            return self.shots.draw(rng, counts)
        if counts.min() < self.shots.high:
            raise NLPMetaError(
                f"Up to {self.shots.high} shots of each class were asked for but the wrapped sampler gives "
                f"{counts.min()} of one; let it draw n_shot={self.shots.high}."
            )
        return rng.integers(self.shots.low, self.shots.high + 1, size=len(counts))
