"""Tasks whose support comes one text after another, in any order."""

from dataclasses import replace

from nlpmeta.data import Episode
from nlpmeta.sampling.base import Sampler, generator, next_stream


class StreamSampler:
    """The episodes of another sampler with their support in random order, as it would come in over time."""

    def __init__(self, sampler: Sampler, *, seed: int) -> None:
        self._sampler, self._seed, self.stream = sampler, seed, next_stream(sampler)

    def episode(self, index: int) -> Episode:
        """Episode ``index``: the texts of its support are presented in their order."""
        episode = self._sampler.episode(index)
        order = generator(self._seed, index, stream=self.stream).permutation(len(episode.support))
        return replace(episode, support=episode.support.select([int(row) for row in order]))
