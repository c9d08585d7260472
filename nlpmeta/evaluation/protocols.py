"""Published protocols: what is drawn, how often, with which options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from nlpmeta.data import LabeledTexts
from nlpmeta.episodes import Sampler, generator
from nlpmeta.episodes.index import Index
from nlpmeta.episodes.kshot import KShotSampler, NamesAlone
from nlpmeta.episodes.pools import InTurn, ShuffledDraws, StreamSampler, WithOutOfScope
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.errors import DataError, NLPMetaError, UnknownNameError
from nlpmeta.learners.base import Option

Ways: TypeAlias = "int | Literal['all']"


@dataclass(frozen=True, kw_only=True)
class Material:
    """What there is to draw from: ``pool`` for the support, ``test`` to score on, ``folds`` of classes never met."""

    pool: LabeledTexts | None = None
    test: LabeledTexts | None = None
    folds: tuple[LabeledTexts, ...] = ()
    out_of_scope: tuple[str, ...] = ()

    def texts(self) -> list[str]:
        """All distinct texts."""
        parts = [part.texts for part in (self.pool, self.test, *self.folds) if part is not None]
        return list(dict.fromkeys(text for part in (*parts, self.out_of_scope) for text in part))


@dataclass(frozen=True, kw_only=True)
class TaskSize:
    """The size of the tasks that are drawn; ``n_episodes`` are drawn of each fold where there are folds.

    Raises:
        NLPMetaError: if a size is not positive (shots may be 0), or fewer than two ways are asked for.
    """

    n_way: Ways
    n_shot: int
    n_episodes: int
    max_query: int | None
    seed: int

    def __post_init__(self) -> None:
        if self.n_way != "all" and self.n_way < 2:
            raise NLPMetaError(f"A task has at least 2 ways; got {self.n_way}.")
        if self.n_shot < 0 or self.n_episodes < 1 or (self.max_query is not None and self.max_query < 1):
            raise NLPMetaError(
                "Shots must be at least 0, episodes and query texts at least 1; got "
                f"{self.n_shot}, {self.n_episodes} and {self.max_query}."
            )


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Episodes 0 to ``n_episodes - 1`` of ``sampler``, and in ``texts`` at least every text that occurs in them.

    ``n_ways`` are all numbers of classes that occur. ``notes`` is for the person who asked.
    """

    shape: TaskSize
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
    draw: Callable[[Material, TaskSize], Tasks]
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
        if 0 in n_shots and self.draw not in (kshot_all, clinc_oos):
            raise NLPMetaError(f"{self.name} takes examples of each class; --shots 0 goes with --protocol kshot-all.")
        if self.n_ways == ("all",) and n_ways != self.n_ways:
            raise NLPMetaError(f"{self.name} takes all classes; for episodes with fewer use --protocol n-way.")


EPISODE_QUERIES = 5
"""Query texts of each class in an episode with few classes."""
_PICK = 1  # the stream of random numbers that picks query texts


def kshot_all(material: Material, shape: TaskSize) -> Tasks:
    """All classes, support from the pool, scored on the test texts; without these, on the rest of the pool."""
    pool, test = _given(material.pool), material.test
    picked = test if test is None else _at_most(test, shape.max_query, shape.seed)
    sampler = _sampler(pool, picked, shape)
    notes = []
    if sampler.left_out:
        notes.append(f"{sum(sampler.left_out.values())} query texts of classes without support are left out.")
    return _listed(sampler, shape, notes)


def mteb(material: Material, shape: TaskSize) -> Tasks:
    """The draws of the Massive Text Embedding Benchmark."""
    test = _at_most(_given(material.test), shape.max_query, shape.seed)
    return _listed(ShuffledDraws(_given(material.pool), test, n_shot=shape.n_shot, seed=shape.seed), shape)


def clinc_oos(material: Material, shape: TaskSize) -> Tasks:
    """All classes, scored on the test texts and on every text out of scope."""
    if not material.out_of_scope:
        raise DataError("This protocol needs texts out of scope, and the data set has none.")
    test = _at_most(_given(material.test), shape.max_query, shape.seed)
    return _listed(WithOutOfScope(_sampler(_given(material.pool), test, shape), material.out_of_scope), shape)


def n_way(material: Material, shape: TaskSize) -> Tasks:
    """Episodes of a few classes, support and query from one pool."""
    return _episodes((_given(material.pool),), shape)


def streams(material: Material, shape: TaskSize) -> Tasks:
    """Streams of a few classes, each presented ``n_shot`` times, all in random order."""
    pool, n_shot = _given(material.pool), shape.n_shot
    n_way = max(2, len(Index(pool).rich(n_shot + 1))) if shape.n_way == "all" else shape.n_way
    sampler = EpisodeSampler([pool], n_way=n_way, n_shot=n_shot, n_query=1, seed=shape.seed)
    return Tasks(
        shape=shape,
        sampler=StreamSampler(sampler, seed=shape.seed),
        n_episodes=shape.n_episodes,
        n_ways=(n_way,),
        texts=tuple(dict.fromkeys(pool.texts)),
    )


def folds(material: Material, shape: TaskSize) -> Tasks:
    """Episodes from the classes that each published fold keeps for testing."""
    if not material.folds:
        raise DataError("This protocol needs published folds of the classes, and the data set has none.")
    return _episodes(material.folds, shape)


def _episodes(pools: tuple[LabeledTexts, ...], shape: TaskSize) -> Tasks:
    """The same number of N-way episodes of each pool."""
    n_shot, need = shape.n_shot, shape.n_shot + EPISODE_QUERIES
    n_ways = [max(2, len(Index(pool).rich(need))) if shape.n_way == "all" else shape.n_way for pool in pools]
    samplers = [
        EpisodeSampler([pool], n_way=n_way, n_shot=n_shot, n_query=EPISODE_QUERIES, seed=shape.seed)
        for pool, n_way in zip(pools, n_ways, strict=True)
    ]
    return Tasks(
        shape=shape,
        sampler=InTurn(samplers, shape.n_episodes),
        n_episodes=shape.n_episodes * len(pools),
        n_ways=tuple(n_ways),
        texts=tuple(dict.fromkeys(text for pool in pools for text in pool.texts)),
    )


def _sampler(pool: LabeledTexts, test: LabeledTexts | None, shape: TaskSize) -> KShotSampler | NamesAlone:
    """All classes with their examples or, with 0 shots, by their names, scored on ``test`` or on what is left."""
    if shape.n_shot == 0:
        return NamesAlone(pool, test=_at_most(pool, shape.max_query, shape.seed) if test is None else test)
    return KShotSampler(pool, n_shot=shape.n_shot, seed=shape.seed, test=test, rare="keep", max_query=shape.max_query)


def _listed(sampler: Sampler, shape: TaskSize, notes: Sequence[str] = ()) -> Tasks:
    """Few, large episodes: their texts are listed by drawing them; without examples there is one only."""
    first, texts = sampler.episode(0), dict[str, None]()
    shape = replace(shape, n_episodes=shape.n_episodes if shape.n_shot else 1)
    for index in range(shape.n_episodes):
        texts.update(dict.fromkeys(sampler.episode(index).texts()))
    short = [name for name, count in first.support.counts().items() if count < shape.n_shot]
    if short:
        who = f"{len(short)} classes give" if len(short) > 1 else "1 class gives"
        notes = [*notes, f"{who} fewer than {shape.n_shot} support texts, all there are."]
    return Tasks(
        shape=shape,
        sampler=sampler,
        n_episodes=shape.n_episodes,
        n_ways=(first.n_way,),
        texts=tuple(texts),
        notes=tuple(notes),
    )


def _at_most(test: LabeledTexts, max_query: int | None, seed: int) -> LabeledTexts:
    """At most ``max_query`` of the texts, the same for every draw, in their order."""
    if max_query is None or len(test) <= max_query:
        return test
    picked = generator(seed, 0, stream=_PICK).choice(len(test), max_query, replace=False)
    return test.select(np.sort(picked).tolist())


def _given(part: LabeledTexts | None) -> LabeledTexts:
    if part is None:
        raise DataError("This protocol draws its support from one split and scores on another; the data has only one.")
    return part


KSHOT_ALL = Protocol(
    name="kshot-all",
    summary="all classes, K support texts each, 5 draws, scored on the same 500 test texts",
    draws_from="splits",
    draw=kshot_all,
    n_shots=(1, 5, 10),
    n_episodes=5,
    max_query=500,
)
N_WAY = Protocol(
    name="n-way",
    summary="600 episodes of 5 classes, K support and 5 query texts each",
    draws_from="test split",
    draw=n_way,
    n_ways=(5,),
    n_shots=(1, 5),
    n_episodes=600,
)
PROTAUGMENT = Protocol(
    name="protaugment",
    summary="the test classes of 5 published folds, 600 episodes of each, 5 classes or all, 1 and 5 shots, 5 queries",
    draws_from="folds",
    draw=folds,
    n_ways=(5, "all"),
    n_shots=(1, 5),
    n_episodes=600,
)
MTEB_8SHOT = Protocol(
    name="mteb-8shot",
    summary="all classes, 8 support texts each, 10 draws with MTEB's seed, scored on the whole test split",
    draws_from="splits",
    draw=mteb,
    n_shots=(8,),
    n_episodes=10,
    seed=42,
    options={"logistic": {"inverse_penalty": 1.0}},
    fixed=True,
)
CLINC_OOS = Protocol(
    name="clinc-oos",
    summary="all classes, 10 support texts each, 5 draws, scored on the test split and on texts out of scope",
    draws_from="splits and out of scope",
    draw=clinc_oos,
    n_shots=(10,),
    n_episodes=5,
    in_scope_accuracy=0.8,
)
STREAM = Protocol(
    name="stream",
    summary="200 streams of 5 classes, each shown 10 times in random order, classified before the label is revealed",
    draws_from="test split",
    draw=streams,
    n_ways=(5,),
    n_shots=(10,),
    n_episodes=200,
    presentations=(1, 2, 5, 10),
)
PROTOCOLS = {each.name: each for each in (KSHOT_ALL, N_WAY, PROTAUGMENT, MTEB_8SHOT, CLINC_OOS, STREAM)}


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
