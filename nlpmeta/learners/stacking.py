"""Weights for several heads, from how likely each makes texts that it did not learn from."""

import torch
import torch.nn.functional as F
from torch import Tensor

_ROUNDS = 100


def stacked(log_probabilities: Tensor, labels: Tensor, prior: Tensor, *, strength: float) -> Tensor:
    """The weights of the mixture of heads that makes the held-out labels most likely, shape ``(n_heads,)``.

    Source: stacking of predictive distributions, Yao, Vehtari, Simpson and Gelman, Bayesian Analysis 2018, equation 4
    (arXiv:1704.02030), by expectation maximisation. Where we differ: a Dirichlet prior around weights that were good on
    other tasks, because the labels of a handful of texts say little about weights.

    Args:
        log_probabilities: of the classes of held-out texts under each head, ``(n_heads, n, n_way)``.
        labels: the true classes, ``(n,)``.
        prior: weights that were good on other tasks, ``(n_heads,)``, of sum 1; a head with 0 stays out.
        strength: how many texts the prior counts as.
    """
    # A hundred small rounds in float64, which some accelerators lack: they are the CPU's.
    log_probabilities, labels = log_probabilities.cpu().double(), labels.cpu()
    likely = log_probabilities[:, torch.arange(len(labels), device="cpu"), labels]  # (n_heads, n)
    likely = (likely - likely.max(0).values).exp()
    prior = prior.to(likely)
    weights = prior.clone()
    for _ in range(_ROUNDS if len(labels) else 0):
        shares = weights.unsqueeze(1) * likely
        shares = shares / shares.sum(0).clamp(min=1e-300)
        new = shares.sum(1) + strength * prior
        new = new / new.sum()
        done = bool((new - weights).abs().max() < 1e-6)
        weights = new
        if done:
            break
    return weights


def mixed(log_probabilities: Tensor, weights: Tensor) -> Tensor:
    """The logarithm of the weighted mean of probabilities ``(n_heads, n, n_way)``; shape ``(n, n_way)``."""
    shares = weights.to(log_probabilities).clamp(min=1e-30).log().view(-1, 1, 1)
    return torch.logsumexp(log_probabilities + shares, dim=0)


def fitting_temperature(scores: Tensor, labels: Tensor, temperatures: Tensor, *, doubt: float) -> float:
    """The temperature among ``temperatures`` at which ``labels`` ``(n,)`` are most likely, scores ``(n, n_way)``.

    Source: temperature scaling, Guo, Pleiss, Sun and Weinberger, ICML 2017, equation 9 (arXiv:1706.04599), with labels
    that are smoothed by ``doubt``: a handful of right answers is no ground for certainty.
    """
    losses = [F.cross_entropy(scores / t, labels, label_smoothing=doubt) for t in temperatures]
    return float(temperatures[int(torch.stack(losses).argmin())])
