"""Label sets that hold the true label as often as was asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.experience import Profile

if TYPE_CHECKING:
    from numpy.typing import NDArray


def held_out_quantiles(likelihood: Tensor, levels: Sequence[float]) -> "NDArray[np.float64]":
    """The log probabilities that the true class of a held-out text reaches with the probability of each level.

    Args:
        likelihood: log probabilities of the true classes of held-out texts, ``(n,)``.
        levels: probabilities.
    """
    values = np.asarray(likelihood.tolist(), dtype=np.float64)
    found: NDArray[np.float64] = np.quantile(values, 1 - np.asarray(levels), method="inverted_cdf")
    return found


def threshold(profile: Profile, likelihood: Tensor, *, n_shot: float, n_way: int, coverage: float) -> float:
    """The log probability above which a label belongs to the set, for sets that hold the true one with ``coverage``.

    Source: few-shot conformal prediction with auxiliary tasks, Fisch et al., ICML 2021 (arXiv:2102.08898), on the score
    of Sadinle, Lei and Wasserman 2019 (arXiv:1609.00451), the probability of the label. The coverage is that over many
    tasks like the auxiliary ones, not a promise for each single one: a handful of texts cannot give that.

    Args:
        profile: what was learned on the auxiliary tasks.
        likelihood: log probabilities of the true classes of held-out support texts; empty if none could be held out.
        n_shot: support texts of a class, on average.
        n_way: how many classes.
        coverage: between the lowest and the highest of ``profile.levels``.

    Raises:
        NLPMetaError: if it is not.
    """
    low, high = profile.levels[0], profile.levels[-1]
    if not low <= coverage <= high:
        raise NLPMetaError(f"abstain takes a coverage from {low} to {high}; got {coverage}.")
    known = held_out_quantiles(likelihood, profile.levels) if len(likelihood) else None
    values = profile.quantiles.at(known, n_texts=len(likelihood), n_shot=n_shot, n_way=n_way)
    falling = np.minimum.accumulate(values)  # a set for a higher coverage is never the smaller one
    return float(np.interp(coverage, profile.levels, falling))
