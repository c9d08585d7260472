"""What every sampler is: a function from an index to an episode, with counter-based randomness; and its sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nlpmeta.data import Episode
from nlpmeta.errors import NLPMetaError, NotEnoughExamplesError

LEAF_STREAMS = 8
"""Streams below this number belong to samplers that draw from data; wrappers take one above."""
_WORD = 2**64


class Sampler(Protocol):
    """Anything that turns an index into an episode, always the same one; samplers compose by wrapping samplers."""

    def episode(self, index: int) -> Episode:
        """Episode ``index``, whatever was drawn before and in whichever process."""
        ...


@dataclass(frozen=True)
class Range:
    """A size that each episode draws for itself, uniformly, both ends included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise NLPMetaError(f"A size range must have 1 <= low <= high; got {self.low} to {self.high}.")

    @classmethod
    def of(cls, size: "int | Range") -> "Range":
        """A fixed size as a range of one."""
        return size if isinstance(size, Range) else cls(size, size)

    def draw(self, rng: np.random.Generator, *, most: int | None = None) -> int:
        """One size, at most ``most`` where that is less than ``high`` (it must not be less than ``low``)."""
        high = self.high if most is None else min(self.high, most)
        return self.low if self.low == high else int(rng.integers(self.low, high + 1))


def generator(seed: int, index: int, *, stream: int = 0) -> np.random.Generator:
    """Random numbers that depend on ``(seed, index, stream)`` alone.

    Philox is a counter-based generator (Salmon et al., SC 2011): the seed is its key and the index the high words of
    its counter, so that no two episodes share a block of numbers. ``stream`` sets apart draws of one episode that must
    not move each other.

    Raises:
        NLPMetaError: if the seed or the index is negative or does not fit into 64 bits.
    """
    if not (0 <= seed < _WORD and 0 <= index < _WORD):
        raise NLPMetaError(f"Seed and episode index must lie in 0..2**64 - 1; got seed {seed}, index {index}.")
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, index, stream]))


def next_stream(*samplers: Sampler) -> int:
    """A stream that nothing inside ``samplers`` draws from, for the wrapper around them.

    A wrapper keeps it as its attribute ``stream``. So wrappers of one kind and one seed can be nested without their
    draws moving together.
    """
    return 1 + max(int(getattr(sampler, "stream", LEAF_STREAMS)) for sampler in samplers)


ADVICE = (
    "Add examples, or lower n_shot, n_query or n_way. Texts that agree after normalisation, and rows with the same id, "
    "count as one."
)


@dataclass(frozen=True)
class Shape:
    """N ways, K shots and the query texts of each class.

    Raises:
        NLPMetaError: if a class is to have no query text.
    """

    n_way: Range
    n_shot: Range
    n_query: int

    def __post_init__(self) -> None:
        if self.n_query < 1:
            raise NLPMetaError(f"n_query must be at least 1 text of each class; got {self.n_query}.")

    @classmethod
    def of(cls, n_way: int | Range, n_shot: int | Range, n_query: int) -> "Shape":
        """Sizes of which some may be fixed."""
        return cls(Range.of(n_way), Range.of(n_shot), n_query)

    @property
    def need(self) -> int:
        """Sentences that a class must have: the most shots and the query."""
        return self.n_shot.high + self.n_query

    def require(self, counts: Mapping[str, int], *, n_way: int, where: str) -> None:
        """Check that ``n_way`` classes have enough sentences.

        Args:
            counts: sentences by label name, of the classes that there are.
            n_way: how many must be rich enough.
            where: what the classes belong to, for the message.

        Raises:
            NLPMetaError: if there are fewer classes.
            NotEnoughExamplesError: if too few of them are rich enough.
        """
        if len(counts) < n_way:
            names = ", ".join(map(repr, counts))
            raise NLPMetaError(
                f"Episodes of {n_way} ways were asked for but {where} has {len(counts)} classes: {names}."
            )
        short = {name: count for name, count in counts.items() if count < self.need}
        if len(counts) - len(short) < n_way:
            raise NotEnoughExamplesError(short, self.need, advice=ADVICE)
