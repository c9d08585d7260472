"""The learner that chooses: several heads on one encoder, the best on the support set alone."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.learners.base import Learner, Support, TaskState, Texts, learners
from nlpmeta.learners.knn import NearestNeighbours
from nlpmeta.learners.logistic import ONE_SHOT as ONE_SHOT_PENALTY
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

N_FOLDS = 5
ONE_SHOT = "ridge"


@learners.register("auto")
class AutoHead(Learner):
    """Adapts with the head that predicts held-out folds of the support set best.

    With one text of some class nothing can be held out, and ``ONE_SHOT`` is used.
    The choice is by cross-validated accuracy, ties by log-loss. The state keeps the tensors of the chosen head under
    ``<name>/``, so that it says itself what was chosen.
    """

    differentiable = False

    def __init__(self, encoder: "TextEncoder") -> None:
        super().__init__(encoder)
        self._heads: dict[str, Learner] = {
            "ridge": RidgeHead(encoder),
            "logistic": LogisticHead(encoder),
            "prototypical": PrototypicalNetwork(encoder),
            "knn": NearestNeighbours(encoder),
        }
        # While folds are compared, logistic regression keeps one penalty: a choice within each fold would cost 20 times
        # as much. The head that is chosen then tunes itself on the whole support.
        self._rivals = {**self._heads, "logistic": LogisticHead(encoder, inverse_penalty=ONE_SHOT_PENALTY)}

    def adapt(self, support: Support) -> TaskState:
        known = Support(support.texts, self.embed(support), support.labels, support.n_way)
        name = self._choose(known)
        return {f"{name}/{key}": value for key, value in self._heads[name].adapt(known).items()}

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        head = self._heads[self.choice(state)]
        return head.logits({key.partition("/")[2]: value for key, value in state.items()}, queries)

    def choice(self, state: TaskState) -> str:
        return next(iter(state)).partition("/")[0]

    @torch.no_grad()
    def _choose(self, support: Support) -> str:
        n_folds = min(N_FOLDS, int(torch.bincount(support.labels).min()))
        if n_folds < 2:
            return ONE_SHOT
        fold = _folds(support.labels, n_folds)
        scores = {name: [self._held_out(name, support, fold == i) for i in range(n_folds)] for name in self._rivals}
        return max(scores, key=lambda name: tuple(map(sum, zip(*scores[name], strict=True))))

    def _held_out(self, name: str, support: Support, out: Tensor) -> tuple[float, float]:
        """Right answers and log-likelihood on the texts of one fold, after adapting to the others."""
        head, features = self._rivals[name], self.embed(support)
        kept = _part(support, features, ~out)
        logits = head.logits(head.adapt(kept), Texts(_rows(support.texts, out), features[out]))
        labels = support.labels[out]
        return float((logits.argmax(1) == labels).sum()), -float(F.cross_entropy(logits, labels, reduction="sum"))


def _folds(labels: Tensor, n_folds: int) -> Tensor:
    """A fold for each text, classes spread evenly; shape ``(n,)``."""
    fold = torch.empty_like(labels)
    for label in range(int(labels.max()) + 1):
        rows = torch.nonzero(labels == label).squeeze(1)
        fold[rows] = torch.arange(len(rows), device=labels.device) % n_folds
    return fold


def _part(support: Support, features: Tensor, kept: Tensor) -> Support:
    return Support(_rows(support.texts, kept), features[kept], support.labels[kept], support.n_way)


def _rows(texts: tuple[str, ...], kept: Tensor) -> tuple[str, ...]:
    return tuple(text for text, keep in zip(texts, kept.tolist(), strict=True) if keep)
