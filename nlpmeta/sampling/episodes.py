"""N-way K-shot episodes, the standard sampler of few-shot learning."""

from collections.abc import Sequence

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.sampling.base import Range, generator
from nlpmeta.sampling.index import Index
from nlpmeta.sampling.shape import Shape


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
