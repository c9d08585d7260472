"""Draw each episode from one of several samplers; balance languages of unequal size."""

import math
from collections.abc import Sequence

import numpy as np

from nlpmeta.data import Episode
from nlpmeta.errors import NLPMetaError
from nlpmeta.sampling.base import Sampler, generator, next_stream

XLM_R_TEMPERATURE = 1 / 0.3


class MixtureSampler:
    """Episode ``i`` is episode ``i`` of one of the samplers, drawn with the given weights (equal by default).

    Raises:
        NLPMetaError: if there is no sampler, or the weights are not one each, finite, not negative, some positive.
    """

    def __init__(self, samplers: Sequence[Sampler], *, weights: Sequence[float] | None = None, seed: int) -> None:
        if not samplers:
            raise NLPMetaError("A mixture needs at least one sampler.")
        given = np.ones(len(samplers)) if weights is None else np.asarray(weights, dtype=np.float64)
        if given.shape != (len(samplers),) or not np.isfinite(given).all() or (given < 0).any() or not given.any():
            raise NLPMetaError(
                f"A mixture of {len(samplers)} samplers needs as many weights, finite, none negative and not all zero; "
                f"got {None if weights is None else list(weights)}."
            )
        self.samplers, self.seed, self.stream = tuple(samplers), seed, next_stream(*samplers)
        self.weights = tuple(float(weight) for weight in given / given.sum())
        self._positive = np.flatnonzero(given)
        self._edges = np.cumsum(given[self._positive] / given.sum())[:-1]

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the sampler that is drawn for it."""
        return self.samplers[self.choice(index)].episode(index)

    def choice(self, index: int) -> int:
        """Which sampler episode ``index`` comes from."""
        drawn = generator(self.seed, index, stream=self.stream).random()
        return int(self._positive[np.searchsorted(self._edges, drawn, side="right")])


def temperature_weights(sizes: Sequence[int], *, temperature: float) -> tuple[float, ...]:
    """Probabilities in proportion to ``size ** (1 / temperature)``: 1 keeps the sizes, infinity makes all equal.

    Source: multilingual BERT and XLM (Conneau and Lample, NeurIPS 2019, arXiv:1901.07291, section 3.1), there as an
    exponent ``alpha = 1 / temperature``; XLM-R (Conneau et al., ACL 2020, arXiv:1911.02116, section 3.1) takes 0.3.

    Raises:
        NLPMetaError: if a size is not positive, there is none, or the temperature is not positive.
    """
    if not sizes or min(sizes) < 1 or not temperature > 0:
        raise NLPMetaError(
            f"Sizes and temperature must be positive; got sizes {list(sizes)}, temperature {temperature}."
        )
    logs = np.asarray([math.log(size) for size in sizes]) / temperature
    weights = np.exp(logs - logs.max())
    return tuple(float(weight) for weight in weights / weights.sum())
