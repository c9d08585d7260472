"""The heads that ``auto`` weighs against each other, and what each of them sees of the encoder."""

from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpmeta.encoder.views import ADAPTED, FROZEN
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, Support, Texts
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

INVERSE_PENALTY = 100.0
NAME_WEIGHT = 2.0
WITHOUT_NAMES = "logistic without names"
"""The head that is the same as ``logistic`` where the names of the classes say nothing."""
_FOLDS, _FEW_FOLDS, _MANY_TEXTS = 5, 3, 300


@dataclass(frozen=True, eq=False)
class Candidate:
    """A head and what it sees of the encoder: the factors of its adapters."""

    head: Learner
    factors: tuple[float, ...]


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
    prototypical = PrototypicalNetwork(
        encoder, metric="cosine", temperature=temperature, names=True, name_weight=name_weight
    )
    ridge = RidgeHead(encoder)
    found = {
        "logistic": Candidate(named, (ADAPTED,)),
        WITHOUT_NAMES: Candidate(plain, (ADAPTED,)),
        "prototypical": Candidate(prototypical, (ADAPTED,)),
        "ridge": Candidate(ridge, (ADAPTED,)),
    }
    if two_views:
        found |= {
            "logistic on both": Candidate(named, (ADAPTED, FROZEN)),
            "logistic on frozen": Candidate(plain, (FROZEN,)),
            "ridge on frozen": Candidate(ridge, (FROZEN,)),
            "prototypical on frozen": Candidate(PrototypicalNetwork(encoder, metric="cosine"), (FROZEN,)),
        }
    return found


def n_folds(support: Support) -> int:
    """Into how many folds a support set is parted; less than 2 if some class has one text only."""
    wanted = _FOLDS if len(support) <= _MANY_TEXTS else _FEW_FOLDS
    return min(wanted, int(torch.bincount(support.labels).min()))


def held_out_scores(head: Learner, support: Support, folds: int) -> Tensor:
    """Scores ``(n_support, n_way)`` of each text by the head that was adapted to the other folds.

    Args:
        head: works on embeddings.
        support: with its embeddings.
        folds: how many, at least 2 and at most as many as the smallest class has texts.
    """
    fold, rows = folds_of(support.labels, folds), torch.arange(len(support), device=support.labels.device)
    parts, order = [], []
    for i in range(folds):
        out = fold == i
        queries = Texts(("",) * int(out.sum()), features_of(support)[out])
        parts.append(head.logits(head.adapt(_rows(support, ~out)), queries))
        order.append(rows[out])
    return torch.cat(parts)[torch.cat(order).argsort()]


def folds_of(labels: Tensor, folds: int) -> Tensor:
    """A fold for each text, classes spread evenly; shape ``(n,)``."""
    fold = torch.empty_like(labels)
    for label in range(int(labels.max()) + 1):
        rows = torch.nonzero(labels == label).squeeze(1)
        fold[rows] = torch.arange(len(rows), device=labels.device) % folds
    return fold


def features_of(texts: Texts) -> Tensor:
    """The embeddings of ``texts``, which must be there.

    Raises:
        NLPMetaError: if they are not.
    """
    if texts.features is None:
        raise NLPMetaError("The embeddings must be known before heads are compared.")
    return texts.features


def _rows(support: Support, kept: Tensor) -> Support:
    texts = tuple(compress(support.texts, kept.tolist()))
    return Support(texts, features_of(support)[kept], support.labels[kept], support.n_way, support.names)
