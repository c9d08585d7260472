"""What connects the three families of meta-learning, each claim with a number: docs/explanation/families.md.

    python benchmarks/families.py     # a minute or two; the packaged encoder and corpus, no download

Tasks are drawn from the Swahili intents of the starter corpus, seed 0. They show how the methods relate, not how good
they are.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes.kshot import KShotSampler, keep_classes
from nlpmeta.learners.base import Learner, Support, TaskState, Texts
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.maml import MAML
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead
from nlpmeta.learners.start import starting_learner
from nlpmeta.sources.loading import load_source

N_TASKS, N_WAY, N_SHOT = 4, 6, 5
GRADIENT_STEPS = (1, 10, 100, 1000)
ORDERS = 3


def tasks(n_way: int = N_WAY, n_shot: int = N_SHOT, *, merged: bool = False) -> list[Episode]:
    """Episodes of ``n_way`` classes; ``merged`` makes one class of each two, which then has two topics."""
    corpus, found = load_source("starter").load("sw"), []
    for seed in range(N_TASKS):
        some = keep_classes(corpus, n_way * (1 + merged), seed=seed)
        if merged:
            names = tuple(" or ".join(some.label_names[2 * i : 2 * i + 2]) for i in range(n_way))
            some = replace(some, labels=tuple(label // 2 for label in some.labels), label_names=names)
        found.append(KShotSampler(some, n_shot=n_shot, seed=seed, rare="drop", max_query=60).episode(0))
    return found


def state_of(learner: Learner, data: LabeledTexts) -> tuple[Support, TaskState]:
    """The support set and what the learner makes of it."""
    support = learner.support(data)
    return support, learner.adapt(support)


def scores(learner: Learner, state: TaskState, episode: Episode) -> Tensor:
    """Scores ``(n_query, n_way)`` of the query set."""
    return learner.logits(state, Texts(episode.query.texts))


def accuracy(learner: Learner, episodes: Sequence[Episode]) -> float:
    """Mean accuracy in %, over the episodes."""
    right = []
    for episode in episodes:
        guesses = scores(learner, state_of(learner, episode.support)[1], episode).argmax(1).tolist()
        right.append(np.mean(np.equal(guesses, episode.query.labels)))
    return 100 * float(np.mean(right))


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process: the less of two rounds."""
    found = []
    for _ in range(2):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def the_space_is_learned() -> dict[str, float]:
    """The same averages in a space that was not meta-trained, and in one that was: accuracy in %, one shot."""
    episodes = tasks(n_shot=1)
    return {
        name: accuracy(PrototypicalNetwork(starting_learner("prototypical", checkpoint=name).encoder), episodes)
        for name in ("none", "default")
    }


def maml_starts_as_prototypes() -> dict[int, float]:
    """The largest difference of class probabilities between MAML after some inner steps and prototypes."""
    maml, episode = MAML.on(starting_learner("prototypical")), tasks()[0]
    named = maml.name_weight is not None
    temperature, weight = float(maml.log_temperature.detach().exp()), maml.name_weight or 1.0
    prototypes = PrototypicalNetwork(
        maml.encoder, metric="cosine", temperature=temperature, names=named, name_weight=weight
    )
    start = scores(prototypes, state_of(prototypes, episode.support)[1], episode).softmax(1)
    found = {}
    for steps in (0, 1, 3):
        learner = maml.stepping(steps)
        adapted = scores(learner, state_of(learner, episode.support)[1], episode).softmax(1)
        found[steps] = float((adapted - start).abs().max())
    return found


def gradient_descent_nears_the_closed_form() -> dict[int, float]:
    """How far gradient descent is from the least-squares head after some steps, as a share of where it started."""
    learner, episode = RidgeHead(starting_learner("ridge", checkpoint="none").encoder), tasks()[0]
    support = learner.support(episode.support)
    rows = learner.embed(support).double()
    targets = torch.nn.functional.one_hot(support.labels, support.n_way).double()
    rows, targets = rows - rows.mean(0), targets - targets.mean(0)
    penalty = 0.1
    closed = torch.linalg.solve(rows.T @ rows + penalty * torch.eye(rows.size(1), dtype=torch.double), rows.T @ targets)
    rate = 1 / (float(torch.linalg.matrix_norm(rows, ord=2)) ** 2 + penalty)
    weight, found = torch.zeros_like(closed), {}
    for step in range(1, max(GRADIENT_STEPS) + 1):
        weight -= rate * (rows.T @ (rows @ weight - targets) + penalty * weight)
        if step in GRADIENT_STEPS:
            found[step] = float((weight - closed).norm() / closed.norm())
    return found


def only_a_memory_minds_the_order() -> dict[str, float]:
    """The share of query texts, in %, that are answered differently once the examples come in another order."""
    episode, rng, found = tasks(n_way=5)[0], np.random.default_rng(0), {}
    orders = [rng.permutation(len(episode.support)).tolist() for _ in range(ORDERS)]
    for name in ("prototypical", "mann"):
        learner, changed = starting_learner(name), []
        before = scores(learner, state_of(learner, episode.support)[1], episode).argmax(1)
        for order in orders:
            after = scores(learner, state_of(learner, episode.support.select(order))[1], episode).argmax(1)
            changed.append(float((after != before).float().mean()))
        found[name] = 100 * float(np.mean(changed))
    return found


def a_class_with_two_topics() -> dict[str, tuple[float, float]]:
    """Accuracy in % where each class is one topic, and where each is two, for a mean and for a boundary."""
    encoder = starting_learner("prototypical", checkpoint="none").encoder
    plain, merged = tasks(n_shot=8), tasks(n_shot=8, merged=True)
    heads = {"prototypical": PrototypicalNetwork(encoder), "logistic": LogisticHead(encoder)}
    return {name: (accuracy(head, plain), accuracy(head, merged)) for name, head in heads.items()}


def what_adaptation_costs() -> dict[str, float]:
    """CPU seconds to adapt to one task, embedding included, as multiples of those of prototypes."""
    episode = tasks(n_way=5)[0]
    methods = {name: starting_learner(name) for name in ("prototypical", "ridge", "mann", "auto", "maml")}
    found = {name: seconds(partial(state_of, learner, episode.support)) for name, learner in methods.items()}
    return {name: each / found["prototypical"] for name, each in found.items()}


CLAIMS = (
    the_space_is_learned,
    maml_starts_as_prototypes,
    gradient_descent_nears_the_closed_form,
    only_a_memory_minds_the_order,
    a_class_with_two_topics,
    what_adaptation_costs,
)


def main() -> None:
    """Print what each claim rests on."""
    torch.set_num_threads(1)
    with torch.no_grad():
        for claim in CLAIMS:
            print(f"{claim.__name__.replace('_', ' ')}: {claim.__doc__}")
            print(f"  {claim()}", flush=True)


if __name__ == "__main__":
    main()
