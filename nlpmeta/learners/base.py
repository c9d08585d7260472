"""What every learner is, and the one loss that meta-training uses for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.data import LabeledTexts, class_words, words_instead
from nlpmeta.errors import NLPMetaError
from nlpmeta.settings import Registry

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

TaskState: TypeAlias = dict[str, Tensor]
"""All that adaptation learnt about one task, as named tensors: it can be saved without pickle."""

Option: TypeAlias = int | float | str | bool | None

Embed: TypeAlias = Callable[[Sequence[str]], Tensor]
"""Texts to embeddings ``(n, dim)``: an encoder or a table of what it computed before."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts on their way into a learner, with their embeddings ``(n, dim)`` where these are known already."""

    texts: tuple[str, ...]
    features: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features is not None and len(self.features) != len(self.texts):
            raise NLPMetaError(f"{len(self.texts)} texts came with {len(self.features)} embeddings.")

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class Support(Texts):
    """Labelled texts of one task: ``labels`` ``(n,)`` lie in ``0..n_way - 1`` and each class has at least one.

    ``names`` are the names of the classes in plain words with their descriptions, one entry for each class, where these
    say something about it.
    ``weights`` ``(n,)``, all positive, say how many texts each counts as, for a learner that ``weighs``.
    ``stand_in`` ``(n,)`` says of which texts the class has no example, so that its name stands there in place of one.
    """

    labels: Tensor = torch.empty(0, dtype=torch.long, device="cpu")
    n_way: int = 0
    names: Texts | None = None
    weights: Tensor | None = None
    stand_in: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        present = torch.bincount(self.labels, minlength=self.n_way)
        if len(self.labels) != len(self.texts) or len(present) != self.n_way or not bool(present.all()):
            raise NLPMetaError(f"A support set needs a label in 0..{self.n_way - 1} a text and a text for each class.")
        if self.names is not None and len(self.names) != self.n_way:
            raise NLPMetaError(f"{self.n_way} classes came with {len(self.names)} names.")

    @classmethod
    def of(cls, data: LabeledTexts, features: Tensor | None = None, *, names: Texts | None = None) -> Support:
        """The support set that ``data`` is, on the device of ``features``."""
        device = features.device if features is not None else torch.device("cpu")
        return cls(data.texts, features, torch.tensor(data.labels, device=device), data.n_way, names)


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """The mean loss of several tasks, shape ``()``, and how much of what they predicted was right."""

    loss: Tensor
    accuracy: float

    @classmethod
    def of(cls, found: Sequence[tuple[Tensor, Tensor]], queries: Sequence[Support]) -> BatchLoss:
        """From the loss ``()`` of each task and the scores ``(n_query, n_way)`` of its queries."""
        right = [
            float((logits.argmax(1) == query.labels).float().mean())
            for (_, logits), query in zip(found, queries, strict=True)
        ]
        return cls(torch.stack([loss for loss, _ in found]).mean(), sum(right) / len(right))


class Learner(nn.Module, ABC):
    """Turns a support set into a task state, and a task state and texts into class scores.

    A learner can be built from an encoder alone. Its nature is stated in class attributes.
    """

    inputs: ClassVar[Literal["embeddings", "tokens"]] = "embeddings"
    """Whether pooled embeddings are all it needs (it can then run on cached ones), or the tokens."""
    gradient_in_adapt: ClassVar[bool] = False
    """Whether ``adapt`` takes gradient steps."""
    differentiable: ClassVar[bool] = True
    """Whether a loss on the query set has a gradient in the encoder, so that the learner can be meta-trained."""
    independent_classes: ClassVar[bool] = False
    """Whether the score of a class depends on the support of that class alone."""
    learns_from_names: ClassVar[bool] = False
    """Whether the name of a class can stand in for its examples where it has none."""
    weighs: ClassVar[bool] = False
    """Whether it uses the weights of support texts (``sample_weight``): a text of weight 2 is that text twice."""
    needs_meta_training: ClassVar[bool] = False
    """Whether it can do nothing before it was meta-trained."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def adapt(self, support: Support) -> TaskState:
        """Learn the task. Changes nothing in ``self``: two calls give two independent states."""

    @abstractmethod
    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        """Class scores of shape ``(n_query, n_way)``: higher is better; their softmax estimates probabilities."""

    def config(self) -> dict[str, Option]:
        """Keyword arguments that rebuild this learner: ``type(self)(encoder, **self.config())``."""
        return {}

    def problem_of(self, state: TaskState) -> str:
        """Which numbers of a state from an untrusted file would not give probabilities; empty if all do.

        What shows in the scores of any text need not be looked for: loading tries one.
        """
        return ""

    @classmethod
    def on(cls, trained: Learner) -> Learner:
        """This method on what another learner was meta-trained to: its encoder, and whatever else they share."""
        return cls(trained.encoder)

    def predictor(self, state: TaskState) -> Predictor:
        """What predicts with ``state``: all that must be read from its tensors is read here, once."""
        return Predictor(self, state)

    @property
    def reads_names(self) -> bool:
        """Whether the names of the classes, and descriptions of them, are a clue to this learner."""
        return False

    def support(self, data: LabeledTexts, embed: Embed | None = None, *, features: Tensor | None = None) -> Support:
        """The support set that ``data`` is to this learner: with the names of its classes if it reads them.

        Args:
            data: labelled texts.
            embed: where embeddings come from that are known already; without it they are computed when needed.
            features: the embeddings of the texts, where these are known already.

        Raises:
            NLPMetaError: if the learner needs examples of a class that has none, or nothing says what that class is.
        """
        names = self.names(data, embed)
        missing = sorted(set(range(data.n_way)) - set(data.labels)) if data.by_name else []
        if features is None and (embed is not None or missing) and self.inputs == "embeddings":
            features = (embed or self.encoder)(data.texts) if data.texts else None
        labels = torch.tensor([*data.labels, *missing], dtype=torch.long, device=self.encoder.device)
        if not missing:
            return Support(data.texts, features, labels, data.n_way, names)
        if not self.learns_from_names:
            able = ", ".join(name for name in learners if learners[name].learns_from_names)
            raise NLPMetaError(
                f"{learners.name_of(type(self))} needs an example of each class; {data.label_names[missing[0]]!r} has "
                f"none. These methods can do with its name: {able}."
            )
        spoken = self._pooled(words_instead(data, missing), embed or self.encoder)
        parts = [part for part in (features, spoken.features) if part is not None]
        vectors = torch.cat(parts) if parts else None
        stand_in = torch.arange(len(labels), device=labels.device) >= len(data)
        return Support(data.texts + spoken.texts, vectors, labels, data.n_way, names, stand_in=stand_in)

    def texts_of(self, data: LabeledTexts) -> tuple[str, ...]:
        """The texts that are embedded to adapt to ``data``: its own and, if the learner reads them, the class names."""
        words = class_words(data.label_names, data.descriptions) if self.reads_names else None
        return data.texts + tuple(text for each in words or () for text in each)

    def names(self, data: LabeledTexts, embed: Embed | None = None) -> Texts | None:
        """What ``data`` says of its classes in words, an entry for each, to a learner that reads it.

        ``None`` if the learner reads no names, or nothing says what some class is.
        """
        words = class_words(data.label_names, data.descriptions) if self.reads_names else None
        return None if words is None else self._pooled(words, embed)

    def _pooled(self, words: Sequence[Sequence[str]], embed: Embed | None) -> Texts:
        """The texts of each class as one: the mean of their embeddings, or all in a row to a learner of tokens."""
        joined = tuple(". ".join(each) for each in words)
        several = any(len(each) > 1 for each in words)
        if self.inputs == "tokens" or (embed is None and not several):
            return Texts(joined)
        features = (embed or self.encoder)([text for each in words for text in each])
        owners = torch.tensor([label for label, each in enumerate(words) for _ in each], device=features.device)
        return Texts(joined, class_means(features, owners, len(words)) if several else features)

    def embed(self, texts: Texts) -> Tensor:
        """The embeddings of ``texts``, shape ``(n, dim)``, computed unless they came along."""
        return self.encoder(texts.texts) if texts.features is None else texts.features

    def episode_loss(self, support: Support, query: Support) -> Tensor:
        """Cross-entropy on the query set after adapting to the support set, shape ``()``."""
        return F.cross_entropy(self.logits(self.adapt(support), query), query.labels)

    def batch_loss(self, tasks: Sequence[tuple[Support, Support]]) -> BatchLoss:
        """The mean ``episode_loss`` of several support and query sets; a learner may take them side by side."""
        found = [self._loss_and_logits(support, query) for support, query in tasks]
        return BatchLoss.of(found, [query for _, query in tasks])

    def together(self, n_texts: Sequence[int]) -> list[list[int]]:
        """Which tasks of ``n_texts`` texts go through one forward and backward pass, as groups of their numbers.

        All where embeddings are computed outside; otherwise one by one, so that one graph at a time is in memory.
        """
        each = list(range(len(n_texts)))
        return [each] if self.inputs == "embeddings" else [[i] for i in each]

    def _loss_and_logits(self, support: Support, query: Support) -> tuple[Tensor, Tensor]:
        if type(self).episode_loss is Learner.episode_loss:
            logits = self.logits(self.adapt(support), query).float()
            return F.cross_entropy(logits, query.labels), logits
        loss = self.episode_loss(support, query)
        with torch.no_grad():
            return loss, self.logits(self.adapt(support), query)


@dataclass(frozen=True, eq=False)
class Predictor:
    """A learner and what it learned about one task, ready for any number of predictions by any number of threads."""

    learner: Learner
    state: TaskState

    @property
    def choice(self) -> str | None:
        """The name of the head that the state is of, for a learner that chooses among several."""
        return None

    @property
    def adapter_scales(self) -> tuple[float, ...]:
        """The scales of the encoder's adapters with which a text is embedded: once, as trained."""
        return (1.0,)

    def queries(self, texts: Sequence[str]) -> Texts:
        """Texts as ``logits`` wants them, with their embeddings if the learner works on embeddings."""
        learner = self.learner
        return Texts(tuple(texts), learner.encoder.encode(texts) if learner.inputs == "embeddings" else None)

    def logits(self, queries: Texts) -> Tensor:
        """Class scores of shape ``(n_query, n_way)``, as ``Learner.logits``."""
        return self.learner.logits(self.state, queries)

    def parts(self, queries: Texts) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of every head ``(n_heads, n_query, n_way)``, its share ``(n_heads,)``, and a temperature ``()``."""
        scores = self.logits(queries).unsqueeze(0)
        return scores, scores.new_ones(1), scores.new_ones(())


learners: Registry[Learner] = Registry("method", "nlpmeta.learners", "nlpmeta.auto.method")
register_learner = learners.register


def class_means(features: Tensor, labels: Tensor, n_way: int, weights: Tensor | None = None) -> Tensor:
    """Mean of ``features`` ``(n, dim)`` over the texts of each class in ``labels`` ``(n,)``; shape ``(n_way, dim)``.

    With ``weights`` ``(n,)`` the weighted mean.
    """
    if weights is not None:
        features = features * weights.to(features).unsqueeze(1)
        sums = features.new_zeros(n_way, features.size(1)).index_add(0, labels, features)
        return sums / class_weights(labels, n_way, weights.to(features)).unsqueeze(1)
    sums = features.new_zeros(n_way, features.size(1)).index_add(0, labels, features)
    return sums / torch.bincount(labels, minlength=n_way).unsqueeze(1)


def class_weights(labels: Tensor, n_way: int, weights: Tensor | None = None) -> Tensor:
    """How many texts each class in ``labels`` ``(n,)`` has, or what they weigh together; shape ``(n_way,)``."""
    if weights is None:
        return torch.bincount(labels, minlength=n_way)
    return weights.new_zeros(n_way).index_add(0, labels, weights)


def squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Squared Euclidean distances between ``rows`` ``(n, dim)`` and ``columns`` ``(m, dim)``; shape ``(n, m)``."""
    squares = rows.square().sum(1, keepdim=True) + columns.square().sum(1)
    return (squares - 2 * rows @ columns.T).clamp(min=0)


def balanced_weights(labels: Sequence[int] | Tensor, n_way: int) -> Tensor:
    """A weight a text, mean 1, such that every class weighs the same; shape ``(n,)``."""
    labels = labels if isinstance(labels, Tensor) else torch.tensor(labels, device="cpu")
    counts = torch.bincount(labels, minlength=n_way)
    return (len(labels) / (n_way * counts))[labels]
