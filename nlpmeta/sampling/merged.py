"""More tasks from the same data: classes of an episode put together."""

from dataclasses import replace

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.sampling.base import Sampler, generator, next_stream

_FEWEST = 4  # classes that can be put together in pairs


class MergedClassesSampler:
    """A share of the episodes have their classes put together two by two, so that a class is one thing or another.

    Source: the idea of making further tasks from the labels that there are is that of Yao, Zhang and Finn,
    Meta-Learning with Fewer Tasks through Task Interpolation, ICLR 2022 (arXiv:2106.02695). Where we differ: labels are
    put together, texts are not mixed. Episodes of fewer than four classes stay as they are; an odd class stays alone.

    Args:
        sampler: where tasks come from.
        share: of the episodes, 0 to 1.
        seed: decides which, and which classes go together.

    Raises:
        NLPMetaError: if the share is not in 0..1.
    """

    def __init__(self, sampler: Sampler, *, share: float, seed: int) -> None:
        if not 0 <= share <= 1:
            raise NLPMetaError(f"The share of episodes with merged classes must lie in 0..1; got {share}.")
        self.sampler, self.share, self.seed, self.stream = sampler, share, seed, next_stream(sampler)

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the sampler, with its classes or with pairs of them."""
        episode, rng = self.sampler.episode(index), generator(self.seed, index, stream=self.stream)
        if rng.random() >= self.share or episode.n_way < _FEWEST:
            return episode
        pair_of = np.empty(episode.n_way, dtype=np.int64)
        pair_of[rng.permutation(episode.n_way)] = np.arange(episode.n_way) // 2
        names: list[list[str]] = [[] for _ in range(int(pair_of.max()) + 1)]
        for label, pair in enumerate(pair_of):
            names[pair].append(episode.support.label_names[label])
        merged = tuple(" or ".join(each) for each in names)
        support, query = (_relabelled(side, pair_of, merged) for side in (episode.support, episode.query))
        return Episode(support, query, episode.out_of_scope)


def _relabelled(side: LabeledTexts, pair_of: np.ndarray, names: tuple[str, ...]) -> LabeledTexts:
    return replace(side, labels=tuple(int(pair_of[label]) for label in side.labels), label_names=names)
