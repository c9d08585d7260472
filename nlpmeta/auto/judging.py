"""What a support set says of the heads of ``auto``: how likely each makes texts that it did not learn from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.auto.heads import BALANCE, LIKE, Candidate, features_of, has_many, seen
from nlpmeta.auto.mixture import mixed
from nlpmeta.encoder.views import PASSES, ScaledEncoder
from nlpmeta.episodes import by_label, deal_folds, most_have
from nlpmeta.learners.base import Learner, Support, Texts

if TYPE_CHECKING:
    from nlpmeta.auto.priors import Profile
    from nlpmeta.encoder.text_encoder import TextEncoder

TEMPERATURES = torch.logspace(-3, 3, 31, base=2.0, device="cpu")
JUDGE_AGAIN = 1.5
"""Heads are cross-validated again once the support set has grown or shrunk by this factor."""
SMALLEST_SHARE = 0.05
"""A head that would count for less is left out."""
WORTH_A_PASS = 0.25
"""A pass of the encoder, half the cost of a prediction, is left out if all heads that need it count for less."""
WORTH_TUNING, ALIKE = 1.0, 4.0
"""How much likelier, in the logarithm, fine-tuning must make the held-out texts together to be worth a further pass; as
how many texts it counts that heads and fine-tuning are thought alike before any is looked at."""
HELD_ON = 4.0
"""How much the usual temperature of a mixture is held on to; chosen on auxiliary tasks, each without its kind."""
_ROUNDS = 100
_FOLDS, _FEW_FOLDS, _MANY_TEXTS = 5, 3, 300


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Cross-validation of the heads on the support set.

    ``held_out`` are log probabilities ``(n_heads, n_held_out, n_way)`` of the texts in ``rows_held_out``, ``None``
    where half of the classes or more have one text; ``temperatures`` are what the scores of each head are divided by.
    """

    heads: tuple[str, ...]
    temperatures: tuple[float, ...]
    held_out: Tensor | None

    @classmethod
    def of(
        cls, heads: Sequence[str], scores: Sequence[Tensor], labels: Tensor, profile: "Profile"
    ) -> "CrossValidation":
        """Judge heads by their ``scores`` ``(n_held_out, n_way)``; ``labels`` are those of the support."""
        n_way = scores[0].size(1)
        doubt = 1 / (len(scores[0]) + 1)  # as if one more text had every class alike
        usual = profile.temperatures_of(len(labels) / n_way, n_way)
        fitting = partial(fitting_temperature, temperatures=TEMPERATURES, strength=profile.temperature_strength)
        over = [
            fitting(*without_lone(each, labels), doubt=doubt, usual=usual.get(name))
            for name, each in zip(heads, scores, strict=True)
        ]
        lead = leads(labels, n_way).to(scores[0])
        parts = [(each / t - lead).log_softmax(1) for each, t in zip(scores, over, strict=True)]
        return cls(tuple(heads), tuple(over), torch.stack(parts))


def judge(
    encoder: "TextEncoder", candidates: Mapping[str, Candidate], known: Support, profile: "Profile"
) -> CrossValidation:
    """Hold out folds of the support for each of ``candidates``, and find the temperature of its scores.

    Args:
        encoder: what embedded the support.
        candidates: the heads that differ on this support.
        known: the support with its embeddings.
        profile: what is known of the heads from other tasks.
    """
    folds = n_folds(known)
    if folds < 2:
        usual = profile.temperatures_of(len(known) / known.n_way, known.n_way)
        return CrossValidation(tuple(candidates), tuple(usual[name] for name in candidates), None)
    scores = [held_out_scores(each.head, seen(encoder, known, each), folds) for each in candidates.values()]
    return CrossValidation.of(tuple(candidates), scores, known.labels, profile)


def weights(
    encoder: "TextEncoder",
    candidates: Mapping[str, Candidate],
    known: Support,
    profile: "Profile",
    judged: CrossValidation,
) -> Tensor:
    """The weight of each judged head, 0 for those that are left out, shape ``(n_heads,)``; arguments as ``judge``."""
    if len(judged.heads) == 1:
        return features_of(known).new_ones(1)
    alike = [LIKE.get(name, name) for name in judged.heads]
    prior = profile.prior_of(alike, len(known) / known.n_way, known.n_way)
    found = prior
    if judged.held_out is not None:
        # The fewer classes, the less alike are tasks of that size, and the more likely one needs an unusual head.
        open_minded = prior + (1 / len(prior) - prior) / known.n_way
        found = stacked(*without_lone(judged.held_out, known.labels), open_minded, strength=profile.strength)
    if isinstance(encoder, ScaledEncoder):
        for views in PASSES:
            reads = [not {*views}.isdisjoint(candidates[name].scales) for name in judged.heads]
            its = found * torch.tensor(reads, device=found.device)
            found = found - its if float(its.sum()) < WORTH_A_PASS * float(found.sum()) else found
    found = found * (found >= min(SMALLEST_SHARE * float(found.sum()), float(found.max())))
    return (found / found.sum()).to(features_of(known))


def n_folds(support: Support) -> int:
    """Into how many folds a support is parted; 1 if half of the classes or more have one text, or names stand in."""
    counts: list[int] = torch.bincount(support.labels).tolist()
    if support.stand_in is not None or not most_have(counts, 2):
        return 1
    wanted = _FOLDS if len(support) <= _MANY_TEXTS else _FEW_FOLDS
    return min(wanted, *(count for count in counts if count > 1))


def rows_held_out(labels: Tensor) -> Tensor:
    """Of a support with folds, the rows of all texts that are not the only one of their class, ``(n_held_out,)``."""
    return torch.nonzero(torch.bincount(labels)[labels] > 1).squeeze(1)


def without_lone(held_out: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What was held out, ``(..., n_held_out, n_way)``, as if the classes with one text did not exist, and the labels.

    No held-out text is of these, so heads that never predict them would seem the best.
    """
    classes = torch.nonzero(torch.bincount(labels) > 1).squeeze(1)
    own = torch.searchsorted(classes, labels[rows_held_out(labels)])
    if len(classes) == held_out.size(-1):
        return held_out, own
    return held_out[..., classes].log_softmax(-1), own


def held_out_scores(head: Learner, support: Support, folds: int) -> Tensor:
    """Scores ``(n_held_out, n_way)`` of the texts in ``rows_held_out`` by the head that was adapted to the other folds.

    Args:
        head: works on embeddings.
        support: with its embeddings.
        folds: how many, as ``n_folds`` has them.
    """
    fold, rows = _folds_of(support, folds), torch.arange(len(support), device=support.labels.device)
    parts, order = [], []
    for i in range(folds):
        out = fold == i
        queries = Texts(("",) * int(out.sum()), features_of(support)[out])
        parts.append(head.logits(head.adapt(_rows(support, ~out)), queries))
        order.append(rows[out])
    return torch.cat(parts)[torch.cat(order).argsort()]


def _folds_of(support: Support, folds: int) -> Tensor:
    """A fold for each text, ``(n,)``, whatever order the texts are in; -1 for the only one of its class."""
    rng, labels = np.random.default_rng(0), support.labels
    order = np.asarray(sorted(range(len(support)), key=support.texts.__getitem__))
    classes = [order[rows] for rows in by_label(labels.cpu().numpy()[order]) if len(rows) > 1]
    return torch.from_numpy(deal_folds(classes, folds, n_rows=len(order), order=rng.permutation)).to(labels.device)


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


def beside(heads: Tensor, tuned: Tensor, labels: Tensor) -> tuple[float, Tensor] | None:
    """The share of fine-tuning beside the heads, and the log probabilities of the true classes then, rising.

    Args:
        heads: scores of texts that were held out by the mixture of the heads, ``(n, n_way)``.
        tuned: those by fine-tuning.
        labels: the true classes, ``(n,)``.

    Returns:
        ``None`` if the texts become likelier by less than ``WORTH_TUNING``.
    """
    both, own = torch.stack([heads, tuned.to(heads)]).log_softmax(2), labels.unsqueeze(1)
    shares = stacked(both, labels, torch.full((2,), 0.5, device="cpu"), strength=ALIKE)
    likely = mixed(both, shares).gather(1, own).squeeze(1)
    if float(likely.sum() - both[0].gather(1, own).sum()) < WORTH_TUNING:
        return None
    return float(shares[1]), likely.sort().values


def fitting_temperature(
    scores: Tensor,
    labels: Tensor,
    temperatures: Tensor,
    *,
    doubt: float,
    usual: float | None = None,
    strength: float = 0.0,
) -> float:
    """The temperature among ``temperatures`` at which ``labels`` ``(n,)`` are most likely, scores ``(n, n_way)``.

    Source: temperature scaling, Guo, Pleiss, Sun and Weinberger, ICML 2017, equation 9 (arXiv:1706.04599), with labels
    that are smoothed by ``doubt``: a handful of right answers is no ground for certainty. Where we differ: a handful
    says little about temperatures, so one that is ``d`` doublings from the ``usual`` one costs ``strength`` times
    ``log(1 + d * d)`` in the logarithm of the likelihood of all labels; little more for four doublings than for three,
    as an encoder may have scores of another size than those that the usual ones are from.
    """
    losses = torch.stack(
        [F.cross_entropy(scores / t, labels, label_smoothing=doubt, reduction="sum") for t in temperatures]
    )
    if usual is not None:
        losses = losses + strength * (temperatures.log2() - math.log2(usual)).square().log1p().to(losses)
    return float(temperatures[int(losses.argmin())])


def leads(labels: Tensor, n_way: int) -> Tensor:
    """What the score of each class is lowered by as it has more examples than the smallest one, ``(n_way,)``.

    Source: logit adjustment, Menon et al., ICLR 2021, equation 9 (arXiv:2007.07314). Where we differ: three quarters of
    the adjustment, because how many examples a class has may also say how frequent it is. With as many examples of
    every class it is exactly 0.
    """
    counts = torch.bincount(labels, minlength=n_way)
    return BALANCE * (counts / counts.min()).log()


def mixture_temperature(held_out: Tensor | None, labels: Tensor, usual: float) -> float:
    """What the scores of a mixture are divided by, near the ``usual`` value.

    Args:
        held_out: its log probabilities of held-out texts, ``(n_held_out, n_way)``; ``None`` if none were.
        labels: of the support.
        usual: what is right for most tasks of that size.
    """
    if held_out is None:
        return usual
    near, (scores, own) = TEMPERATURES * usual, without_lone(held_out, labels)
    return fitting_temperature(scores, own, near, doubt=1 / (len(own) + 1), usual=usual, strength=HELD_ON)


def held_out_likelihood(held_out: Tensor | None, labels: Tensor, temperature: float) -> Tensor:
    """The log probabilities of the true classes of the texts that were held out, rising; ``(0,)`` if none were."""
    if held_out is None:
        return torch.empty(0, device=labels.device)
    scores = (held_out / temperature).log_softmax(1)
    return scores.gather(1, labels[rows_held_out(labels)].unsqueeze(1)).squeeze(1).sort().values


def judged_on(known: Support) -> Tensor:
    """What must stay about the same for a judgement to hold, ``(4,)``.

    That is how many texts and folds there are, whether names are read, and how many classes have one text only. Two
    folds and more count as three where there are so many examples that heads are added.
    """
    folds = 0 if known.stand_in is not None else min(n_folds(known), 2 + has_many(known))
    lone = int((torch.bincount(known.labels) == 1).sum())
    facts = [len(known), folds, known.names is not None, lone]
    return torch.tensor(facts, device=known.labels.device)


def still_judged(then: Tensor | None, now: Tensor) -> bool:
    """Whether what was judged ``then`` need not be judged anew; both from ``judged_on``."""
    if then is None or not torch.equal(then[1:], now[1:]):
        return False
    return max(int(then[0]), int(now[0])) < JUDGE_AGAIN * min(int(then[0]), int(now[0]))


def _rows(support: Support, kept: Tensor) -> Support:
    texts = tuple(compress(support.texts, kept.tolist()))
    return Support(texts, features_of(support)[kept], support.labels[kept], support.n_way, support.names)
