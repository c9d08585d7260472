"""Ridge regression on one-hot targets, in closed form and differentiable: a head that can be meta-trained."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.learners.abilities import with_rows
from nlpmeta.learners.base import Learner, Option, Support, TaskState, Texts, learners
from nlpmeta.settings import check_positive

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

FACTORS = (1.0, 3.0, 0.3)
"""Tried in this order; the first of equals wins."""
IN_DIM = 500
"""With more texts than this, and than an embedding has numbers, the system is solved in the size of an embedding."""


@learners.register("ridge")
class RidgeHead(Learner):
    """Least squares from embeddings to one-hot labels with a learned penalty and a learned scale of the scores.

    Source: R2-D2, Bertinetto, Henriques, Torr and Vedaldi, ICLR 2019, equations 4 to 6 (arXiv:1805.08136): the system
    is solved in the size of the support (Woodbury), or in that of an embedding where the support is larger, so that the
    cost grows linearly with the texts. Where we differ: features and targets are centred (there is no bias to learn)
    and, with ``tune``, the penalty is multiplied by the factor with the most right leave-one-out predictions on the
    support, again in closed form (PRESS).
    """

    weighs = True

    def __init__(self, encoder: "TextEncoder", *, penalty: float = 0.3, scale: float = 20.0, tune: bool = True) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors.
            penalty: weight of the squared norm at the start; learned in meta-training.
            scale: what scores are multiplied by at the start; learned in meta-training.
            tune: choose a factor on the penalty on the support set alone.

        Raises:
            NLPMetaError: if penalty or scale is not positive.
        """
        super().__init__(encoder)
        check_positive(penalty=penalty, scale=scale)
        self.tune = tune
        self.log_penalty = nn.Parameter(torch.tensor(penalty, device=encoder.device).log())
        self.log_scale = nn.Parameter(torch.tensor(scale, device=encoder.device).log())

    def adapt(self, support: Support) -> TaskState:
        _, centre, weight, _ = self._solved(support)
        return {"weight": weight.T, "centre": centre}

    def contributions(self, state: TaskState, support: Support, queries: Texts) -> Tensor:
        """As ``SumsOverSupport``: a support text counts with its row of the dual solution."""
        rows, centre, _, dual = self._solved(support)
        alike = (self.embed(queries) - centre) @ rows.T
        return with_rows(self.log_scale.exp() * torch.einsum("qs,sc->qsc", alike, dual), support)

    def _solved(self, support: Support) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centred embeddings ``(n, dim)``, their centre ``(dim,)``, weight ``(dim, n_way)`` and dual ``(n, n_way)``."""
        features = self.embed(support)
        targets = F.one_hot(support.labels, support.n_way).to(features)
        if support.weights is None:
            centre = features.mean(0)
            rows, targets = features - centre, targets - targets.mean(0)
        else:  # least squares with a weight a row: both sides times its root
            share = (support.weights / support.weights.sum()).to(features).unsqueeze(1)
            centre, root = (share * features).sum(0), support.weights.to(features).sqrt().unsqueeze(1)
            rows, targets = root * (features - centre), root * (targets - (share * targets).sum(0))
        penalty, many = self.log_penalty.exp(), len(rows) > max(IN_DIM, rows.size(1))
        gram = rows.T @ rows if many else rows @ rows.T
        if self.tune:
            left_out = _left_out_in_dim(rows, gram, targets) if many else _left_out(gram, targets)
            penalty = penalty * _best_factor(left_out, support.labels, penalty)
        system = gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        if many:
            weight = torch.linalg.solve(system, rows.T @ targets)
            return rows, centre, weight, (targets - rows @ weight) / penalty
        dual = torch.linalg.solve(system, targets)
        return rows, centre, rows.T @ dual, dual

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        return self.log_scale.exp() * F.linear(self.embed(queries) - state["centre"], state["weight"])

    def config(self) -> dict[str, Option]:
        return {"tune": self.tune}


@torch.no_grad()
def _best_factor(left_out: Callable[[Tensor], Tensor], labels: Tensor, penalty: Tensor) -> float:
    """The factor on ``penalty`` with the most right leave-one-out predictions, which ``left_out`` gives for a penalty.

    A class with one text predicts nothing once that text is left out, so such texts are not counted; where no class has
    two the factor is 1.
    """
    counted = torch.bincount(labels)[labels] > 1
    if not bool(counted.any()):
        return 1.0

    def right(factor: float) -> int:
        return int((left_out(factor * penalty)[counted].argmax(1) == labels[counted]).sum())

    return max(FACTORS, key=right)


def _left_out(gram: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Leave-one-out predictions ``(n, n_way)`` from the inner products of all texts ``(n, n)``."""
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)

    def left_out(penalty: Tensor) -> Tensor:
        inverse = torch.linalg.inv(gram + penalty * identity)
        found: Tensor = targets - (inverse @ targets) / inverse.diagonal().unsqueeze(1)
        return found

    return left_out


@torch.no_grad()
def _left_out_in_dim(rows: Tensor, gram: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """The same from those of the columns ``(dim, dim)``: the residual of a text over one minus its leverage."""
    values, vectors = torch.linalg.eigh(gram)
    turned = rows @ vectors
    sums = turned.T @ targets

    def left_out(penalty: Tensor) -> Tensor:
        inverse = 1 / (values.clamp(min=0) + penalty)
        leverage = turned.square() @ inverse
        found: Tensor = targets - (targets - turned @ (inverse.unsqueeze(1) * sums)) / (1 - leverage).unsqueeze(1)
        return found

    return left_out
