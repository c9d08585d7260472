"""What ``auto`` learned about a task, read once: a mixture of heads, or a head for each label; likeness to classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.auto.heads import (
    CLASS_PRIOR,
    PREFIX,
    TUNED,
    Candidate,
    LabelHeads,
    columns_of,
    compared,
    features_of,
    lead_of,
    line_of,
    means_of,
    scales_of,
    texts_seen,
    views_of,
)
from nlpmeta.encoder.views import ScaledEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.abilities import THRESHOLDS
from nlpmeta.learners.base import Learner, Predictor, TaskState, Texts
from nlpmeta.settings import LARGEST_OPTION, SMALLEST_OPTION


@dataclass(frozen=True, eq=False)
class Head:
    """One head of a mixture: what it sees, what it learned, and how much it counts.

    ``scores_over`` is what its scores are divided by.
    """

    name: str
    candidate: Candidate
    state: TaskState
    share: Tensor
    scores_over: Tensor


@dataclass(frozen=True, eq=False)
class Mixture(Predictor):
    """The heads in a state, always in the same order, so that sums over them are the same.

    Attributes:
        heads: those that have a share.
        scales: of the encoder's adapters, those that the heads read.
        temperature: what the scores of the mixture are divided by.
        held_out: the log probabilities of the true classes of held-out texts, rising; ``None`` in a model of an older
            release, which has none of what follows either.
        prototypes: mean embeddings of the classes, ``(n_way, n_views * dim)``.
        usual_likeness: of the support to its own classes, where two texts of some class are known.
        n_shot: support texts of a class, on average.
    """

    heads: tuple[Head, ...]
    scales: tuple[float, ...]
    temperature: Tensor
    held_out: Tensor | None
    prototypes: Tensor | None
    usual_likeness: Tensor | None
    n_shot: float

    @classmethod
    def of(cls, learner: Learner, candidates: Mapping[str, Candidate], state: TaskState) -> "Mixture":
        """Read ``state``; what an older release did not keep is as it was then.

        Raises:
            NLPMetaError: if one of the heads is not known to this release.
            KeyError: if a tensor of a head is missing.
        """
        heads = _heads(candidates, state, learner.encoder.device)
        n_shot = state.get("mixture/n_shot")
        return cls(
            learner,
            state,
            heads=heads,
            scales=scales_of([head.candidate for head in heads]),
            temperature=state.get("mixture/temperature", torch.ones((), device=learner.encoder.device)),
            held_out=state.get("mixture/held_out"),
            prototypes=state.get("mixture/prototypes"),
            usual_likeness=state.get("mixture/usual_likeness"),
            n_shot=float("nan") if n_shot is None else float(n_shot),
        )

    @property
    def choice(self) -> str:
        """The head that counts most."""
        return max(self.heads, key=lambda head: float(head.share)).name

    @property
    def adapter_scales(self) -> tuple[float, ...]:
        return self.scales

    @property
    def is_tuned(self) -> bool:
        """Whether a part of it embeds texts with adapters of this task."""
        return any(not head.candidate.scales for head in self.heads)

    @property
    def n_views(self) -> int:
        """How many views stand side by side in what ``read`` gives."""
        return len(compared(self.scales)) if isinstance(self.learner.encoder, ScaledEncoder) else 1

    def queries(self, texts: Sequence[str]) -> Texts:
        """Texts with the embeddings that the heads read."""
        return texts_seen(self.learner.encoder, self.scales, texts)

    def logits(self, queries: Texts) -> Tensor:
        scores, shares, temperature = self.parts(queries)
        return mixed(scores.log_softmax(2), shares) / temperature

    def parts(self, queries: Texts) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of every head ``(n_heads, n_query, n_way)``, its share ``(n_heads,)``, the mixture's temperature."""
        known = queries if queries.features is not None else self.queries(queries.texts)
        scores = torch.stack([self._scores(head, known) for head in self.heads])
        return scores, torch.stack([head.share for head in self.heads]), self.temperature

    def problem(self) -> str:
        """Which number would not give probabilities or out-of-scope scores; empty if all do."""
        divisors = {f"{head.name}/scores_over": head.scores_over for head in self.heads}
        for name, value in {**divisors, "mixture/temperature": self.temperature}.items():
            if value.shape != () or not SMALLEST_OPTION <= float(value) <= LARGEST_OPTION:
                return f"{name} is not a number from {SMALLEST_OPTION:g} to {LARGEST_OPTION}"
        if any(head.share.shape != () or not float(head.share) > 0 for head in self.heads):
            return "the share of a head is not positive"
        if (prior := self.state.get(CLASS_PRIOR)) is not None and not bool(((prior > 0) & (prior <= 1)).all()):
            return f"{CLASS_PRIOR} holds a number that is no share"
        if self.held_out is None:
            return ""
        encoder = self.learner.encoder
        dim = (encoder.select(compared(self.scales)) if isinstance(encoder, ScaledEncoder) else encoder).dim
        if self.prototypes is None or self.prototypes.shape[1:] != (dim,) or not self.n_shot > 0:
            return "mixture/prototypes or mixture/n_shot is missing or impossible"
        return "mixture/usual_likeness is not one number" if getattr(self.usual_likeness, "shape", ()) else ""

    def read(self, texts: Texts) -> Tensor:
        """The embeddings of ``texts`` in the views that they are compared with classes in."""
        known = texts if texts.features is not None else self.queries(texts.texts)
        return columns_of(self.learner.encoder, features_of(known), compared(self.scales), computed=self.scales)

    def view(self, head: Head, queries: Texts) -> Tensor | None:
        """The embeddings of ``queries`` as a head sees them."""
        return columns_of(self.learner.encoder, queries.features, head.candidate.scales, computed=self.scales)

    def _scores(self, head: Head, queries: Texts) -> Tensor:
        features = self.view(head, queries) if head.candidate.scales else None
        scores = head.candidate.head.logits(head.state, replace(queries, features=features))
        return scores / head.scores_over - lead_of(self.state, tuned=head.name == TUNED)


@dataclass(frozen=True, eq=False)
class OneVsRest(Predictor):
    """Log-odds of each label, by itself, and the log-odds from which on it is given.

    Attributes:
        scales: of the encoder's adapters, those that the heads read.
        tuned: what was fine-tuned beside them, if anything.
    """

    scales: tuple[float, ...]
    tuned: Head | None = None

    @classmethod
    def of(cls, learner: Learner, candidates: Mapping[str, Candidate], state: TaskState) -> "OneVsRest":
        """Read ``state``; of ``candidates`` there may be the one that is fine-tuned."""
        every = views_of(learner)
        read = (scale for scale in every if {means_of(scale), line_of(scale, every)[0]} & state.keys())
        own = {name: each for name, each in state.items() if not name.startswith(PREFIX)}
        tuned = _heads(candidates, own, learner.encoder.device)
        return cls(learner, state, tuple(read), tuned[0] if tuned else None)

    @property
    def choice(self) -> str:
        """What the heads are."""
        return "one-vs-rest"

    @property
    def adapter_scales(self) -> tuple[float, ...]:
        return self.scales

    @property
    def is_tuned(self) -> bool:
        """Whether a part of it embeds texts with adapters of this task."""
        return self.tuned is not None

    @cached_property
    def heads(self) -> LabelHeads:
        """The heads that are stored, averaged in units of their spreads, with slope and offsets."""
        state, every, scales = self.state, views_of(self.learner), self.scales
        means = {scale: state[name] for scale in scales if (name := means_of(scale)) in state}
        names = {scale: line_of(scale, every) for scale in scales}
        lines = {scale: (state[w], state[b]) for scale, (w, b) in names.items() if w in state}
        shares = state[f"{PREFIX}slope"] / (state[f"{PREFIX}spreads"] * (len(means) + len(lines)))
        level = state[f"{PREFIX}offsets"] - shares @ state[f"{PREFIX}means"]
        return LabelHeads.of(means, lines, shares, level, scales, normalise=self.learner.encoder.normalise)

    def queries(self, texts: Sequence[str]) -> Texts:
        """Texts with the embeddings that the heads read."""
        return texts_seen(self.learner.encoder, self.scales, texts)

    def logits(self, queries: Texts) -> Tensor:
        known = queries if queries.features is not None else self.queries(queries.texts)
        seen = columns_of(self.learner.encoder, features_of(known), self.scales, computed=self.scales)
        odds = self.heads.logits(seen)
        if self.tuned is None:
            return odds
        share, head = self.tuned.share, self.tuned.candidate.head
        return (1 - share) * odds + share * head.logits(self.tuned.state, Texts(queries.texts))

    def problem(self) -> str:
        """Which number would not give labels; empty if all do."""
        n_labels = len(self.state[f"{PREFIX}offsets"])
        if self.state[THRESHOLDS].shape != (n_labels,):
            return f"{THRESHOLDS} is not a number a label"
        n_heads = sum(name.startswith((f"{PREFIX}prototypes ", f"{PREFIX}weight")) for name in self.state)
        if not any(means_of(scale) in self.state for scale in views_of(self.learner)):
            return f"{PREFIX}prototypes are missing"
        if self.state[f"{PREFIX}means"].shape != (n_heads, n_labels):
            return f"{PREFIX}means is not a number for each head and label"
        slope = self.state[f"{PREFIX}slope"]
        return "" if slope.shape == () and float(slope) > 0 else f"{PREFIX}slope is not one positive number"


def mixed(log_probabilities: Tensor, weights: Tensor) -> Tensor:
    """The logarithm of the weighted mean of probabilities ``(n_heads, n, n_way)``; shape ``(n, n_way)``."""
    shares = weights.to(log_probabilities).clamp(min=1e-30).log().view(-1, 1, 1)
    return torch.logsumexp(log_probabilities + shares, dim=0)


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
    if not bool((kept := counts > 1).any()):
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


def _heads(candidates: Mapping[str, Candidate], state: TaskState, device: torch.device) -> tuple[Head, ...]:
    tensors: dict[str, TaskState] = {}
    for key, value in state.items():
        name, _, rest = key.partition("/")
        if name != "mixture":
            tensors.setdefault(name, {})[rest] = value
    for name in tensors:
        if name not in candidates:
            raise NLPMetaError(f"This release does not know the head {name!r} of the model. Adapt it again.")
    one = torch.ones((), device=device)  # a model of an older release has one head
    return tuple(
        Head(name, candidate, tensors[name], tensors[name].get("share", one), tensors[name]["scores_over"])
        for name, candidate in candidates.items()
        if name in tensors
    )


def _scaled(nearest: Tensor, means: Tensor) -> Tensor:
    means, n_way = F.normalize(means, dim=1), len(means)
    alike = means @ means.T
    among = (alike.sum() - alike.diagonal().sum()) / (n_way * (n_way - 1))
    return (nearest - among) / (1 - among).clamp(min=1e-6)
