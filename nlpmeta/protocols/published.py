"""The protocols by name, with their constants; docs/evaluation.md describes them."""

from nlpmeta.errors import UnknownNameError
from nlpmeta.protocols.draws import clinc_oos, folds, kshot_all, mteb, n_way, streams
from nlpmeta.protocols.base import Protocol

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
    summary="200 streams of 5 classes, each presented 10 times in random order, classified before the label is told",
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
