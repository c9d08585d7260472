"""The auxiliary tasks that ``learn_auto.py`` learns from: the predictions of each head and of a mixture."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from auto_tasks import Pools
from fit_priors import Size, surface, weighted_quantile
from torch import Tensor

from nlpmeta.auto.heads import columns_of, compared, features_of, seen
from nlpmeta.auto.judging import (
    TEMPERATURES,
    CrossValidation,
    fitting_temperature,
    held_out_scores,
    leads,
    mixture_temperature,
    n_folds,
)
from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.mismatch import N_CLUES, scope_clues
from nlpmeta.auto.mixture import mixed
from nlpmeta.auto.priors import Profile, Shrunk, Surface
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.encoder.views import FROZEN, ScaledEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Embed, Support, Texts, class_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOTS = (1, 2, 3, 5, 8, 10, 16)
MOST_SUPPORT = 420  # texts: larger tasks take a minute each and need priors least
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)


@dataclass(frozen=True, eq=False)
class Seen:
    """One auxiliary task: what each head says of held-out support texts, of the query and of texts out of scope."""

    name: str
    """Of its family."""
    size: Size
    support: Support
    heads: tuple[str, ...]
    held_out: tuple[Tensor, ...] | None
    query: tuple[Tensor, ...]
    """Scores ``(n_query + n_outside, n_way)`` of each head."""
    labels: Tensor
    features: Tensor

    @property
    def n_query(self) -> int:
        """Texts in scope."""
        return len(self.labels)


def collect(auto: AutoHead, pools: Sequence[Pools], table: EmbeddingTable, columns: slice) -> list[Seen]:
    """Every auxiliary task, each head adapted to it and to its folds."""
    seen = []
    for family in pools:
        start, before = time.perf_counter(), len(seen)
        for n_shot in (shot for shot in SHOTS if shot <= family.family.max_shot):
            for number in range(family.family.n_tasks):
                if found := _seen(auto, family, number, n_shot, lambda texts: table(texts)[:, columns]):
                    seen.append(found)
        print(f"{family.family.name}: {len(seen) - before} tasks, {time.perf_counter() - start:.0f} s", flush=True)
    return seen


def _seen(auto: AutoHead, family: Pools, number: int, n_shot: int, embed: Embed) -> Seen | None:
    try:
        episode = family.task(number, n_shot)
    except NLPMetaError:  # too few texts of too many classes
        return None
    if len(episode.support) > MOST_SUPPORT:
        return None
    known = auto.known(auto.support(episode.support, embed))
    heads, folds = auto.heads_for(known), n_folds(known)
    features = embed(episode.query.texts + episode.out_of_scope)
    views = {name: seen(auto.encoder, known, each) for name, each in heads.items()}
    held_out = [held_out_scores(each.head, views[name], folds) for name, each in heads.items() if folds > 1]
    query = []
    for name, each in heads.items():
        queries = Texts(("",) * len(features), columns_of(auto.encoder, features, each.scales))
        query.append(each.head.logits(each.head.adapt(views[name]), queries))
    shape = (len(known) / known.n_way, known.n_way, len(known))
    size = Size(family.family.data, *shape, family.family.kind)
    labels = torch.tensor(episode.query.labels)
    return Seen(family.family.name, size, known, tuple(heads), tuple(held_out) or None, tuple(query), labels, features)


@dataclass(frozen=True, eq=False)
class Mixture:
    """What ``auto`` would make of an auxiliary task: log probabilities of held-out texts, the query, and others."""

    seen: Seen
    held_out: Tensor | None
    query: Tensor
    scales: tuple[float, ...]
    """The views in which texts are compared with classes."""

    def over(self, usual: Surface) -> float:
        """What its scores are divided by."""
        size = self.seen.size
        return mixture_temperature(self.held_out, self.seen.support.labels, float(usual.at(size.n_shot, size.n_way)))

    def true_query(self, over: float = 1.0) -> Tensor:
        """The log probability of the true class of each query text, at a temperature."""
        scores = (self.query[: self.seen.n_query] / over).log_softmax(1)
        return scores[torch.arange(self.seen.n_query), self.seen.labels]

    def clues(self, views: ScaledEncoder | None, usual: Surface) -> Tensor:
        """The clues to texts out of scope, for the query and the texts behind it."""
        size, support = self.seen.size, self.seen.support

        def read(features: Tensor) -> Tensor:
            return features if views is None else torch.cat([features[:, views.columns(f)] for f in self.scales], dim=1)

        scores = (self.query / self.over(usual)).log_softmax(1)
        prototypes = class_means(read(features_of(support)), support.labels, support.n_way)
        n_views = 1 if views is None else len(self.scales)
        return scope_clues(scores, read(self.seen.features), prototypes, n_views=n_views, n_shot=size.n_shot)


def suiting(tasks: Sequence[Seen]) -> list[dict[str, float]]:
    """For each task the temperatures that suit its query texts best, as powers of 2, by the name of the head."""
    return [
        {
            name: math.log2(fitting_temperature(scores[: task.n_query], task.labels, TEMPERATURES, doubt=0.0))
            for name, scores in zip(task.heads, task.query, strict=True)
        }
        for task in tasks
    ]


def head_temperatures(tasks: Sequence[Seen], powers: Sequence[dict[str, float]], heads: Sequence[str]) -> Surface:
    """For tasks of each size what suits the query texts of most of them; families count alike."""
    rows = {name: [i for i, each in enumerate(powers) if name in each] for name in heads}
    known = {name: np.asarray([powers[i][name] for i in rows[name]]) for name in heads}

    def usual(near: "NDArray[np.float64]") -> "NDArray[np.float64]":
        return np.asarray([weighted_quantile(known[name], near[rows[name]], 0.5) for name in heads])

    return surface([task.size for task in tasks], usual)


def judged(task: Seen, profile: Profile) -> CrossValidation:
    """As ``AutoHead.judge``."""
    if task.held_out is None:
        usual = profile.temperatures_of(task.size.n_shot, task.size.n_way)
        return CrossValidation(task.heads, tuple(usual[name] for name in task.heads), None)
    return CrossValidation.of(task.heads, task.held_out, task.support.labels, profile)


def query_parts(task: Seen, judgement: CrossValidation) -> Tensor:
    """Log probabilities of the query and other texts under each head, ``(n_heads, n, n_way)``."""
    parts, lead = zip(task.query, judgement.temperatures, strict=True), leads(task.support.labels, task.support.n_way)
    return torch.stack([(scores / t - lead).log_softmax(1) for scores, t in parts])


def prior(tasks: Sequence[Seen], parts: Sequence[Tensor], heads: Sequence[str]) -> Surface:
    """The weights whose mixture makes the query texts of tasks of each size most likely."""
    place = {name: i for i, name in enumerate(heads)}
    columns = []
    for task, part in zip(tasks, parts, strict=True):
        each = part[:, torch.arange(task.n_query), task.labels].double()
        likely = np.zeros((len(heads), task.n_query))
        likely[[place[name] for name in task.heads]] = (each - each.max(0).values).exp().numpy()
        columns.append(likely)
    likely, counts = np.concatenate(columns, axis=1), np.asarray([task.n_query for task in tasks])
    of_task = np.repeat(np.arange(len(tasks)), counts)

    def weights(near: "NDArray[np.float64]") -> "NDArray[np.float64]":
        kept = near[of_task] > 1e-4
        some, each = likely[:, kept], (near / counts)[of_task][kept]
        found = np.full(len(heads), 1 / len(heads))
        for _ in range(60):  # expectation maximisation, as in stacking
            shares = found[:, None] * some
            total = (shares / shares.sum(0)) @ each + 1 / (len(heads) * len(tasks))
            found = total / total.sum()
        return found

    return surface([task.size for task in tasks], weights)


def blank(heads: Sequence[str], prior: Surface, strength: float, temperatures: Surface, held_on: float) -> Profile:
    """A profile that knows how to weigh heads, and their temperatures with ``held_on``, and nothing else yet."""
    flat = Surface((1.0,), (2.0,), np.zeros((1, 1, 1)))
    nothing = Shrunk(flat, 1.0, flat)
    return Profile(
        heads=tuple(heads),
        prior=prior,
        strength=strength,
        head_temperatures=temperatures,
        temperature_strength=held_on,
        temperature=Surface((1.0,), (2.0,), np.ones((1, 1, 1))),
        levels=LEVELS,
        quantiles=nothing,
        accuracy=nothing,
        band=flat,
        clean=flat,
        scope=(0.0,) * N_CLUES,
    )


@dataclass(frozen=True, eq=False)
class Study:
    """The auxiliary tasks of one profile, their heads judged, and priors that leave each kind of task out."""

    auto: AutoHead
    tasks: list[Seen]
    temperatures: Surface
    held_on: float
    judged: list[CrossValidation]
    parts: list[Tensor]
    blind: dict[str, Profile]

    @classmethod
    def of(cls, auto: AutoHead, tasks: list[Seen], powers: Sequence[dict[str, float]], held_on: float) -> "Study":
        """Judge the heads on every task, their temperatures held on to those of other kinds; ``powers`` as suiting."""
        heads, flat = list(auto.candidates), Surface((1.0,), (2.0,), np.ones((1, 1, len(auto.candidates))))
        others = {
            kind: [i for i, task in enumerate(tasks) if task.size.kind != kind]
            for kind in sorted({task.size.kind for task in tasks})
        }
        blind = {}
        for kind, rows in others.items():
            usual = head_temperatures([tasks[i] for i in rows], [powers[i] for i in rows], heads)
            blind[kind] = blank(heads, flat, 1.0, usual, held_on)
        found = [judged(task, blind[task.size.kind]) for task in tasks]
        parts = [query_parts(task, each) for task, each in zip(tasks, found, strict=True)]
        for kind, rows in others.items():
            weights = prior([tasks[i] for i in rows], [parts[i] for i in rows], heads)
            blind[kind] = replace(blind[kind], prior=weights)
        return cls(auto, tasks, head_temperatures(tasks, powers, heads), held_on, found, parts, blind)

    def mixtures(self, strength: float) -> list[Mixture]:
        """What ``auto`` makes of each task with the prior of the other kinds."""
        found = []
        for task, judgement, parts in zip(self.tasks, self.judged, self.parts, strict=True):
            self.auto.priors = replace(self.blind[task.size.kind], strength=strength)
            weights = self.auto.weights(judgement, task.support)
            held_out = None if judgement.held_out is None else mixed(judgement.held_out, weights)
            read = {
                f
                for n, w in zip(task.heads, weights.tolist(), strict=True)
                if w
                for f in self.auto.candidates[n].scales
            }
            order = compared(tuple(sorted(read, reverse=True)))
            views = order if isinstance(self.auto.encoder, ScaledEncoder) else (FROZEN,)
            found.append(Mixture(task, held_out, mixed(parts, weights), views))
        return found
