"""What a stream of labels has taught so far: a value; each label gives the next one."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from nlpmeta.learners.base import TaskState
from nlpmeta.online.alarms import Burst, DriftAlarm
from nlpmeta.settings import HIGHEST_RATE, HIGHEST_SEED, MOST_STEPS, Settings

_MOMENTUM = 0.9


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled texts as the head sees them.

    ``rows`` are centred embeddings ``(n, dim)``, ``base`` the scores of the classifier that the stream began with and
    ``near`` the cosines with the running prototypes, both ``(n, n_way)``; ``labels`` ``(n,)``.
    """

    rows: Tensor
    base: Tensor
    near: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Head:
    """What scores a text: ``weight`` ``(n_way, dim)``, ``bias`` ``(n_way,)``, and how much prototypes count, ``()``."""

    weight: Tensor
    bias: Tensor
    pull: Tensor

    def scores(self, rows: Tensor, base: Tensor, near: Tensor) -> Tensor:
        """Class scores ``(n, n_way)``; see ``Labelled`` for the arguments."""
        return base + self.pull * near + F.linear(rows, self.weight, self.bias)


def first_leader(n_way: int, dim: int, *, device: torch.device | str = "cpu") -> TaskState:
    """The leader that changes nothing: a stream begins with the scores of its classifier."""
    return {
        "weight": torch.zeros(n_way, dim, device=device),
        "bias": torch.zeros(n_way, device=device),
        "share": torch.tensor(0.0, device=device),
        "pull": torch.tensor(0.0, device=device),
    }


def adapted(leader: TaskState, seen: Labelled, *, steps: int) -> Head:
    """``leader`` after gradient steps on what was seen: the paper's U(w, D).

    The step is a learned share of the longest stable one, 2 / L, with L the largest curvature of the loss (the Hessian
    of a softmax is at most half the Gram matrix), so that no batch can make it diverge.
    """
    weight, bias = leader["weight"], leader["bias"]
    rate = leader["share"].sigmoid() * 2 / _curvature(seen.rows)
    targets = F.one_hot(seen.labels, len(bias)).to(seen.rows)
    for _ in range(steps):
        head = Head(weight, bias, leader["pull"])
        wrong = head.scores(seen.rows, seen.base, seen.near).softmax(1) - targets  # (n, n_way): the gradient by hand
        weight, bias = weight - rate * wrong.T @ seen.rows, bias - rate * wrong.sum(0)
    return Head(weight, bias, leader["pull"])


def followed(
    leader: TaskState, momentum: TaskState, tasks: list[tuple[Labelled, Labelled]], *, steps: int, rate: float
) -> tuple[TaskState, TaskState]:
    """One meta-step over past stretches of the stream: the leader, and the running mean of its gradients.

    Source: Finn, Rajeswaran, Kakade and Levine, ICML 2019 (arXiv:1902.08438), equation 5 and algorithm 1: the loss of
    every past task after adapting to its first part, on its second part, is lowered together. The gradient goes through
    the inner steps (second order). Where we differ: plain gradient steps with momentum, and tasks are stretches of one
    stream.

    Args:
        leader: what is learned.
        momentum: the running mean, with the same names.
        tasks: for each, what is adapted to and what is then predicted.
        steps: of each adaptation.
        rate: of the meta-step.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in leader.items()}
    with torch.enable_grad():
        losses = []
        for first, second in tasks:
            scores = adapted(leaves, first, steps=steps).scores(second.rows, second.base, second.near)
            losses.append(F.cross_entropy(scores, second.labels))
        found = torch.autograd.grad(torch.stack(losses).mean(), list(leaves.values()))
    running = {
        name: _MOMENTUM * momentum[name] + (1 - _MOMENTUM) * gradient.detach()
        for name, gradient in zip(leaves, found, strict=True)
    }
    return {name: (value - rate * running[name]).detach() for name, value in leader.items()}, running


def _curvature(rows: Tensor) -> Tensor:
    """Half the largest eigenvalue of the Gram matrix of the rows with a one for the bias, ``()``."""
    extended = torch.cat([rows.detach(), rows.new_ones(len(rows), 1)], dim=1)
    largest: Tensor = torch.linalg.matrix_norm(extended, ord=2)
    return largest.square().clamp(min=1e-6) / 2


_CLOSENESS = 10.0  # what cosines are multiplied by, so that a pull of 1 is a strong one
_APART = 5  # what each of the three alarms' levels is over the settings', which is for all of them
_TASKS, _AHEAD = 4, 8  # stretches of a meta-step, and the labels after each that are predicted


class OnlineSettings(Settings):
    """How a stream is followed. The defaults were chosen on YouTube comment spam."""

    window: int = Field(24, ge=2, le=100_000, description="newest labels that the head is adapted to at every label")
    replay: int = Field(
        24, ge=0, le=100_000, description="older labels, drawn at random, that it is adapted to as well"
    )
    inner_steps: int = Field(20, ge=1, le=10_000, description="gradient steps of that")
    meta_every: int = Field(4, ge=1, le=MOST_STEPS, description="labels between two meta-steps")
    meta_rate: float = Field(0.3, gt=0, le=HIGHEST_RATE, description="rate of a meta-step")
    half_life: float = Field(
        15.0, ge=1e-3, le=1e9, description="labels of a class after which one counts half in its prototype"
    )
    capacity: int = Field(1024, ge=64, le=1_000_000, description="labels that are kept for replay")
    one_in: int = Field(
        2000, ge=1, le=10**9, description="texts between false alarms, on average; for bursts as measured"
    )
    fading: float = Field(0.99, gt=0, lt=1, description="what a prediction counts less with each later one")
    keep_every: int = Field(
        100, ge=1, le=MOST_STEPS, description="labels between two states that can be rolled back to"
    )
    keep: int = Field(8, ge=1, le=10_000, description="such states that are kept")
    seed: int = Field(0, ge=0, le=HIGHEST_SEED, description="decides what is replayed")


@dataclass(frozen=True, eq=False)
class Frozen:
    """The head that the alarm watches: it does not learn, so that learning cannot hide a drift.

    ``texts`` are the centred embeddings ``(n, dim)`` that new texts are held against, of unit length.
    """

    head: Head
    prototypes: Tensor
    texts: Tensor


@dataclass(frozen=True, eq=False)
class Stream:
    """Leader, head, running prototypes ``(n_way, dim)``, replayed labels and alarms after ``n_labels`` labels."""

    leader: TaskState
    momentum: TaskState
    head: Head
    prototypes: Tensor
    weights: Tensor
    rows: Tensor
    base: Tensor
    labels: Tensor
    frozen: Frozen
    loss_alarm: DriftAlarm
    text_alarm: DriftAlarm
    burst: Burst
    n_labels: int

    @classmethod
    def begin(cls, rows: Tensor, base: Tensor, labels: Tensor, settings: OnlineSettings) -> "Stream":
        """The start, from the support set: embeddings ``(n, dim)``, scores ``(n, n_way)``, labels ``(n,)``."""
        n_way = base.size(1)
        order = torch.from_numpy(np.random.default_rng(settings.seed).permutation(len(rows))).to(rows.device)
        leader = first_leader(n_way, rows.size(1), device=rows.device)
        head = Head(leader["weight"], leader["bias"], leader["pull"])
        counts = torch.bincount(labels, minlength=n_way).to(rows).unsqueeze(1)
        prototypes = rows.new_zeros(n_way, rows.size(1)).index_add(0, labels, rows) / counts
        texts, level = F.normalize(rows, dim=1), _APART * settings.one_in
        return cls(
            leader=leader,
            momentum={name: torch.zeros_like(value) for name, value in leader.items()},
            head=head,
            prototypes=prototypes,
            weights=counts.clamp(max=settings.half_life),
            rows=rows[order],
            base=base[order],
            labels=labels[order],
            frozen=Frozen(head, prototypes, texts),
            loss_alarm=DriftAlarm(level, settings.seed),
            text_alarm=DriftAlarm(level, settings.seed + 1_000_000),
            burst=Burst.begin(texts[order], DriftAlarm(level, settings.seed + 2_000_000)),
            n_labels=0,
        )

    def scores(self, rows: Tensor, base: Tensor) -> Tensor:
        """Class scores ``(n, n_way)`` as of now."""
        return self.head.scores(rows, base, closeness(rows, self.prototypes))

    def watched(self, row: Tensor) -> "Stream":
        """After a text without a label ``(dim,)``: how far it is from the known texts, and how near to the newest."""
        text = F.normalize(row, dim=0)
        nearest = float((self.frozen.texts @ text).max())
        return replace(self, text_alarm=self.text_alarm.after(-nearest), burst=self.burst.after(text))

    def learned(self, row: Tensor, base: Tensor, label: int, settings: OnlineSettings) -> "Stream":
        """After one label: alarm, prototypes, replay, leader and head, in this order."""
        target = torch.tensor([label], device=base.device)
        old = self.frozen.head.scores(row[None], base[None], closeness(row[None], self.frozen.prototypes))
        seen = replace(
            self._with_prototype(row, label, settings),
            loss_alarm=self.loss_alarm.after(float(F.cross_entropy(old, target))),
            rows=torch.cat([self.rows, row[None]]),
            base=torch.cat([self.base, base[None]]),
            labels=torch.cat([self.labels, target]),
            n_labels=self.n_labels + 1,
        )
        draw = np.random.default_rng([settings.seed, seen.n_labels])
        seen = seen._within(settings, draw)
        if seen.n_labels % settings.meta_every == 0:
            leader, momentum = followed(
                seen.leader,
                seen.momentum,
                seen._tasks(settings, draw),
                steps=settings.inner_steps,
                rate=settings.meta_rate,
            )
            seen = replace(seen, leader=leader, momentum=momentum)
        newest = seen._numbers(max(0, len(seen.rows) - settings.window), len(seen.rows))
        support = seen._labelled(torch.cat([newest, seen._replayed(settings, draw)]))
        return replace(seen, head=adapted(seen.leader, support, steps=settings.inner_steps))

    def referenced(self) -> "Stream":
        """With the head of now as the one that is watched, and fresh alarms."""
        frozen = Frozen(self.head, self.prototypes, F.normalize(self.rows, dim=1))
        return replace(
            self,
            frozen=frozen,
            loss_alarm=self.loss_alarm.again(),
            text_alarm=self.text_alarm.again(),
            burst=self.burst.again(),
        )

    def _with_prototype(self, row: Tensor, label: int, settings: OnlineSettings) -> "Stream":
        prototypes, weights = self.prototypes.clone(), self.weights.clone()
        kept = weights[label] * 0.5 ** (1 / settings.half_life)
        prototypes[label] = (prototypes[label] * kept + row) / (kept + 1)
        weights[label] = kept + 1
        return replace(self, prototypes=prototypes, weights=weights)

    def _within(self, settings: OnlineSettings, draw: np.random.Generator) -> "Stream":
        """Without a stretch of older labels, drawn at random, where there are too many."""
        if len(self.rows) <= settings.capacity + _AHEAD:
            return self
        start = int(draw.integers(len(self.rows) - settings.window - _AHEAD))
        kept = torch.cat([self._numbers(0, start), self._numbers(start + _AHEAD, len(self.rows))])
        return replace(self, rows=self.rows[kept], base=self.base[kept], labels=self.labels[kept])

    def _replayed(self, settings: OnlineSettings, draw: np.random.Generator) -> Tensor:
        older = max(0, len(self.rows) - settings.window)
        return torch.from_numpy(draw.permutation(older)[: settings.replay]).to(self.rows.device)

    def _tasks(self, settings: OnlineSettings, draw: np.random.Generator) -> list[tuple[Labelled, Labelled]]:
        """Stretches of the stream: a window with replayed labels, and the labels that came next."""
        last = max(1, len(self.rows) - settings.window - _AHEAD)
        found = []
        for start in draw.integers(last, size=_TASKS):
            end = min(int(start) + settings.window, len(self.rows) - 1)
            first = torch.cat([self._numbers(int(start), end), self._replayed(settings, draw)])
            second = self._numbers(end, min(end + _AHEAD, len(self.rows)))
            found.append((self._labelled(first), self._labelled(second)))
        return found

    def _numbers(self, start: int, end: int) -> Tensor:
        return torch.arange(start, end, device=self.rows.device)

    def _labelled(self, index: Tensor) -> Labelled:
        rows = self.rows[index]
        return Labelled(rows, self.base[index], closeness(rows, self.prototypes), self.labels[index])


def closeness(rows: Tensor, prototypes: Tensor) -> Tensor:
    """Cosines between texts ``(n, dim)`` and prototypes, scaled, ``(n, n_way)``."""
    return _CLOSENESS * F.normalize(rows, dim=1) @ F.normalize(prototypes, dim=1).T
