"""The sizes of an episode, and which classes can fill it."""

from collections.abc import Mapping
from dataclasses import dataclass

from nlpmeta.errors import NLPMetaError, NotEnoughExamplesError
from nlpmeta.sampling.base import Range

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
