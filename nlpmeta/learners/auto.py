"""The learner that chooses: heads on the adapted and on the frozen encoder, the best on the support set alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.encoder.lora import has_adapter
from nlpmeta.encoder.views import ADAPTED, FROZEN, Views
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, Option, Support, TaskState, Texts, learners
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

INVERSE_PENALTY = 100.0
NAME_WEIGHT = 2.0
CLEARLY = 1.0
"""Standard errors by which a head must do better than the first one to be taken instead of it."""
ONE_SHOT_TEMPERATURE = 0.6
"""Where nothing can be held out: about the middle of what was best on tasks of languages held out for choosing."""
_FOLDS, _FEW_FOLDS, _MANY_TEXTS = 5, 3, 300
_TEMPERATURES = torch.logspace(-2, 3, 26, base=2.0)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A head and what it sees of the encoder: the factors of its adapters."""

    head: Learner
    factors: tuple[float, ...]


@learners.register("auto")
class AutoHead(Learner):
    """Adapts with the head under which held-out folds of the support set are most likely.

    The heads see the adapted encoder, the frozen one, or both side by side, with or without the names of the classes.
    The first of them, logistic regression with names on the adapted encoder, is taken unless another one is clearly
    better: with few examples most differences are chance. Among the others there is always logistic regression on the
    frozen encoder, for tasks that meta-training did harm to. With one text of some class nothing can be held out; the
    first head is taken, with names if the names alone find the class of enough support texts.

    Scores are divided by the temperature at which the held-out folds are most likely. The state keeps the tensors of
    the chosen head under ``<name>/``, so that it says itself what was chosen.
    """

    differentiable = False

    def __init__(self, encoder: "TextEncoder", *, temperature: float = 0.05, name_weight: float = 1.0) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors; with adapters, it is also seen without them.
            temperature: of the prototypical network among the heads.
            name_weight: how many texts the name of a class counts as, for that network.

        Raises:
            NLPMetaError: if one of the two is not positive.
        """
        two = has_adapter(encoder)
        super().__init__(Views(encoder) if two else encoder)
        self.temperature, self.name_weight = temperature, name_weight
        named = LogisticHead(encoder, inverse_penalty=INVERSE_PENALTY, name_weight=NAME_WEIGHT)
        plain = LogisticHead(encoder, inverse_penalty=INVERSE_PENALTY)
        prototypical = PrototypicalNetwork(
            encoder, metric="cosine", temperature=temperature, names=True, name_weight=name_weight
        )
        self._candidates = {
            "logistic": _Candidate(named, (ADAPTED,)),
            "logistic without names": _Candidate(plain, (ADAPTED,)),
            "prototypical": _Candidate(prototypical, (ADAPTED,)),
            "ridge": _Candidate(RidgeHead(encoder), (ADAPTED,)),
        }
        if two:
            self._candidates |= {
                "logistic on both": _Candidate(named, (ADAPTED, FROZEN)),
                "logistic on frozen": _Candidate(plain, (FROZEN,)),
            }

    @classmethod
    def on(cls, trained: Learner) -> "AutoHead":
        if not isinstance(trained, PrototypicalNetwork):
            return cls(trained.encoder)
        temperature = float(trained.log_temperature.detach().exp())
        return cls(trained.encoder, temperature=temperature, name_weight=trained.name_weight or 1.0)

    @property
    def reads_names(self) -> bool:
        return True

    @torch.no_grad()
    def adapt(self, support: Support) -> TaskState:
        names = support.names and replace(support.names, features=self.embed(support.names))
        known = replace(support, features=self.embed(support), names=names)
        name, temperature = self._choose(known)
        candidate = self._candidates[name]
        state = candidate.head.adapt(self._seen(known, candidate))
        return {f"{name}/{key}": value for key, value in {**state, "scores_over": temperature}.items()}

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        candidate = self._candidate(state)
        inner = {key.partition("/")[2]: value for key, value in state.items()}
        if queries.features is None:
            queries = self.queries(state, queries.texts)
        features = self._columns(queries.features, candidate)
        return candidate.head.logits(inner, replace(queries, features=features)) / inner["scores_over"]

    def queries(self, state: TaskState, texts: Sequence[str]) -> Texts:
        """Texts with the embeddings that the chosen head reads: a view that it does not see is not computed."""
        if not isinstance(self.encoder, Views):
            return super().queries(state, texts)
        return Texts(tuple(texts), self.encoder.select(self._candidate(state).factors).encode(texts))

    def choice(self, state: TaskState) -> str:
        return next(iter(state)).partition("/")[0]

    def views(self, state: TaskState) -> tuple[float, ...]:
        return self._candidate(state).factors

    def config(self) -> dict[str, Option]:
        return {"temperature": self.temperature, "name_weight": self.name_weight}

    def _candidate(self, state: TaskState) -> _Candidate:
        name = self.choice(state)
        if name not in self._candidates:
            raise NLPMetaError(f"This model was adapted with a head {name!r} that is not known here. Adapt it again.")
        return self._candidates[name]

    def _columns(self, features: Tensor | None, candidate: _Candidate) -> Tensor | None:
        """The part of ``features`` that a candidate sees; all of them if they are that part already."""
        if features is None or not isinstance(self.encoder, Views) or features.size(1) < self.encoder.dim:
            return features
        return torch.cat([features[:, self.encoder.columns(factor)] for factor in candidate.factors], dim=1)

    def _seen(self, support: Support, candidate: _Candidate) -> Support:
        names = support.names and replace(support.names, features=self._columns(support.names.features, candidate))
        return replace(support, features=self._columns(support.features, candidate), names=names)

    def _choose(self, support: Support) -> tuple[str, Tensor]:
        """The name of the best candidate, and the temperature of its scores, shape ``()``."""
        first, second = list(self._candidates)[:2]
        n_folds = _FOLDS if len(support) <= _MANY_TEXTS else _FEW_FOLDS
        n_folds = min(n_folds, int(torch.bincount(support.labels).min()))
        if n_folds < 2:
            doubtful = support.names is not None and not _names_help(self._seen(support, self._candidates[first]))
            return second if doubtful else first, torch.tensor(ONE_SHOT_TEMPERATURE)
        fold = _folds(support.labels, n_folds)
        rivals = [name for name in self._candidates if support.names is not None or name != second]
        held_out = {name: self._held_out(self._candidates[name], support, fold, n_folds) for name in rivals}
        # As if one more text had every class alike: a handful of right answers is no ground for certainty.
        doubt = 1 / (len(support) + 1)
        judged = {name: _judged(logits, support.labels, doubt) for name, logits in held_out.items()}
        best = max(rivals, key=lambda name: _lead(judged[name][0], judged[rivals[0]][0]))
        return best, judged[best][1]

    def _held_out(self, candidate: _Candidate, support: Support, fold: Tensor, n_folds: int) -> Tensor:
        """Scores ``(n_support, n_way)`` of each text by the head that was adapted to the other folds."""
        seen, rows = self._seen(support, candidate), torch.arange(len(support), device=fold.device)
        parts, order = [], []
        for i in range(n_folds):
            out = fold == i
            known = _rows(seen, ~out)
            queries = Texts(("",) * int(out.sum()), _features(seen)[out])
            parts.append(candidate.head.logits(candidate.head.adapt(known), queries))
            order.append(rows[out])
        return torch.cat(parts)[torch.cat(order).argsort()]


def _judged(logits: Tensor, labels: Tensor, doubt: float) -> tuple[Tensor, Tensor]:
    """The log-likelihood of each held-out text ``(n,)`` at the temperature that suits them best, and that one."""
    each = torch.stack(
        [-F.cross_entropy(logits / t, labels, reduction="none", label_smoothing=doubt) for t in _TEMPERATURES]
    )
    best = int(each.sum(1).argmax())
    return each[best], _TEMPERATURES[best]


def _lead(likelihood: Tensor, first: Tensor) -> float:
    """How much better a head does than the first one, less what could be chance; 0 for the first one itself."""
    gains = likelihood - first
    return float(gains.sum() - CLEARLY * (gains - gains.mean()).square().sum().sqrt())


def _folds(labels: Tensor, n_folds: int) -> Tensor:
    """A fold for each text, classes spread evenly; shape ``(n,)``."""
    fold = torch.empty_like(labels)
    for label in range(int(labels.max()) + 1):
        rows = torch.nonzero(labels == label).squeeze(1)
        fold[rows] = torch.arange(len(rows), device=labels.device) % n_folds
    return fold


def _names_help(support: Support) -> bool:
    """Whether the names alone find the class of more support texts than chance would."""
    if support.names is None:
        return False
    queries, names = (F.normalize(_features(each), dim=1) for each in (support, support.names))
    right = int(((queries @ names.T).argmax(1) == support.labels).sum())
    return right * support.n_way > len(support)


def _rows(support: Support, kept: Tensor) -> Support:
    texts = tuple(compress(support.texts, kept.tolist()))
    return replace(support, texts=texts, features=_features(support)[kept], labels=support.labels[kept])


def _features(texts: Texts) -> Tensor:
    if texts.features is None:
        raise NLPMetaError("The embeddings must be known before heads are compared.")
    return texts.features
