"""Texts that belong to none of the classes: how unlike the support set they are, and how undecided the scores."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

N_CLUES = 5


def scope_clues(
    log_probabilities: Tensor, features: Tensor, prototypes: Tensor, *, n_views: int, n_shot: float
) -> Tensor:
    """What speaks for a text being in scope, ``(n, N_CLUES)``, in float64 on the CPU.

    The log odds of the most probable class; the largest cosine to a mean vector of a class, on a scale where 0 is how
    alike these vectors are to one another and 1 is their own (the mean over views, as in Podolskiy et al. 2021,
    arXiv:2101.03778, distances in the space of embeddings see more than probabilities); and, so that one threshold can
    serve all tasks, the logarithms of ways and shots, and a constant.

    Args:
        log_probabilities: of the classes, ``(n, n_way)``.
        features: embeddings of the texts in all views, ``(n, n_views * dim)``.
        prototypes: mean embeddings of the classes, ``(n_way, n_views * dim)``.
        n_views: how many views the embeddings have side by side.
        n_shot: support texts of a class, on average.
    """
    best = log_probabilities.max(1).values.cpu().double().clamp(max=-1e-6)
    odds = best - torch.log1p(-best.exp())
    likeness = [
        _likeness(*parts) for parts in zip(features.chunk(n_views, 1), prototypes.chunk(n_views, 1), strict=True)
    ]
    near = torch.stack(likeness).mean(0).cpu().double()
    n_way = torch.full_like(odds, log_probabilities.size(1)).log()
    shots = torch.full_like(odds, n_shot).log()
    return torch.stack([odds, near, n_way, shots, torch.ones_like(odds)], dim=1)


def scope_scores(clues: Tensor, weights: "Sequence[float]") -> Tensor:
    """How probable it is that a text is out of scope where half of all texts are, ``(n,)``."""
    return torch.sigmoid(-(clues @ torch.tensor(weights, dtype=clues.dtype, device=clues.device)))


def _likeness(features: Tensor, prototypes: Tensor) -> Tensor:
    features, prototypes = F.normalize(features, dim=1), F.normalize(prototypes, dim=1)
    n_way = len(prototypes)
    alike = prototypes @ prototypes.T
    among = (alike.sum() - alike.diagonal().sum()) / (n_way * (n_way - 1))
    nearest = (features @ prototypes.T).max(1).values
    return (nearest - among) / (1 - among).clamp(min=1e-6)
