"""What an episode says about its classes: examples, names, or both; so that neither is leaned on alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes import Sampler, generator, next_stream
from nlpmeta.errors import NLPMetaError

PlainNames = Callable[[Sequence[str]], tuple[str, ...] | None]
"""The names of classes in plain words, or ``None`` where they say nothing."""


@dataclass(frozen=True)
class ClueShares:
    """Shares of the episodes in which one of the clues is taken away; in the others both are there.

    Raises:
        NLPMetaError: if a share is negative or they sum to more than 1.
    """

    names_only: float = 0.0
    """No example of any class: its name in plain words stands in the place of its support texts."""
    missing: float = 0.0
    """The same for some classes, at least one and not all."""
    withheld: float = 0.0
    """Classes are numbered, so a learner that reads names has none to read."""
    replaced: float = 0.0
    """Classes carry names of other classes, which say nothing about them."""

    def __post_init__(self) -> None:
        each = [float(getattr(self, field.name)) for field in fields(self)]
        if min(each) < 0 or sum(each) > 1 + 1e-9:
            raise NLPMetaError(f"Shares of names and examples must not be negative nor sum to more than 1; got {each}.")

    def draw(self, number: float) -> str | None:
        """Which clue is taken away, for a uniform random number in 0..1."""
        for field in fields(self):
            number -= float(getattr(self, field.name))
            if number < 0:
                return field.name
        return None


class ClueSampler:
    """The episodes of a sampler, of which some have no names that say anything, and some no examples.

    A name that stands for examples is a support text like any other, so every learner can take such an episode. Where
    names say nothing (numbers, letters), no example is taken away.

    Args:
        sampler: where episodes come from.
        shares: how often which clue is taken away.
        plain_names: names as a learner reads them.
        vocabulary: names to replace others by; without enough of them an episode's own names are dealt out anew.
        seed: decides what becomes of which episode.
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        shares: ClueShares,
        plain_names: PlainNames,
        vocabulary: Sequence[str] = (),
        seed: int,
    ) -> None:
        self.sampler, self.shares, self.seed, self.stream = sampler, shares, seed, next_stream(sampler)
        self._plain_names, self._vocabulary = plain_names, tuple(dict.fromkeys(vocabulary))

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the sampler, with all its clues or without some."""
        whole, rng = self.sampler.episode(index), generator(self.seed, index, stream=self.stream)
        taken = self.shares.draw(rng.random())
        if taken == "withheld":
            return _named(whole, tuple(map(str, range(whole.n_way))))
        if taken == "replaced":
            return _named(whole, self._other_names(whole.support.label_names, rng))
        words = self._plain_names(whole.support.label_names) if taken is not None else None
        if words is None:
            return whole
        n_without = whole.n_way if taken == "names_only" else int(rng.integers(1, whole.n_way))
        without = rng.permutation(whole.n_way)[:n_without]
        return replace(whole, support=_with_names_for(whole.support, set(without.tolist()), words))

    def _other_names(self, names: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
        others = [name for name in self._vocabulary if name not in names]
        if len(others) >= len(names):
            return tuple(others[i] for i in rng.choice(len(others), size=len(names), replace=False))
        return tuple(names[i] for i in rng.permutation(len(names)))


def _named(episode: Episode, names: tuple[str, ...]) -> Episode:
    support, query = (replace(side, label_names=names, descriptions=None) for side in (episode.support, episode.query))
    return replace(episode, support=support, query=query)


def _with_names_for(support: LabeledTexts, classes: set[int], words: Sequence[str]) -> LabeledTexts:
    """The support in which the texts of some classes gave way to one text, the name of the class."""
    rows = [row for row, label in enumerate(support.labels) if label not in classes]
    first = [support.labels.index(label) for label in range(support.n_way) if label in classes]
    kept = support.select(sorted([*rows, *first]))
    texts = tuple(
        words[label] if label in classes else text for text, label in zip(kept.texts, kept.labels, strict=True)
    )
    return replace(kept, texts=texts, ids=None)
