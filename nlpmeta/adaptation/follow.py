"""Follow the meta leader: a head that is learned so that a few steps on the newest labels make it fit the next ones."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.learners.base import TaskState

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
