"""What a protocol is: a way to measure with all its constants, and what it draws from data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from nlpmeta.data import LabeledTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Option
from nlpmeta.sampling import Sampler

Ways: TypeAlias = "int | Literal['all']"


@dataclass(frozen=True, kw_only=True)
class Material:
    """What there is to draw from: ``pool`` for the support, ``test`` to score on, ``folds`` of classes never met."""

    pool: LabeledTexts | None = None
    test: LabeledTexts | None = None
    folds: tuple[LabeledTexts, ...] = ()
    out_of_scope: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of the tasks that are drawn; ``n_episodes`` are drawn of each fold where there are folds.

    Raises:
        NLPMetaError: if a size is not positive, or fewer than two ways are asked for.
    """

    n_way: Ways
    n_shot: int
    n_episodes: int
    max_query: int | None
    seed: int

    def __post_init__(self) -> None:
        if self.n_way != "all" and self.n_way < 2:
            raise NLPMetaError(f"A task has at least 2 ways; got {self.n_way}.")
        if self.n_shot < 1 or self.n_episodes < 1 or (self.max_query is not None and self.max_query < 1):
            raise NLPMetaError(
                f"Shots, episodes and query texts must be at least 1; got {self.n_shot}, {self.n_episodes} "
                f"and {self.max_query}."
            )


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Episodes 0 to ``n_episodes - 1`` of ``sampler``, and in ``texts`` at least every text that occurs in them.

    ``n_ways`` are all numbers of classes that occur. ``notes`` is for the person who asked.
    """

    shape: Shape
    sampler: Sampler
    n_episodes: int
    n_ways: tuple[int, ...]
    texts: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def n_way(self) -> int | str:
        """The number of classes of an episode, ``"19-29"`` where they differ."""
        low, high = min(self.n_ways), max(self.n_ways)
        return low if low == high else f"{low}-{high}"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A way to measure with all its constants.

    ``draws_from`` says what of a data set is needed. ``options`` holds, by the name of a method, what the protocol
    fixes about it. Shots and ways of a ``fixed`` protocol cannot be chosen. A protocol with ``presentations`` takes the
    support of an episode for a stream; these are the ones that a table shows.
    """

    name: str
    summary: str
    draws_from: Literal["splits", "test split", "folds", "splits and out of scope"]
    draw: Callable[[Material, Shape], Tasks]
    n_ways: tuple[Ways, ...] = ("all",)
    n_shots: tuple[int, ...]
    n_episodes: int
    max_query: int | None = None
    seed: int = 0
    options: Mapping[str, Mapping[str, Option]] = field(default_factory=dict)
    in_scope_accuracy: float | None = None
    fixed: bool = False
    presentations: tuple[int, ...] = ()

    def check(self, n_ways: tuple[Ways, ...], n_shots: tuple[int, ...]) -> None:
        """Make sure that these are tasks of this protocol.

        Raises:
            NLPMetaError: if they are not.
        """
        if self.fixed and (n_ways, n_shots) != (self.n_ways, self.n_shots):
            raise NLPMetaError(f"{self.name} is {self.summary}; leave --shots and --ways out.")
        if self.n_ways == ("all",) and n_ways != self.n_ways:
            raise NLPMetaError(f"{self.name} takes all classes; for episodes with fewer use --protocol n-way.")
