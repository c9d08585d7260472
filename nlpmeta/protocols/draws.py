"""From data to episodes, one function for each kind of protocol."""

from collections.abc import Sequence

import numpy as np

from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError
from nlpmeta.protocols.base import Material, Shape, Tasks
from nlpmeta.sampling import EpisodeSampler, KShotSampler, Sampler, generator
from nlpmeta.sampling.index import Index
from nlpmeta.sampling.published import InTurn, ShuffledDraws, StreamSampler, WithOutOfScope

EPISODE_QUERIES = 5
"""Query texts of each class in an episode with few classes."""
_PICK = 1  # the stream of random numbers that picks query texts


def kshot_all(material: Material, shape: Shape) -> Tasks:
    """All classes, support from the pool, scored on the test texts; without these, on the rest of the pool."""
    pool, test = _given(material.pool), material.test
    picked = test if test is None else _at_most(test, shape.max_query, shape.seed)
    sampler = KShotSampler(
        pool, n_shot=shape.n_shot, seed=shape.seed, test=picked, rare="keep", max_query=shape.max_query
    )
    notes = []
    if sampler.left_out:
        notes.append(f"{sum(sampler.left_out.values())} query texts of classes without support are left out.")
    return _listed(sampler, shape, notes)


def mteb(material: Material, shape: Shape) -> Tasks:
    """The draws of the Massive Text Embedding Benchmark."""
    test = _at_most(_given(material.test), shape.max_query, shape.seed)
    return _listed(ShuffledDraws(_given(material.pool), test, n_shot=shape.n_shot, seed=shape.seed), shape)


def clinc_oos(material: Material, shape: Shape) -> Tasks:
    """All classes, scored on the test texts and on every text out of scope."""
    if not material.out_of_scope:
        raise DataError("This protocol needs texts out of scope, and the data set has none.")
    test = _at_most(_given(material.test), shape.max_query, shape.seed)
    sampler = KShotSampler(_given(material.pool), n_shot=shape.n_shot, seed=shape.seed, test=test, rare="keep")
    return _listed(WithOutOfScope(sampler, material.out_of_scope), shape)


def n_way(material: Material, shape: Shape) -> Tasks:
    """Episodes of a few classes, support and query from one pool."""
    return _episodes((_given(material.pool),), shape)


def streams(material: Material, shape: Shape) -> Tasks:
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


def folds(material: Material, shape: Shape) -> Tasks:
    """Episodes from the classes that each published fold keeps for testing."""
    if not material.folds:
        raise DataError("This protocol needs published folds of the classes, and the data set has none.")
    return _episodes(material.folds, shape)


def _episodes(pools: tuple[LabeledTexts, ...], shape: Shape) -> Tasks:
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


def _listed(sampler: Sampler, shape: Shape, notes: Sequence[str] = ()) -> Tasks:
    """Few, large episodes: their texts are listed by drawing them."""
    first, texts = sampler.episode(0), dict[str, None]()
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
