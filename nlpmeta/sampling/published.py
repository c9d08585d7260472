"""Samplers that published protocols need: the draws of MTEB, one sampler after another, texts out of scope added."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.sampling.base import Sampler, generator, next_stream
from nlpmeta.sampling.leaks import fingerprints


class ShuffledDraws:
    """The support sets of the Massive Text Embedding Benchmark: the same texts, given the same table and seed.

    Before each draw the order of the training rows is shuffled once more, always by the same permutation, and the first
    ``n_shot`` rows of each class are taken; a class with fewer gives all it has. The query set is all of ``test``.

    Source: Muennighoff et al., EACL 2023 (arXiv:2210.07316), the classification task of the package ``mteb`` 1 and 2.
    Where we differ: a row whose text is also in ``test`` is passed over.

    Raises:
        DataError: if no training row is left, or no class of them is in ``test``.
    """

    def __init__(self, pool: LabeledTexts, test: LabeledTexts, *, n_shot: int, seed: int) -> None:
        barred = set(fingerprints(test.texts))
        self._pool, self.n_shot = pool, n_shot
        self._barred = np.array([mark in barred for mark in fingerprints(pool.texts)])
        kept = pool.select(np.flatnonzero(~self._barred).tolist()).without_empty_classes()
        self.label_names = kept.label_names
        self._test = test.with_classes(self.label_names)
        self._permutation = np.random.RandomState(seed).permutation(len(pool))  # noqa: NPY002  # the one that MTEB uses

    def episode(self, index: int) -> Episode:
        """Draw ``index``: the support in the order of the draw, the query in the order of the data."""
        order = np.arange(len(self._pool))
        for _ in range(index + 1):
            order = order[self._permutation]
        taken: Counter[int] = Counter()
        rows = []
        for row in order[~self._barred[order]].tolist():
            label = self._pool.labels[row]
            if taken[label] < self.n_shot:
                taken[label] += 1
                rows.append(row)
        return Episode(self._pool.select(rows).with_classes(self.label_names), self._test)


class InTurn:
    """``n_each`` episodes of each sampler, one sampler after the other.

    Raises:
        NLPMetaError: if there is no sampler or ``n_each`` is not positive.
    """

    def __init__(self, samplers: Sequence[Sampler], n_each: int) -> None:
        if not samplers or n_each < 1:
            raise NLPMetaError(f"At least one sampler and one episode are needed; got {len(samplers)} and {n_each}.")
        self.samplers, self.n_each = tuple(samplers), n_each

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of all; each sampler gets numbers that no other gets."""
        return self.samplers[index // self.n_each % len(self.samplers)].episode(index)


class WithOutOfScope:
    """The episodes of a sampler, each with the same texts out of scope added."""

    def __init__(self, sampler: Sampler, texts: Sequence[str]) -> None:
        self._sampler, self._texts = sampler, tuple(texts)

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the wrapped sampler, with texts out of scope."""
        plain = self._sampler.episode(index)
        return Episode(plain.support, plain.query, self._texts)


class StreamSampler:
    """The episodes of another sampler with their support in random order, as it would come in over time."""

    def __init__(self, sampler: Sampler, *, seed: int) -> None:
        self._sampler, self._seed, self.stream = sampler, seed, next_stream(sampler)

    def episode(self, index: int) -> Episode:
        """Episode ``index``: the texts of its support are presented in their order."""
        episode = self._sampler.episode(index)
        order = generator(self._seed, index, stream=self.stream).permutation(len(episode.support))
        return replace(episode, support=episode.support.select([int(row) for row in order]))
