"""How alike texts and classes are, on a scale that serves tasks of every kind."""

import torch
import torch.nn.functional as F
from torch import Tensor


def likeness(features: Tensor, prototypes: Tensor, *, n_views: int) -> Tensor:
    """The largest cosine of each text to a mean vector of a class, ``(n,)``.

    The scale: 0 is how alike the mean vectors are to one another and 1 is their own, the mean over views.

    Args:
        features: of the texts in all views, ``(n, n_views * dim)``.
        prototypes: mean vectors of the classes, ``(n_way, n_views * dim)``.
        n_views: how many views stand side by side.
    """
    found = [
        _scaled((F.normalize(part, dim=1) @ F.normalize(means, dim=1).T).max(1).values, means)
        for part, means in zip(features.chunk(n_views, 1), prototypes.chunk(n_views, 1), strict=True)
    ]
    return torch.stack(found).mean(0)


def usual_likeness(features: Tensor, labels: Tensor, prototypes: Tensor, *, n_views: int) -> Tensor | None:
    """The median ``likeness`` of support texts, each to the means without itself; ``None`` if no class has two texts.

    Args:
        features: of the support, ``(n, n_views * dim)``.
        labels: of the support, ``(n,)``.
        prototypes: their mean vectors, ``(n_way, n_views * dim)``.
        n_views: how many views stand side by side.
    """
    counts = torch.bincount(labels, minlength=len(prototypes))[labels]
    kept = counts > 1
    if not bool(kept.any()):
        return None
    features, labels, counts = features[kept], labels[kept], counts[kept, None]
    others = (prototypes[labels] * counts - features) / (counts - 1)  # the mean of the class without the text itself
    found = []
    for part, own, means in zip(*(each.chunk(n_views, 1) for each in (features, others, prototypes)), strict=True):
        part, own = F.normalize(part, dim=1), F.normalize(own, dim=1)
        alike = part @ F.normalize(means, dim=1).T
        alike = alike.scatter(1, labels[:, None], (part * own).sum(1, keepdim=True))
        found.append(_scaled(alike.max(1).values, means))
    return torch.stack(found).mean(0).median()


def _scaled(nearest: Tensor, means: Tensor) -> Tensor:
    means, n_way = F.normalize(means, dim=1), len(means)
    alike = means @ means.T
    among = (alike.sum() - alike.diagonal().sum()) / (n_way * (n_way - 1))
    return (nearest - among) / (1 - among).clamp(min=1e-6)
