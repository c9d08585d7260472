"""What a support set says of the heads of ``auto``: how likely each makes texts that it did not learn from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlpmeta.learners.base import Support
from nlpmeta.learners.heads import n_folds
from nlpmeta.learners.stacking import fitting_temperature, mixed

TEMPERATURES = torch.logspace(-3, 3, 31, base=2.0, device="cpu")
BALANCE = 0.75
"""How much of the lead that more examples give a class is taken back: chosen on auxiliary tasks
(``benchmarks/unbalanced.py``)."""
JUDGE_AGAIN = 1.5
"""Heads are judged anew once a support set has grown, or shrunk, by this factor since they were judged last."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What the support set says of the heads.

    ``held_out`` are log probabilities ``(n_heads, n_support, n_way)`` of texts that were held out, ``None`` where a
    class has one text only; ``temperatures`` are what the scores of each head are divided by.
    """

    heads: tuple[str, ...]
    temperatures: tuple[float, ...]
    held_out: Tensor | None

    @classmethod
    def of(cls, heads: Sequence[str], scores: Sequence[Tensor], labels: Tensor) -> "Judged":
        """Judge heads by their ``scores`` ``(n_support, n_way)`` of texts that were held out."""
        doubt = 1 / (len(labels) + 1)  # as if one more text had every class alike
        over = [fitting_temperature(each, labels, TEMPERATURES, doubt=doubt) for each in scores]
        lead = leads(labels, scores[0].size(1)).to(scores[0])
        parts = [(each / t - lead).log_softmax(1) for each, t in zip(scores, over, strict=True)]
        return cls(tuple(heads), tuple(over), torch.stack(parts))


def leads(labels: Tensor, n_way: int) -> Tensor:
    """What the score of each class is lowered by as it has more examples than the smallest one, ``(n_way,)``.

    Source: logit adjustment, Menon et al., ICLR 2021, equation 9 (arXiv:2007.07314). Where we differ: three quarters of
    the adjustment, because how many examples a class has may also say how frequent it is. With as many examples of
    every class it is exactly 0.
    """
    counts = torch.bincount(labels, minlength=n_way)
    return BALANCE * (counts / counts.min()).log()


def held_out_likelihood(judged: Judged, weights: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The log probabilities of the true classes of the texts that were held out, rising; ``(0,)`` if none were."""
    if judged.held_out is None:
        return torch.empty(0, device=labels.device)
    scores = (mixed(judged.held_out, weights) / temperature).log_softmax(1)
    return scores[torch.arange(len(labels), device=labels.device), labels].sort().values


def judged_on(known: Support) -> Tensor:
    """What must stay about the same for a judgement to hold: texts, folds, and whether names are read, ``(3,)``."""
    facts = [len(known), min(n_folds(known), 2), known.names is not None]
    return torch.tensor(facts, device=known.labels.device)


def still_judged(then: Tensor | None, now: Tensor) -> bool:
    """Whether what was judged ``then`` need not be judged anew; both from ``judged_on``."""
    if then is None or not torch.equal(then[1:], now[1:]):
        return False
    return max(int(then[0]), int(now[0])) < JUDGE_AGAIN * min(int(then[0]), int(now[0]))
