"""Recurrent meta-learners: no memory but what a network carries along, or what it can attend to."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Option, TaskState, learners
from nlpmeta.learners.streams import StepOutput, StreamLearner
from nlpmeta.settings import check_share

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

_HEADS = 4
_WRITTEN = "written"
_NONE = -1


@learners.register("rnn")
class RecurrentMetaLearner(StreamLearner):
    """Reads a stream of texts and labels with a recurrent network, or with causal attention, that was trained to learn.

    With ``attention`` off it is an LSTM that reads each text with the label of the text before it; all that it knows of
    the task is in its state. Source: Hochreiter, Younger and Conwell, ICANN 2001, in the form of Santoro et al. 2016
    (arXiv:1605.06065), whose memory it is without. With ``attention`` on, a text attends to the labelled texts before
    it. Source: SNAIL, Mishra, Rohaninejad, Chen and Abbeel, ICLR 2018 (arXiv:1707.03141). Where we differ: there are
    blocks of attention alone, as the order of the texts says nothing about their classes, and a window of ``context``
    texts. The answer of either is a vector that is compared with the codes of the classes.
    """

    needs_meta_training = True

    def __init__(
        self,
        encoder: "TextEncoder",
        *,
        attention: bool = False,
        hidden: int = 256,
        max_way: int = 64,
        code_dim: int = 64,
        context: int = 512,
        dropout: float = 0.2,
    ) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors.
            attention: causal attention instead of an LSTM.
            hidden: units of the LSTM, or width of the attention blocks.
            max_way: the most classes of a stream.
            code_dim: numbers of a class's code.
            context: the labelled texts that attention reaches back to; unused without.
            dropout: of embeddings in meta-training.
        """
        super().__init__(encoder, max_way=max_way, code_dim=code_dim)
        check_share(dropout=dropout)
        if min(hidden, context) < 1:
            raise NLPMetaError(f"hidden and context must be positive; got {hidden} and {context}.")
        self.attention, self.hidden, self.context = attention, hidden, context
        self.dropout = nn.Dropout(dropout)
        with torch.device("cpu"):  # the same start on every device
            self.project = nn.Linear(encoder.dim, hidden)
            self.hear = nn.Linear(code_dim, hidden, bias=False)
            self.blocks = CausalAttention(hidden, window=context) if attention else None
            self.lstm = None if attention else nn.LSTM(hidden, hidden, batch_first=True)
            self.answer = nn.Linear(hidden, code_dim)
        if self.lstm is not None:  # a forget gate that starts open: Jozefowicz, Zaremba and Sutskever, ICML 2015
            with torch.no_grad():
                dict(self.lstm.named_parameters())["bias_ih_l0"][hidden : 2 * hidden] = 1.0
        self.to(encoder.device)

    def blank(self) -> TaskState:
        if self.blocks is not None:
            return self.blocks.blank()
        place = self.encoder.device
        zeros = torch.zeros(1, self.hidden, device=place)
        return {"hidden": zeros, "cell": zeros.clone(), "last": torch.full((1,), _NONE, device=place)}

    def look(self, memory: TaskState, features: Tensor, codes: Tensor, slots: Tensor | None) -> StepOutput:
        if self.blocks is not None:
            labelled = None if slots is None else self._texts(features) + self.hear(_codes_at(codes, slots))
            answers = self.blocks.ask(memory, self._texts(features))
            after = memory if labelled is None else self.blocks.written(memory, labelled)
        else:
            answers, after = self._lstm_step(memory, features, codes, slots)
        return StepOutput(self._scores(answers.unsqueeze(1), codes).squeeze(1), after)

    def run(self, features: Tensor, slots: Tensor, codes: Tensor) -> Tensor:
        """As the steps one by one, computed side by side."""
        label_codes = self.hear(codes.gather(1, slots.unsqueeze(2).expand(-1, -1, self.code_dim)))
        texts = self._texts(features)
        if self.blocks is not None:
            return self._scores(self.blocks.run(texts, texts + label_codes), codes)
        assert self.lstm is not None  # noqa: S101  # for the type checker
        before = torch.cat([torch.zeros_like(label_codes[:, :1]), label_codes[:, :-1]], dim=1)
        return self._scores(self.lstm(texts + before)[0], codes)

    def config(self) -> dict[str, Option]:
        return {
            "attention": self.attention,
            "hidden": self.hidden,
            "max_way": self.max_way,
            "code_dim": self.code_dim,
            "context": self.context,
            "dropout": self.dropout.p,
        }

    def _lstm_step(
        self, memory: TaskState, features: Tensor, codes: Tensor, slots: Tensor | None
    ) -> tuple[Tensor, TaskState]:
        """What the LSTM answers ``(n, hidden)``, and its state."""
        assert self.lstm is not None  # noqa: S101  # for the type checker
        n, last = len(features), memory["last"]
        label_codes = self.hear(_codes_at(codes, last.clamp(min=0))) * (last != _NONE).unsqueeze(1)
        state = tuple(memory[name].expand(n, -1).unsqueeze(0).contiguous() for name in ("hidden", "cell"))
        answers, (hidden, cell) = self.lstm((self._texts(features) + label_codes).unsqueeze(1), state)
        if slots is None:
            return answers[:, 0], memory
        return answers[:, 0], {"hidden": hidden[0], "cell": cell[0], "last": slots.view(-1)}

    def _texts(self, features: Tensor) -> Tensor:
        projected: Tensor = self.project(
            self.dropout(features) * features.size(-1) ** 0.5
        )  # unit vectors are small inputs
        return projected

    def _scores(self, answers: Tensor, codes: Tensor) -> Tensor:
        """Answers ``(n, length, hidden)`` against the codes; ``(n, length, n_slots)``."""
        scores: Tensor = self.answer(answers) @ codes.transpose(1, 2)
        return scores


@learners.register("snail")
class AttentiveMetaLearner(RecurrentMetaLearner):
    """``RecurrentMetaLearner`` with its attention switched on, under a name of its own."""

    def __init__(
        self,
        encoder: "TextEncoder",
        *,
        attention: bool = True,
        hidden: int = 128,
        max_way: int = 64,
        code_dim: int = 64,
        context: int = 512,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(
            encoder,
            attention=attention,
            hidden=hidden,
            max_way=max_way,
            code_dim=code_dim,
            context=context,
            dropout=dropout,
        )


def _codes_at(codes: Tensor, slots: Tensor) -> Tensor:
    """The code of a slot of each stream, ``(n, code_dim)``."""
    return codes[torch.arange(len(slots), device=slots.device), slots]


class CausalAttention(nn.Module):
    """Texts attend to the labelled texts before them; labelled texts to those before and to themselves.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), with the layer norm before each part.
    """

    def __init__(self, width: int, *, window: int) -> None:
        """``width`` numbers a text, ``window`` labelled texts that are kept."""
        super().__init__()
        self.width, self.window = width, window
        self.first, self.second = _Block(width), _Block(width)

    @property
    def _blocks(self) -> tuple["_Block", ...]:
        return self.first, self.second

    def run(self, queries: Tensor, labelled: Tensor) -> Tensor:
        """Answers ``(n, length, width)`` to texts, from the same texts with labels, both ``(n, length, width)``."""
        length = labelled.size(1)
        steps = torch.arange(length, device=labelled.device)
        age = steps.unsqueeze(1) - steps
        # A labelled text sees itself; the same text as a query sees those before it. The window counts what is kept.
        labelled_mask = (age >= 0) & (age <= self.window)
        query_mask = (age > 0) & (age <= self.window)
        for block in self._blocks:
            keys, values = block.offered(labelled)
            queries, labelled = block(queries, keys, values, query_mask), block(labelled, keys, values, labelled_mask)
        return queries

    def blank(self) -> dict[str, Tensor]:
        """The window of one stream that has seen nothing."""
        place = self.first.out.weight.device
        zeros = torch.zeros(1, len(self._blocks), self.window, self.width, device=place)
        return {"keys": zeros, "values": zeros.clone(), _WRITTEN: torch.zeros(1, dtype=torch.long, device=place)}

    def ask(self, memory: dict[str, Tensor], texts: Tensor) -> Tensor:
        """Answers ``(n, width)`` to texts ``(n, width)``, each against its stream or all against the only one."""
        queries = texts.unsqueeze(1)
        seen = self._seen(memory)
        for i, block in enumerate(self._blocks):
            keys, values = (memory[name][:, i].expand(len(queries), -1, -1) for name in ("keys", "values"))
            queries = block(queries, keys, values, seen)
        return queries[:, 0]

    def written(self, memory: dict[str, Tensor], labelled: Tensor) -> dict[str, Tensor]:
        """The window after one labelled text of each stream, ``(n, width)``; the oldest gives way."""
        labelled, rows = labelled.unsqueeze(1), torch.arange(len(labelled), device=labelled.device)
        place = memory[_WRITTEN] % self.window
        every: dict[str, list[Tensor]] = {"keys": [], "values": []}
        seen = self._seen(memory)
        own = torch.ones_like(seen[..., :1])
        for i, block in enumerate(self._blocks):
            before = {name: memory[name][:, i].clone() for name in every}
            new = dict(zip(every, block.offered(labelled), strict=True))
            with_own = {name: torch.cat([before[name], new[name]], dim=1) for name in every}
            labelled = block(labelled, with_own["keys"], with_own["values"], torch.cat([seen, own], dim=2))
            for name, kept in every.items():
                before[name][rows, place] = new[name][:, 0]
                kept.append(before[name])
        return {**{name: torch.stack(kept, dim=1) for name, kept in every.items()}, _WRITTEN: memory[_WRITTEN] + 1}

    def _seen(self, memory: dict[str, Tensor]) -> Tensor:
        """Which places of the window hold a text, ``(n, 1, window)``."""
        written = memory[_WRITTEN]
        return (torch.arange(self.window, device=written.device) < written.unsqueeze(1)).unsqueeze(1)


class _Block(nn.Module):
    """Attention, then a small network on each text; what is offered to attention is computed once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.offer = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def offered(self, labelled: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of labelled texts, ``(n, length, width)`` each."""
        keys, values = self.offer(self.norm(labelled)).chunk(2, dim=-1)
        return keys, values

    def forward(self, texts: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """``texts`` ``(n, m, width)`` after attending to what they may see, ``(n or 1, m, length)``."""
        query, keys, values = (self._heads(each) for each in (self.query(self.norm(texts)), keys, values))
        seen = seen if seen.dim() == 3 else seen.unsqueeze(0)
        # One more place that everyone sees and that holds nothing, for texts that see no other.
        keys, values = (F.pad(each, (0, 0, 1, 0)) for each in (keys, values))
        mixed = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=F.pad(seen, (1, 0), value=True).unsqueeze(1)
        )
        texts = texts + self.out(mixed.transpose(1, 2).flatten(2))
        result: Tensor = texts + self.inner(self.norm_inner(texts))
        return result

    def _heads(self, each: Tensor) -> Tensor:
        n, length, width = each.shape
        return each.view(n, length, _HEADS, width // _HEADS).transpose(1, 2)
