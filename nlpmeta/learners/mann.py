"""Memory-augmented networks: the model-based learner that keeps examples outside its weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Option, TaskState, learners
from nlpmeta.learners.streams import SLOTS, Footprint, StepOutput, StreamLearner
from nlpmeta.settings import check_share

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

BLANK = -1
"""The slot of a row that holds nothing."""
_FAR = -1e4  # a score that no other is below
_SMALLEST = 1e-12  # of a squared length
_SHARPNESS = (8.0, 16.0, 32.0)  # of the cosines of the first heads at the start; it is learned
_TINY = 1e-7  # the share of attention that a class has at least: its logarithm stays finite


@learners.register("mann")
class MemoryAugmentedNetwork(StreamLearner):
    """An LSTM that reads a text and the label before it, and an external memory that it reads and writes.

    Source: Santoro, Bartunov, Botvinick, Wierstra and Lillicrap, ICML 2016 (arXiv:1605.06065): content-based reads over
    several heads, writes to the least used row or to those just read, usage that decays. Where we differ: the key of a
    head is the text's embedding, moved by what the controller makes of it (a correction of low rank that starts at 0),
    so that the network compares texts before it has learned anything; rows belong to classes (see ``memory``); the
    answer is the attention that each class's rows got, corrected by the controller through the codes of the classes.
    """

    def __init__(
        self,
        encoder: "TextEncoder",
        *,
        rows: int = 512,
        rank: int = 64,
        hidden: int = 64,
        heads: int = 3,
        decay: float = 0.99,
        max_way: int = 200,
        code_dim: int = 32,
        training_rows: int = 32,
        dropout: float = 0.2,
    ) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors.
            rows: of the memory of a stream; at least ``max_way``, or 0 for none.
            rank: of the correction of keys.
            hidden: units of the controller.
            heads: that read the memory.
            decay: of the usage of a row at each write.
            max_way: the most classes of a stream.
            code_dim: numbers of a class's code.
            training_rows: of a memory in meta-training; few, so that forgetting is part of it.
            dropout: of embeddings in meta-training: what is learned must not hang on single directions.

        Raises:
            NLPMetaError: if a size is not positive or there are fewer rows than classes.
        """
        super().__init__(encoder, max_way=max_way, code_dim=code_dim)
        check_share(decay=decay, dropout=dropout)
        if min(rank, hidden, heads, training_rows) < 1 or rows < 0:
            raise NLPMetaError("rank, hidden, heads and training_rows must be positive.")
        if 0 < rows < max_way:
            raise NLPMetaError(f"A memory for {max_way} classes needs as many rows at least; got {rows}.")
        self.rows, self.rank, self.hidden, self.heads, self.decay = rows, rank, hidden, heads, decay
        self.training_rows, self.dropout = training_rows, nn.Dropout(dropout)
        with torch.device("cpu"):  # the same start on every device
            self.down, self.up = nn.Linear(encoder.dim, rank), nn.Linear(rank, encoder.dim)
            self.controller = nn.LSTMCell(rank + code_dim, hidden)
            self.move = nn.Linear(hidden, (heads + 1) * rank, bias=False)
            self.correct = nn.Linear(hidden, code_dim, bias=False)
            sharpness = torch.tensor([_SHARPNESS[i % len(_SHARPNESS)] for i in range(heads)])
            self.log_sharpness = nn.Parameter(sharpness.log())
            self.head_weights = nn.Parameter(torch.zeros(heads))
            self.strength_power = nn.Parameter(torch.tensor(0.5))
            self.gate = nn.Linear(hidden + 2, 1)
        for start in (self.up.weight, self.up.bias, self.move.weight, self.correct.weight):
            nn.init.zeros_(start)
        nn.init.ones_(self.gate.bias)  # at the start an example joins the row of its class
        self.to(encoder.device)

    def blank(self) -> TaskState:
        return self._blank(self.rows)

    def training_memory(self) -> TaskState:
        return self._blank(min(self.rows, self.training_rows))

    def look(self, memory: TaskState, features: Tensor, codes: Tensor, slots: Tensor | None) -> StepOutput:
        features, n = self.dropout(features), len(features)
        down = self.down(features * features.size(1) ** 0.5)  # unit vectors are small inputs
        hidden, cell = self.controller(self._input(down, memory, codes), _both(memory, n))
        moved = down.unsqueeze(1) + self.move(hidden).view(n, self.heads + 1, self.rank)
        keys = features.unsqueeze(1) + self.up(moved)
        scores = codes @ self.correct(hidden).unsqueeze(2)
        scores = scores.squeeze(2)
        held = Memory(memory["keys"], memory["row_slots"], memory["strength"], memory["usage"])
        read = None
        if held.keys.size(1):
            read = held.read(keys[:, : self.heads], self.log_sharpness.exp(), self.strength_power)
            read = (read * self.head_weights.softmax(0).view(1, -1, 1)).sum(1)
            shares = _shares(read, held.slots, codes.size(1))
            scores = scores + shares.clamp(min=_TINY).log()
        if slots is None:
            return StepOutput(scores, memory)
        if read is not None:
            row = held.least_used()
            merge = self._merge(held, hidden, read, slots, row)
            held = held.write(keys[:, -1], slots, row, merge, read, decay=self.decay)
        after = {"keys": held.keys, "row_slots": held.slots, "strength": held.strength, "usage": held.usage}
        return StepOutput(scores, {**after, "hidden": hidden, "cell": cell, "last": slots.view(-1)})

    def without(self, state: TaskState, label: int) -> TaskState:
        """The state without a class and the rows that held it; its slot is free again."""
        held = Memory(state["keys"], state["row_slots"], state["strength"], state["usage"])
        held = held.without(int(state[SLOTS][label]))
        parts = {"keys": held.keys, "row_slots": held.slots, "strength": held.strength, "usage": held.usage}
        return super().without({**state, **parts}, label)

    def next_slot(self, state: TaskState) -> int:
        taken = set(state[SLOTS].tolist())
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def footprint(self, state: TaskState) -> Footprint:
        from dataclasses import replace

        per_row = [state[name] for name in ("keys", "row_slots", "strength", "usage")]
        in_use = int((state["row_slots"] != BLANK).sum())
        n_bytes = sum(each.nbytes for each in per_row) // max(1, self.rows)
        return replace(super().footprint(state), n_rows=self.rows, rows_in_use=in_use, bytes_per_row=n_bytes)

    def config(self) -> dict[str, Option]:
        return {
            "rows": self.rows,
            "rank": self.rank,
            "hidden": self.hidden,
            "heads": self.heads,
            "decay": self.decay,
            "max_way": self.max_way,
            "code_dim": self.code_dim,
            "training_rows": self.training_rows,
            "dropout": self.dropout.p,
        }

    def _blank(self, rows: int) -> TaskState:
        place = self.encoder.device
        held = Memory.blank(1, rows, self.encoder.dim, device=place)
        zeros = torch.zeros(1, self.hidden, device=place)
        parts = {"keys": held.keys, "row_slots": held.slots, "strength": held.strength, "usage": held.usage}
        return {**parts, "hidden": zeros, "cell": zeros.clone(), "last": torch.full((1,), BLANK, device=place)}

    def _input(self, down: Tensor, memory: TaskState, codes: Tensor) -> Tensor:
        """What the controller reads: the text, and the code of the label before it, ``(n, rank + code_dim)``."""
        last = memory["last"]
        code = codes[torch.arange(len(last), device=last.device), last.clamp(min=0)]
        code = code * (last != BLANK).unsqueeze(1)
        return torch.cat([down, code.expand(len(down), self.code_dim)], dim=1)

    def _merge(self, held: "Memory", hidden: Tensor, read: Tensor, slots: Tensor, row: Tensor) -> Tensor:
        """1 to add the example to rows of its class, 0 to give it a row of its own; with a gradient, ``(n,)``."""
        own = (read * (held.slots == slots.unsqueeze(1))).sum(1, keepdim=True)
        soft: Tensor = self.gate(torch.cat([hidden, own, read.amax(1, keepdim=True)], dim=1)).sigmoid().squeeze(1)
        hard = (soft > 0.5) | (row == BLANK)  # with no row to take there is nothing but to merge
        return (hard.to(soft.dtype) + soft - soft.detach()) * held.may_merge(slots)


def _both(memory: TaskState, n: int) -> tuple[Tensor, Tensor]:
    hidden, cell = memory["hidden"], memory["cell"]
    return hidden.expand(n, -1), cell.expand(n, -1)


def _shares(read: Tensor, slots: Tensor, n_slots: int) -> Tensor:
    """How much of the reading each slot got, ``(n, n_slots)``."""
    where = F.one_hot(slots.clamp(min=0), n_slots).to(read.dtype) * (slots != BLANK).unsqueeze(2)
    shares: Tensor = (read.unsqueeze(1) @ where.expand(len(read), -1, -1)).squeeze(1)
    return shares


@dataclass(frozen=True, eq=False)
class Memory:
    """What is kept: ``keys`` ``(n, rows, dim)``, and of each row its slot, strength and usage, ``(n, rows)``.

    The slot is that of the row's class, the strength the number of examples that it stands for. A row belongs to one
    class: that is what a sum of orthonormal codes would say, read without error.
    """

    keys: Tensor
    slots: Tensor
    strength: Tensor
    usage: Tensor

    @classmethod
    def blank(cls, n: int, rows: int, dim: int, *, device: torch.device | str = "cpu") -> "Memory":
        """A memory that holds nothing."""
        return cls(
            torch.zeros(n, rows, dim, device=device),
            torch.full((n, rows), BLANK, device=device),
            torch.zeros(n, rows, device=device),
            torch.zeros(n, rows, device=device),
        )

    def read(self, keys: Tensor, sharpness: Tensor, strength_power: Tensor) -> Tensor:
        """The weight of each row for each head, ``(n, heads, rows)``: the softmax of scaled cosines, equation 2.

        Where we differ: a row that stands for several examples counts as so many to the power of ``strength_power``;
        blank rows have no weight (all of them are 0 where every row is blank).

        Args:
            keys: of the heads, ``(n, heads, dim)``; or of many texts on one stream.
            sharpness: what the cosines of each head are multiplied by, ``(heads,)``.
            strength_power: shape ``()``.
        """
        # Divided by the lengths after the product: the same cosines, without a second copy of the memory.
        lengths = self.keys.square().sum(2).clamp(min=_SMALLEST).sqrt().unsqueeze(1)
        cosines = F.normalize(keys, dim=2) @ self.keys.transpose(1, 2) / lengths
        held = (self.slots != BLANK).unsqueeze(1)
        prior = strength_power * self.strength.clamp(min=1).log().unsqueeze(1)
        scores = (cosines * sharpness.view(1, -1, 1) + prior).masked_fill(~held, _FAR)
        return scores.softmax(2) * held

    def least_used(self) -> Tensor:
        """The row of each stream that a new example may take, ``(n,)``; ``BLANK`` where there is none.

        Blank rows come first, then the least used. Where we differ from the paper: the only row of a class is never
        taken, so that no class is forgotten as a whole.
        """
        held = self.slots != BLANK
        place = self.slots + 1  # blank rows are counted under 0
        counts = place.new_zeros(len(place), int(place.max()) + 1).scatter_add(1, place, torch.ones_like(place))
        order = self.usage.masked_fill(~held, -1.0).masked_fill(held & (counts.gather(1, place) == 1), torch.inf)
        lowest, row = order.min(1)
        return row.masked_fill(lowest == torch.inf, BLANK)

    def write(self, key: Tensor, slot: Tensor, row: Tensor, merge: Tensor, read: Tensor, *, decay: float) -> "Memory":
        """Write an example of each stream; equations 5 to 8.

        ``merge`` decides between the rows that were read and the least used one; it is 0 or 1, with a gradient. Where
        we differ: merging goes to rows of the example's own class alone, in proportion to how they were read; the label
        is written as soon as its label arrives, which is one step before the paper's network reads it.

        Args:
            key: ``(n, dim)``.
            slot: of the example's class, ``(n,)``.
            row: the least used one, ``(n,)``.
            merge: ``(n,)``.
            read: how each row was read just before, ``(n, rows)``, the mean over the heads.
            decay: of usage, the paper's gamma.
        """
        own = read * (self.slots == slot.unsqueeze(1))
        own = own / own.sum(1, keepdim=True).clamp(min=1e-9)
        taken = F.one_hot(row.clamp(min=0), self.slots.size(1)) * (row != BLANK).unsqueeze(1)
        fresh = (merge.detach() < 0.5).unsqueeze(1) & (taken == 1)
        weights = merge.unsqueeze(1) * own + (1 - merge).unsqueeze(1) * taken
        kept = (~fresh).to(self.keys.dtype)
        added = weights.unsqueeze(2) * key.unsqueeze(1)
        return Memory(
            self.keys * kept.unsqueeze(2) + added,
            torch.where(fresh, slot.unsqueeze(1), self.slots),
            self.strength * kept + weights,
            (decay * self.usage + read + weights).detach(),
        )

    def may_merge(self, slot: Tensor) -> Tensor:
        """Whether a stream holds a row of that class, ``(n,)``."""
        return (self.slots == slot.unsqueeze(1)).any(1)

    def without(self, slot: int) -> "Memory":
        """The memory with the rows of a class made blank."""
        gone = self.slots == slot
        kept = (~gone).to(self.keys.dtype)
        return Memory(
            self.keys * kept.unsqueeze(2),
            self.slots.masked_fill(gone, BLANK),
            self.strength * kept,
            self.usage * kept,
        )
