"""Ridge regression on one-hot targets, in closed form and differentiable: a head that can be meta-trained."""

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


@learners.register("ridge")
class RidgeHead(Learner):
    """Least squares from embeddings to one-hot labels with a learned penalty and a learned scale of the scores.

    Source: R2-D2, Bertinetto, Henriques, Torr and Vedaldi, ICLR 2019, equations 4 to 6 (arXiv:1805.08136): the system
    is solved in the size of the support (Woodbury), so the cost grows with n_support and not with dim. Where we differ:
    features and targets are centred (there is no bias to learn) and, with ``tune``, the penalty is multiplied by the
    factor with the most right leave-one-out predictions on the support, again in closed form (PRESS).
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
        rows, centre, dual = self._solved(support)
        return {"weight": (rows.T @ dual).T, "centre": centre}

    def contributions(self, state: TaskState, support: Support, queries: Texts) -> Tensor:
        """As ``SumsOverSupport``: a support text counts with its row of the dual solution."""
        rows, centre, dual = self._solved(support)
        alike = (self.embed(queries) - centre) @ rows.T
        return with_rows(self.log_scale.exp() * torch.einsum("qs,sc->qsc", alike, dual), support)

    def _solved(self, support: Support) -> tuple[Tensor, Tensor, Tensor]:
        """Centred embeddings ``(n, dim)``, their centre ``(dim,)`` and the dual solution ``(n, n_way)``."""
        features = self.embed(support)
        targets = F.one_hot(support.labels, support.n_way).to(features)
        if support.weights is None:
            centre = features.mean(0)
            rows, targets = features - centre, targets - targets.mean(0)
        else:  # least squares with a weight a row: both sides times its root
            share = (support.weights / support.weights.sum()).to(features).unsqueeze(1)
            centre, root = (share * features).sum(0), support.weights.to(features).sqrt().unsqueeze(1)
            rows, targets = root * (features - centre), root * (targets - (share * targets).sum(0))
        gram = rows @ rows.T
        penalty = self.log_penalty.exp()
        if self.tune:
            penalty = penalty * _best_factor(gram, targets, support.labels, penalty)
        dual = torch.linalg.solve(gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), targets)
        return rows, centre, dual

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        return self.log_scale.exp() * F.linear(self.embed(queries) - state["centre"], state["weight"])

    def config(self) -> dict[str, Option]:
        return {"tune": self.tune}


@torch.no_grad()
def _best_factor(gram: Tensor, targets: Tensor, labels: Tensor, penalty: Tensor) -> float:
    """The factor on ``penalty`` with the most right leave-one-out predictions.

    A class with one text predicts nothing once that text is left out, so such texts are not counted; where no class has
    two the factor is 1.
    """
    counted = torch.bincount(labels)[labels] > 1
    if not bool(counted.any()):
        return 1.0
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)

    def right(factor: float) -> int:
        inverse = torch.linalg.inv(gram + factor * penalty * identity)
        left_out = targets - (inverse @ targets) / inverse.diagonal().unsqueeze(1)
        return int((left_out[counted].argmax(1) == labels[counted]).sum())

    return max(FACTORS, key=right)
