"""Labelled texts one by one: what the learners share that read them so, and how any learner does on a stream."""

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.learners.abilities import SLOTS as SLOTS
from nlpmeta.learners.abilities import Footprint as Footprint
from nlpmeta.learners.abilities import ReadsStreams
from nlpmeta.learners.base import BatchLoss, Embed, Learner, Support, TaskState, Texts

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

OPENED = "opened"
"""The tensor that holds how many slots were ever taken, ``(1,)``."""
LAST = "last"
"""The tensor that holds the slot of the last text, ``(1,)``, where a network hears it with the next one."""
_NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class StepOutput:
    """Scores of the slots ``(n, n_slots)``, and the memory after a write, if there was one."""

    scores: Tensor
    memory: TaskState


class StreamLearner(Learner):
    """Writes one labelled text after another into a memory of fixed size; new classes may come at any time.

    A class is known to the network by its slot, the order in which it first came up, and a slot by a code: so results
    do not depend on how classes are named or numbered. In meta-training each stream deals the codes out anew, so that
    no code comes to mean anything.
    """

    order_matters: ClassVar[bool] = True
    """The support is read in its order."""

    def __init__(self, encoder: "TextEncoder", *, max_way: int, code_dim: int) -> None:
        """Build from an encoder; ``max_way`` classes at most, each with a code of ``code_dim`` numbers.

        Raises:
            NLPMetaError: if there is no room for two classes or a code.
        """
        super().__init__(encoder)
        if max_way < 2 or code_dim < 1:
            raise NLPMetaError(f"A stream needs 2 classes or more and a code for each; got {max_way} and {code_dim}.")
        self.max_way, self.code_dim = max_way, code_dim
        self.codes = nn.Parameter(torch.randn(max_way, code_dim, device="cpu").to(encoder.device))

    @abstractmethod
    def blank(self) -> TaskState:
        """The memory of one stream that has seen nothing; the first dimension of each tensor counts streams."""

    @abstractmethod
    def look(self, memory: TaskState, features: Tensor, codes: Tensor, slots: Tensor | None) -> StepOutput:
        """Score texts against a memory and, if their ``slots`` are given, write them into it.

        Args:
            memory: of as many streams as there are texts, or of one stream that all texts are scored against.
            features: a text of each stream, ``(n, dim)``.
            codes: of slot 0, 1, ... of each stream, ``(n, n_slots, code_dim)``; ``(1, ...)`` for one stream.
            slots: the slot of each text's class, ``(n,)``; ``None`` only looks.
        """

    def run(self, features: Tensor, slots: Tensor, codes: Tensor) -> Tensor:
        """Scores ``(n, length, n_slots)`` of each text of ``n`` streams before its own label was revealed.

        Args:
            features: ``(n, length, dim)``.
            slots: ``(n, length)``.
            codes: ``(n, n_slots, code_dim)``.
        """
        memory = {name: value.expand(len(features), *value.shape[1:]) for name, value in self.training_memory().items()}
        scores = []
        for step in range(features.size(1)):
            looked = self.look(memory, features[:, step], codes, slots[:, step])
            scores.append(looked.scores)
            memory = looked.memory
        return torch.stack(scores, dim=1)

    def training_memory(self) -> TaskState:
        """A blank memory for meta-training, which may be smaller than that of a stream in use."""
        return self.blank()

    def empty(self) -> TaskState:
        """The state of a stream that has seen nothing."""
        place = self.encoder.device
        slots = torch.empty(0, dtype=torch.long, device=place)
        return {SLOTS: slots, OPENED: torch.zeros(1, dtype=torch.long, device=place), **self.blank()}

    def write(self, state: TaskState, features: Tensor, label: int) -> TaskState:
        """The state after one more example: its embedding ``(dim,)`` and its class.

        Args:
            state: before; it stays as it is.
            features: of the text.
            label: a class number of ``state``, or the number of its classes for the next new one.

        Raises:
            DataError: if that would be more classes than there is room for.
        """
        slots, opened = state[SLOTS], state[OPENED]
        if label == len(slots):
            new = self.next_slot(state)
            if new >= self.max_way:
                raise DataError(f"This {type(self).__name__} has room for {self.max_way} classes, and all are taken.")
            slots = torch.cat([slots, slots.new_tensor([new])])
            opened = opened.clamp(min=new + 1)
        looked = self.look(_memory(state), features.unsqueeze(0), self.codes.unsqueeze(0), slots[label].view(1))
        return {SLOTS: slots, OPENED: opened, **looked.memory}

    def adapt(self, support: Support) -> TaskState:
        """Read the support, one text after another, in rounds: the first text of each class, the second of each, ..."""
        features, state = self.embed(support), self.empty()
        rows = _in_rounds(support.labels.tolist())
        numbers: dict[int, int] = {}
        for row in rows:
            label = int(support.labels[row])
            state = self.write(state, features[row], numbers.setdefault(label, len(numbers)))
        order = torch.tensor([numbers[label] for label in range(support.n_way)], device=features.device)
        return {**state, SLOTS: state[SLOTS][order]}

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        heard = [state[name].max() for name in (SLOTS, LAST) if name in state]  # the last text's class may be gone
        codes = self.codes[: int(max(heard)) + 1].unsqueeze(0)
        return self.look(_memory(state), self.embed(queries), codes, None).scores[:, state[SLOTS]]

    def episode_loss(self, support: Support, query: Support) -> Tensor:
        """Mean cross-entropy over a stream of support and query texts, each scored before its label is revealed."""
        return self.batch_loss([(support, query)]).loss

    def batch_loss(self, tasks: Sequence[tuple[Support, Support]]) -> BatchLoss:
        """The loss of several streams that run side by side; while training, each in an order of its own.

        A text counts if its class came up before: no network can name a class that it was never shown.
        """
        streams = [self._stream(support, query) for support, query in tasks]
        features = nn.utils.rnn.pad_sequence([each for each, _ in streams], batch_first=True)
        slots = nn.utils.rnn.pad_sequence([each for _, each in streams], batch_first=True, padding_value=_NO_LABEL)
        scores = self.run(features, slots.clamp(min=0), self._dealt_codes(len(tasks), int(slots.max()) + 1))
        known = _known_before(slots)
        columns = torch.arange(scores.size(2), device=scores.device)
        scores = scores.masked_fill(columns >= known.unsqueeze(2), -torch.inf)
        counts = (slots < known) & (slots != _NO_LABEL)
        each = F.cross_entropy(scores[counts].float(), slots[counts])
        accuracy = (scores[counts].argmax(1) == slots[counts]).float().mean()
        return BatchLoss(each, float(accuracy.detach()))

    def without(self, state: TaskState, label: int) -> TaskState:
        """The state without a class, which is never predicted again; its slot stays taken."""
        kept = torch.arange(len(state[SLOTS]), device=state[SLOTS].device) != label
        return {**state, SLOTS: state[SLOTS][kept]}

    def footprint(self, state: TaskState) -> Footprint:
        """How large the memory of ``state`` is."""
        return Footprint(
            n_bytes=sum(value.nbytes for value in state.values()),
            n_way=len(state[SLOTS]),
            max_way=self.max_way,
            bytes_per_class=state[SLOTS].element_size(),
        )

    def next_slot(self, state: TaskState) -> int:
        """The slot that a new class gets."""
        return int(state[OPENED])

    def _stream(self, support: Support, query: Support) -> tuple[Tensor, Tensor]:
        """Embeddings ``(length, dim)`` and slots ``(length,)`` of one stream."""
        features = torch.cat([self.embed(support), self.embed(query)])
        labels = torch.cat([support.labels, query.labels])
        if self.training:
            order = torch.randperm(len(labels), device="cpu").to(labels.device)
            features, labels = features[order], labels[order]
        numbers: dict[int, int] = {}
        slots = [numbers.setdefault(label, len(numbers)) for label in labels.tolist()]
        if len(numbers) > self.max_way:
            raise NLPMetaError(f"An episode of {len(numbers)} ways exceeds max_way, which is {self.max_way}.")
        return features, torch.tensor(slots, device=labels.device)

    def _dealt_codes(self, n: int, n_slots: int) -> Tensor:
        """The codes of the slots of ``n`` streams, ``(n, n_slots, code_dim)``; while training in an order of each."""
        if not self.training:
            return self.codes[:n_slots].expand(n, n_slots, self.code_dim)
        order = torch.rand(n, self.max_way, device="cpu").argsort(1)[:, :n_slots].to(self.codes.device)
        return self.codes[order]


def _memory(state: TaskState) -> TaskState:
    return {name: value for name, value in state.items() if name not in (SLOTS, OPENED)}


def _known_before(slots: Tensor) -> Tensor:
    """How many classes came up before each text of ``slots`` ``(n, length)``: slots are numbered as they come up."""
    known = slots.cummax(1).values + 1
    return F.pad(known, (1, 0))[:, :-1]


def _in_rounds(labels: Sequence[int]) -> list[int]:
    """Rows in rounds over the classes, each class in its own order."""
    seen: dict[int, int] = {}
    rounds = []
    for row, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        rounds.append((seen[label], row))
    return [row for _, row in sorted(rounds)]


@dataclass(frozen=True, eq=False)
class StreamScore:
    """What one learner made of one stream.

    ``presentations`` ``(length,)`` counts from 1: how often the class of each text had come up, that text included.
    ``probabilities`` ``(length, n_way)`` are those before the label is revealed. ``write_seconds`` is a mean.
    """

    labels: Tensor
    presentations: Tensor
    probabilities: Tensor
    write_seconds: float


@torch.no_grad()
def score_stream(learner: Learner, episode: Episode, embed: Embed | None = None) -> StreamScore:
    """Present the support of ``episode`` text by text.

    A learner that reads streams writes each text into its memory; any other one adapts to all texts so far. A class
    that did not come up yet has probability 0; while none did, all have the same.

    Args:
        learner: in evaluation mode.
        episode: its support is the stream; its query is not used.
        embed: where the embeddings come from, for a learner that works on embeddings; its own encoder by default.
    """
    data, known = episode.support, embed if learner.inputs == "embeddings" else None
    features = None if known is None else known(data.texts)
    probabilities = torch.zeros(len(data), data.n_way, device="cpu")
    presentations = torch.zeros(len(data), dtype=torch.long, device="cpu")
    so_far = _Reader(learner, data, features)
    seconds = 0.0
    for row, label in enumerate(data.labels):
        probabilities[row] = so_far.probabilities(row)
        presentations[row] = data.labels[: row + 1].count(label)
        start = time.perf_counter()
        so_far.write(row)
        seconds += time.perf_counter() - start
    return StreamScore(torch.tensor(data.labels, device="cpu"), presentations, probabilities, seconds / len(data))


class _Reader:
    """A learner in the course of a stream; ``classes`` are those that came up, in their order."""

    def __init__(self, learner: Learner, data: LabeledTexts, features: Tensor | None) -> None:
        self._learner, self._data, self._features = learner, data, features
        self._classes: list[int] = []
        self._rows: list[int] = []
        self._state: TaskState | None = learner.empty() if isinstance(learner, ReadsStreams) else None

    def probabilities(self, row: int) -> Tensor:
        """Of each class for the text in ``row``, ``(n_way,)``."""
        n_way = self._data.n_way
        if not self._classes or self._state is None:
            return torch.full((n_way,), 1 / n_way, device="cpu")
        if len(self._classes) == 1:
            found = torch.ones(1, device="cpu")
        else:
            features = None if self._features is None else self._features[row : row + 1]
            logits = self._learner.logits(self._state, Texts((self._data.texts[row],), features))
            found = logits[0].float().softmax(0).cpu()
        return torch.zeros(n_way, device="cpu").index_put((torch.tensor(self._classes, device="cpu"),), found)

    def write(self, row: int) -> None:
        """Tell the label of the text in ``row``."""
        label = self._data.labels[row]
        self._rows.append(row)
        if label not in self._classes:
            self._classes.append(label)
        if isinstance(self._learner, ReadsStreams) and self._state is not None:
            known = None if self._features is None else self._features[row : row + 1]
            one = Texts(self._data.texts[row : row + 1], known)
            self._state = self._learner.write(self._state, self._learner.embed(one)[0], self._classes.index(label))
        elif len(self._classes) > 1:
            labels = [self._classes.index(self._data.labels[each]) for each in self._rows]
            texts = tuple(self._data.texts[each] for each in self._rows)
            features = None if self._features is None else self._features[self._rows]
            device = self._learner.encoder.device
            support = Support(texts, features, torch.tensor(labels, device=device), len(self._classes))
            self._state = self._learner.adapt(support)
        else:
            self._state = {}
