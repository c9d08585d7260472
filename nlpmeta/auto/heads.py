"""Candidate heads and the adapter scales at which they read the encoder; those of several labels, put together."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.encoder.merged import INNER
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.views import ADAPTED, FROZEN, ScaledEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, Support, TaskState, Texts
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead

MANY_SHOTS = 20
"""Examples of each class, on average, from which on there are heads that are regularised more."""
INVERSE_PENALTY, INVERSE_PENALTY_OF_MANY = 100.0, 3.0
"""Of logistic regression: almost none suits a few clear examples, many noisy ones want some. The second was chosen on
datasets that recipes/wide.yaml reserves for model selection, MASSIVE Afrikaans and Liu."""
LIKE = {
    "regularised logistic": "logistic",
    "regularised logistic on both": "logistic on both",
    "regularised logistic on frozen": "logistic on frozen",
    "regularised logistic on lower layers": "logistic on lower layers",
}
"""These heads by name, and the one among those of few examples that each is weighed like beforehand."""
NAME_WEIGHT = 2.0
MISLEADING = 3.0
"""How much less likely than by chance, in the logarithm, the names of classes must make single examples before they are
not read: a factor of twenty. Chosen on the tasks that priors are learned from (``benchmarks/misleading_names.py``)."""
NAMES_ALONE = "prototypical"
"""The head for classes that are known by their names alone, as in the episodes of names that it was meta-trained on."""
TUNED = "tuned"
"""The part that is fine-tuned to the task, where there was time for it; all others are heads on embeddings."""
BY_NAMES = {"names as 8 texts": 8.0, "names as 32 texts": 32.0}
"""The heads that trust the names of classes more than a handful of examples, and how many a name counts as."""
WITHOUT_NAMES = "logistic without names"
NAMED = (WITHOUT_NAMES, *BY_NAMES)
"""The heads that are the same as others where the names of the classes say nothing."""
BALANCE = 0.75
"""How much of the lead of classes with more examples is taken back; chosen by ``benchmarks/unbalanced.py``."""
CLASS_PRIOR = "mixture/class_prior"
"""How often each class occurs, ``(n_way,)`` of sum 1, in the state of a task where that was said."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A head and what it sees of the encoder: the scales of its adapters; none if it reads tokens."""

    head: Learner
    scales: tuple[float, ...]


def has_many(support: Support) -> bool:
    """Whether classes have ``MANY_SHOTS`` examples on average."""
    return len(support) >= MANY_SHOTS * support.n_way


def candidates(
    encoder: "TextEncoder", *, two_views: bool, temperature: float, name_weight: float
) -> dict[str, Candidate]:
    """The heads by name, the same in every process.

    Args:
        encoder: texts to vectors.
        two_views: whether there is a frozen encoder beside the adapted one.
        temperature: of the prototypes that read names.
        name_weight: how many texts the name of a class counts as, for these.
    """
    named = LogisticHead(encoder, inverse_penalty=INVERSE_PENALTY, name_weight=NAME_WEIGHT)
    plain = LogisticHead(encoder, inverse_penalty=INVERSE_PENALTY)
    cosine = partial(PrototypicalNetwork, encoder, metric="cosine", temperature=temperature, names=True)
    ridge = RidgeHead(encoder)
    found = {
        "logistic": Candidate(named, (ADAPTED,)),
        WITHOUT_NAMES: Candidate(plain, (ADAPTED,)),
        "prototypical": Candidate(cosine(name_weight=name_weight), (ADAPTED,)),
        "ridge": Candidate(ridge, (ADAPTED,)),
        **{name: Candidate(cosine(name_weight=weight), (ADAPTED,)) for name, weight in BY_NAMES.items()},
    }
    if two_views:
        found |= {
            "logistic on both": Candidate(named, (ADAPTED, FROZEN)),
            "logistic on frozen": Candidate(plain, (FROZEN,)),
            "ridge on frozen": Candidate(ridge, (FROZEN,)),
            "prototypical on frozen": Candidate(PrototypicalNetwork(encoder, metric="cosine"), (FROZEN,)),
            "logistic on lower layers": Candidate(plain, (INNER,)),
        }
    return found


def candidates_of_many(encoder: "TextEncoder", few: Mapping[str, Candidate]) -> dict[str, Candidate]:
    """The heads by name that are added to ``few`` where there are many examples of each class."""
    regularised = LogisticHead(encoder, inverse_penalty=INVERSE_PENALTY_OF_MANY)
    like = [name for name in ("logistic on both", "logistic on frozen", "logistic on lower layers") if name in few]
    return {f"regularised {name}": Candidate(regularised, few[name].scales) for name in like or ["logistic"]}


def scales_of(read: Iterable[Candidate]) -> tuple[float, ...]:
    """The scales that some candidates read, in the order of ``VIEWS``."""
    return tuple(sorted({scale for candidate in read for scale in candidate.scales}, reverse=True))


def compared(scales: tuple[float, ...]) -> tuple[float, ...]:
    """Of the views that are read, those in which texts are compared with classes: not the lower layers, if others."""
    return tuple(scale for scale in scales if scale != INNER) or scales


_Features = TypeVar("_Features", Tensor, Tensor | None)


def columns_of(
    encoder: "TextEncoder", features: _Features, scales: Sequence[float], *, computed: Sequence[float] | None = None
) -> _Features:
    """The part of ``features`` ``(n, n_views * dim)`` that is seen with these scales.

    Args:
        encoder: one that is seen several ways, or a plain one, of which all is seen.
        features: in all views of the encoder, or in those of ``computed`` alone.
        scales: which views, in this order.
        computed: the views in ``features`` where these may not be all.

    Raises:
        NLPMetaError: if ``features`` are in other views.
    """
    if features is None or not isinstance(encoder, ScaledEncoder):
        return features
    every = (encoder, *([] if computed is None else [encoder.select(computed)]))
    views = next((each for each in every if each.dim == features.size(1)), None)
    if views is None:
        raise NLPMetaError(
            f"Embeddings of {features.size(1)} numbers are not of this encoder, which has {encoder.dim}."
        )
    return torch.cat([features[:, views.columns(scale)] for scale in scales], dim=1)


def seen(encoder: "TextEncoder", support: Support, candidate: Candidate) -> Support:
    """The support as a candidate sees it."""
    names = support.names and replace(
        support.names, features=columns_of(encoder, support.names.features, candidate.scales)
    )
    return replace(support, features=columns_of(encoder, support.features, candidate.scales), names=names)


def features_of(texts: Texts) -> Tensor:
    """The embeddings of ``texts``, which must be there.

    Raises:
        NLPMetaError: if they are not.
    """
    if texts.features is None:
        raise NLPMetaError("The embeddings must be known before heads are compared.")
    return texts.features


def disbelief(support: Support, temperature: float) -> float:
    """How much less likely than chance the names alone make the labels of the examples, in the logarithm.

    Below 0 where they make them more likely. Names that stand in for examples do not count.
    """
    if support.names is None:
        return 0.0
    queries, names = (F.normalize(features_of(each), dim=1) for each in (support, support.names))
    likely = (queries @ names.T / temperature).log_softmax(1) + math.log(support.n_way)
    found = likely[torch.arange(len(queries), device=likely.device), support.labels]
    return -float((found if support.stand_in is None else found[~support.stand_in]).sum())


PREFIX = "several/"
"""Of what is known of several labels per text."""
PROTOTYPE_TEMPERATURE = 0.04
"""What cosines to the prototypes of several labels are divided by; chosen with the constants in ``several``."""
MOST_SURE, MOST_ODDS = 1 - 1e-6, 12.0
"""The largest share of a prototype; the log-odds of a probability that is as good as 0 or 1."""


@dataclass(frozen=True, eq=False)
class LabelHeads:
    """All heads in one linear layer, and the log-odds among the prototypes of each head, added times its share.

    Weight ``(n_labels, n_views * dim)``, bias ``(n_labels,)``; prototypes ``(n_heads, n_prototypes, n_views * dim)``,
    those of the labels first; shares ``(n_heads,)``. ``normalise`` says whether the encoder gives unit length.
    """

    weight: Tensor
    bias: Tensor
    prototypes: Tensor
    shares: Tensor
    n_views: int
    normalise: bool

    @classmethod
    def of(
        cls,
        means: Mapping[float, Tensor],
        lines: Mapping[float, tuple[Tensor, Tensor]],
        shares: Tensor,
        level: Tensor,
        scales: tuple[float, ...],
        *,
        normalise: bool,
    ) -> "LabelHeads":
        """Put heads together that each read one view.

        Args:
            means: by the scale of the view, the prototypes of each label and of texts without any, ``(n_labels + 1,
                dim)``; the last is 0 where there is none.
            lines: by the scale of the view, weight ``(n_labels, dim)`` and bias ``(n_labels,)``.
            shares: of ``means`` and then of ``lines``, what scores are multiplied by before they are added.
            level: what is added to them, ``(n_labels,)``.
            scales: of the views that there are.
            normalise: whether the encoder gives unit length.
        """
        there = [_in_view(rows if bool(rows[-1].any()) else rows[:-1], scale, scales) for scale, rows in means.items()]
        prototypes, weight, bias = torch.stack(there), torch.zeros_like(there[0][: len(level)]), level
        for share, (scale, (line, start)) in zip(shares[len(means) :], lines.items(), strict=True):
            weight, bias = weight + share * _in_view(line, scale, scales), bias + share * start
        return cls(weight, bias, prototypes, shares[: len(means)], len(scales), normalise)

    def logits(self, features: Tensor) -> Tensor:
        """From embeddings ``(n, n_views * dim)`` to log-odds ``(n, n_labels)``."""
        unit = torch.cat([F.normalize(part, dim=1) for part in features.chunk(self.n_views, 1)], dim=1)
        odds = odds_of(torch.einsum("nd,hpd->nhp", unit, self.prototypes), len(self.bias))
        among = (odds * self.shares.unsqueeze(1)).sum(1)
        return (F.linear(features, self.weight, self.bias) + among).clamp(-MOST_ODDS, MOST_ODDS)

    def probabilities(self, features: Tensor) -> Tensor:
        """Of each label by itself, ``(n, n_labels)``."""
        return self.logits(features).sigmoid()


def odds_of(cosines: Tensor, n_labels: int) -> Tensor:
    """Log-odds of each label among all prototypes ``(..., n_prototypes)``, over those of guessing, per label."""
    logs = (cosines / PROTOTYPE_TEMPERATURE).log_softmax(-1)
    odds = logs - torch.log1p(-logs.exp().clamp(max=MOST_SURE))
    return odds[..., :n_labels] + math.log(max(cosines.size(-1) - 1, 1))


def _in_view(rows: Tensor, scale: float, scales: tuple[float, ...]) -> Tensor:
    """Rows ``(n, dim)`` for one view as rows for all, ``(n, n_views * dim)``: zeros for the others."""
    return torch.cat([rows if each == scale else torch.zeros_like(rows) for each in scales], dim=1)


def lead_of(state: TaskState, *, tuned: bool = False) -> Tensor | float:
    """What the score of each class is lowered by before heads are mixed, ``(n_way,)``.

    That is the lead of classes with more examples, which says something of how often they occur and is left them in
    part. Where it is known how often they occur, the whole lead is taken back and that takes its place; of what is
    fine-tuned, which has no lead, nothing more is taken back.

    Source: Saerens, Latinne and Decaestecker, Neural Computation 2002, equation 2.4, where the classifier takes all
    classes to be equally frequent. Where we differ: every head is corrected, and the mixture's temperature undone.
    """
    lead, prior = state.get("mixture/leads", 0.0), state.get(CLASS_PRIOR)
    if prior is None:
        return lead
    over = state.get("mixture/temperature", torch.ones((), device=prior.device))
    return lead / (1.0 if tuned else BALANCE) - over * (len(prior) * prior).log()


def texts_seen(encoder: TextEncoder, scales: tuple[float, ...], texts: Sequence[str]) -> Texts:
    """Texts with their embeddings at these scales: a view that no head reads is not computed."""
    seen_by = encoder.select(scales) if isinstance(encoder, ScaledEncoder) else encoder
    return Texts(tuple(texts), seen_by.encode(texts))


def views_of(learner: Learner) -> tuple[float, ...]:
    """The scales that are read, the frozen view last; one without meaning where the encoder has no adapters."""
    return (ADAPTED, FROZEN) if isinstance(learner.encoder, ScaledEncoder) else (ADAPTED,)


def means_of(scale: float) -> str:
    """The name of a view's prototypes in a state."""
    return f"{PREFIX}prototypes {scale:g}"


def line_of(scale: float, views: tuple[float, ...]) -> tuple[str, str]:
    """The names of weight and bias of a view's regression; the last one's, the only one in earlier models, are bare."""
    end = "" if scale == views[-1] else f" {scale:g}"
    return f"{PREFIX}weight{end}", f"{PREFIX}bias{end}"
