"""Which of many unlabelled texts to label next."""

import numpy as np
import torch
from torch import Tensor

from nlpmeta.errors import NLPMetaError


def most_worth_labelling(probabilities: Tensor, features: Tensor, *, most: int = 10, seed: int = 0) -> list[int]:
    """Rows whose labels would change the model most and that differ from one another, the first ones first.

    Source: BADGE, Ash, Zhang, Krishnamurthy, Langford and Agarwal, ICLR 2020, algorithm 1 (arXiv:1906.03671): k-means++
    over the gradients of the loss in the last layer, were the most probable label the true one. Where we differ: the
    first text is the one with the longest gradient, and distances are computed from the two factors of each gradient,
    so that memory grows with texts and not with texts x classes x dimensions.

    Args:
        probabilities: of each text, ``(n, n_way)``.
        features: their embeddings, ``(n, dim)``.
        most: how many to name.
        seed: decides the draws.

    Raises:
        NLPMetaError: if ``most`` is less than 1.
    """
    if most < 1:
        raise NLPMetaError(f"At least one text must be asked for; got {most}.")
    chosen: list[int] = []
    rng = np.random.default_rng(seed)
    residual = probabilities.double().clone()
    residual[torch.arange(len(residual)), residual.argmax(1)] -= 1  # (n, n_way): the gradient is its product with x
    features = features.double()
    lengths = residual.square().sum(1) * features.square().sum(1)
    nearest = torch.full_like(lengths, float("inf"))
    row = int(lengths.argmax())
    while len(chosen) < min(most, len(residual)):
        chosen.append(row)
        shared = (residual @ residual[row]) * (features @ features[row])
        nearest = torch.minimum(nearest, (lengths + lengths[row] - 2 * shared).clamp(min=0))
        nearest[chosen] = 0
        total = float(nearest.sum())
        if total <= 0:  # all that is left equals what was chosen
            break
        row = int(rng.choice(len(residual), p=(nearest / total).numpy()))
    return chosen
