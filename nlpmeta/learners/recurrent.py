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

_SHARPNESS = (8.0, 16.0, 32.0)  # of the cosines of the heads of attention at the start; it is learned
_TOTAL, _COUNT, _MATRIX = "total", "count", "matrix"
_KEYS, _MOVED, _TRUSTED, _VALUES, _WRITTEN = "keys", "moved", "trusted", "values", "written"
_TINY, _LEAST = 1e-7, 1e-4  # the least shares of attention: their logarithms stay finite
_FAR = -1e4  # a score that no other is below


@learners.register("rnn")
class RecurrentMetaLearner(StreamLearner):
    """Reads a stream of texts and labels with a recurrent network, or with causal attention, that was trained to learn.

    The state of the recurrent network is a matrix that maps the key of a text to the code of its class; see
    ``DeltaRule``. With ``attention`` a text attends to the labelled texts before it; see ``CausalAttention``. Either
    way all that is known of a task is in the state, and what is trained is how texts become keys and how labels are
    written. Source of the interface: Hochreiter, Younger and Conwell, ICANN 2001; Duan et al. 2016 (arXiv:1611.02779);
    Santoro et al. 2016 (arXiv:1605.06065), whose LSTM has to find out how to bind a text to a label, which it hardly
    does: here binding is built in.
    """

    needs_meta_training = True

    def __init__(
        self,
        encoder: "TextEncoder",
        *,
        attention: bool = False,
        hidden: int = 256,
        width: int = 128,
        max_way: int = 64,
        code_dim: int = 64,
        context: int = 512,
        dropout: float = 0.2,
    ) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors.
            attention: causal attention instead of a recurrent network.
            hidden: units of the network that makes keys.
            width: learned features of a key, beside the embedding itself.
            max_way: the most classes of a stream.
            code_dim: numbers of a class's code; at least ``max_way``, as codes are orthonormal.
            context: the labelled texts that attention reaches back to; unused without.
            dropout: of embeddings in meta-training.
        """
        super().__init__(encoder, max_way=max_way, code_dim=code_dim)
        check_share(dropout=dropout)
        if min(hidden, context, width) < 1:
            raise NLPMetaError(f"hidden, context and width must be positive; got {hidden}, {context} and {width}.")
        if code_dim < max_way:
            raise NLPMetaError(f"Codes at right angles need code_dim of at least max_way, {max_way}; got {code_dim}.")
        self.attention, self.hidden, self.width, self.context = attention, hidden, width, context
        self.dropout = nn.Dropout(dropout)
        key_dim = encoder.dim + width
        with torch.device("cpu"):  # the same start on every device
            self.codes = nn.Parameter(nn.init.orthogonal_(torch.empty(max_way, code_dim)), requires_grad=False)
            self.texts = RunningKeys(encoder.dim, hidden=hidden, width=width, dropout=dropout)
            self.binding: DeltaRule | CausalAttention = (
                CausalAttention(key_dim, code_dim, window=context) if attention else DeltaRule(key_dim, code_dim)
            )
        self.to(encoder.device)

    def blank(self) -> TaskState:
        place = self.encoder.device
        total, count = torch.zeros(1, self.encoder.dim, device=place), torch.zeros(1, device=place)
        return {_TOTAL: total, _COUNT: count, **self.binding.blank()}

    def look(self, memory: TaskState, features: Tensor, codes: Tensor, slots: Tensor | None) -> StepOutput:
        features = self.dropout(features)
        total, count = memory[_TOTAL] + features, memory[_COUNT] + 1
        keys = self.texts(features, total, count.unsqueeze(1))
        reading = self.binding.ask(memory, keys)
        scores = self.binding.scores(reading.unsqueeze(1), codes).squeeze(1)
        if slots is None:
            return StepOutput(scores, memory)
        written = self.binding.written(memory, keys, _codes_at(codes, slots), reading)
        return StepOutput(scores, {_TOTAL: total, _COUNT: count, **written})

    def run(self, features: Tensor, slots: Tensor, codes: Tensor) -> Tensor:
        """As the steps one by one, computed side by side."""
        labels = codes.gather(1, slots.unsqueeze(2).expand(-1, -1, self.code_dim))
        features = self.dropout(features)
        count = torch.arange(1, features.size(1) + 1, device=features.device).view(1, -1, 1)
        keys = self.texts(features, features.cumsum(1), count)
        return self.binding.scores(self.binding.run(keys, labels), codes)

    def config(self) -> dict[str, Option]:
        return {
            "attention": self.attention,
            "hidden": self.hidden,
            "width": self.width,
            "max_way": self.max_way,
            "code_dim": self.code_dim,
            "context": self.context,
            "dropout": self.dropout.p,
        }


@learners.register("snail")
class AttentiveMetaLearner(RecurrentMetaLearner):
    """``RecurrentMetaLearner`` with its attention switched on, under a name of its own."""

    def __init__(
        self,
        encoder: "TextEncoder",
        *,
        attention: bool = True,
        hidden: int = 256,
        width: int = 128,
        max_way: int = 64,
        code_dim: int = 64,
        context: int = 512,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(
            encoder,
            attention=attention,
            hidden=hidden,
            width=width,
            max_way=max_way,
            code_dim=code_dim,
            context=context,
            dropout=dropout,
        )


def _codes_at(codes: Tensor, slots: Tensor) -> Tensor:
    """The code of a slot of each stream, ``(n, code_dim)``."""
    return codes[torch.arange(len(slots), device=slots.device), slots]


class RunningKeys(nn.Module):
    """Keys of unit length: the embedding less the mean of its stream so far, and learned features of that beside it.

    Embeddings of one language or topic share most of their direction; without it the cosines of a stream tell its
    classes apart from its second text on. A stream begins with a mean that was learned and counts as some texts.
    """

    def __init__(self, dim: int, *, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(dim))
        self.log_prior = nn.Parameter(torch.tensor(0.0))  # of the texts that the learned mean counts as
        self.share = nn.Parameter(torch.tensor(0.1))  # of the learned features
        self.features = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, features: Tensor, total: Tensor, count: Tensor) -> Tensor:
        """Keys ``(…, dim + width)`` of texts; ``total`` and ``count`` are of their streams, these texts included."""
        prior = self.log_prior.exp()
        centred = F.normalize(features - (prior * self.centre + total) / (prior + count), dim=-1)
        learned = F.normalize(self.features(centred * features.size(-1) ** 0.5), dim=-1)  # unit vectors are small
        return F.normalize(torch.cat([centred, self.share * learned], dim=-1), dim=-1)


class DeltaRule(nn.Module):
    """A matrix as the state of a recurrent network: a label moves what its text's key reads towards the label's code.

    Source: Schlag, Irie and Schmidhuber, ICML 2021 (arXiv:2102.11174), equations 18 to 24, without the sum of keys.
    Where we differ: keys and queries are the same, and how far a label moves the matrix is learned from how well its
    class, and any class, was read before. Computed side by side it is the same sum over earlier keys, after Yang et
    al. 2024 (arXiv:2406.06484).
    """

    def __init__(self, key_dim: int, code_dim: int) -> None:
        super().__init__()
        self.key_dim, self.code_dim = key_dim, code_dim
        self.gate = nn.Linear(2, 1)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        with torch.no_grad():  # at the start half of the way for what is new, little for what is known
            self.gate.weight.copy_(torch.tensor([[-3.0, 0.0]]))
            self.gate.bias.zero_()

    def blank(self) -> TaskState:
        return {_MATRIX: torch.zeros(1, self.key_dim, self.code_dim, device=self.log_scale.device)}

    def run(self, keys: Tensor, values: Tensor) -> Tensor:
        """What each text ``(n, length, ·)`` reads before its own label is revealed, ``(n, length, code_dim)``."""
        alike = keys @ keys.transpose(1, 2)
        readings, moves = [torch.zeros_like(values[:, 0])], [self._move(torch.zeros_like(values[:, 0]), values[:, 0])]
        for step in range(1, keys.size(1)):
            readings.append((alike[:, step, :step].unsqueeze(1) @ torch.stack(moves, dim=1)).squeeze(1))
            moves.append(self._move(readings[-1], values[:, step]))
        return torch.stack(readings, dim=1)

    def ask(self, memory: TaskState, keys: Tensor) -> Tensor:
        """What texts read ``(n, code_dim)``, each from its stream or all from the only one."""
        return (keys.unsqueeze(1) @ memory[_MATRIX]).squeeze(1)

    def written(self, memory: TaskState, keys: Tensor, values: Tensor, reading: Tensor) -> TaskState:
        """The matrix after one labelled text of each stream; ``reading`` is what it read."""
        return {_MATRIX: memory[_MATRIX] + keys.unsqueeze(2) * self._move(reading, values).unsqueeze(1)}

    def scores(self, reading: Tensor, codes: Tensor) -> Tensor:
        """Scores ``(n, length, n_slots)`` of what was read."""
        return self.log_scale.exp() * (reading @ codes.transpose(1, 2))

    def _move(self, reading: Tensor, value: Tensor) -> Tensor:
        own = (reading * value).sum(1, keepdim=True)
        length = (reading.square().sum(1, keepdim=True) + _TINY).sqrt()
        moved: Tensor = self.gate(torch.cat([own, length], dim=1)).sigmoid() * (value - reading)
        return moved


class CausalAttention(nn.Module):
    """Two layers of attention on the cosines of keys: from labelled texts to those before them, then from a text.

    In the first a labelled text moves its key towards those of its class so far, so that later keys stand for more
    examples; in the second a text reads the codes of classes. Source: SNAIL, Mishra, Rohaninejad, Chen and Abbeel,
    ICLR 2018 (arXiv:1707.03141). Where we differ: queries, keys and values are the keys and codes themselves and the
    heads have a sharpness each, so that every answer is a soft nearest neighbour however long the stream; there are no
    convolutions, as the order of texts says little of their classes; and there is a window of labelled texts.
    """

    def __init__(self, key_dim: int, code_dim: int, *, window: int) -> None:
        """``window`` labelled texts are kept."""
        super().__init__()
        self.key_dim, self.code_dim, self.window = key_dim, code_dim, window
        self.log_sharpness = nn.Parameter(torch.tensor(_SHARPNESS).log())
        self.head_weights = nn.Parameter(torch.zeros(len(_SHARPNESS)))
        self.log_power = nn.Parameter(torch.tensor(0.0))  # of the shares of classes
        self.log_alike, self.log_same = (nn.Parameter(torch.tensor(each).log()) for each in (2.0, 3.0))
        self.pull = nn.Parameter(torch.tensor(1.0))  # of the class on the key of a text of it
        self.trust = nn.Parameter(torch.tensor(1.0))  # in keys that stand for more examples
        self.own = nn.Parameter(torch.tensor(0.0))  # how much more a text attends to itself

    def blank(self) -> TaskState:
        place = self.log_power.device
        keys = torch.zeros(1, self.window, self.key_dim, device=place)
        values = torch.zeros(1, self.window, self.code_dim, device=place)
        written = torch.zeros(1, dtype=torch.long, device=place)
        trusted = torch.zeros(1, self.window, device=place)
        return {_KEYS: keys, _MOVED: keys.clone(), _TRUSTED: trusted, _VALUES: values, _WRITTEN: written}

    def run(self, keys: Tensor, values: Tensor) -> Tensor:
        """What each text ``(n, length, ·)`` reads before its own label is revealed, ``(n, length, code_dim)``."""
        steps = torch.arange(keys.size(1), device=keys.device)
        age = steps.unsqueeze(1) - steps
        seen = (age > 0) & (age <= self.window)
        moved, trusted = self._moved(keys, values, keys, values, seen)
        return self._read(keys, moved, trusted, values, seen)

    def ask(self, memory: TaskState, keys: Tensor) -> Tensor:
        """What texts read ``(n, code_dim)``, each from its stream or all from the only one."""
        moved, trusted, values = (memory[name] for name in (_MOVED, _TRUSTED, _VALUES))
        return self._read(keys.unsqueeze(1), moved, trusted, values, self._seen(memory)).squeeze(1)

    def written(self, memory: TaskState, keys: Tensor, values: Tensor, reading: Tensor) -> TaskState:
        """The window after one labelled text of each stream; the oldest gives way."""
        rows, place = torch.arange(len(keys), device=keys.device), memory[_WRITTEN] % self.window
        seen = self._seen(memory)
        moved, trusted = self._moved(keys.unsqueeze(1), values.unsqueeze(1), memory[_KEYS], memory[_VALUES], seen)
        kept = {name: memory[name].clone() for name in (_KEYS, _MOVED, _TRUSTED, _VALUES)}
        for name, new in zip(kept, (keys, moved[:, 0], trusted[:, 0], values), strict=True):
            kept[name][rows, place] = new
        return {**kept, _WRITTEN: memory[_WRITTEN] + 1}

    def scores(self, reading: Tensor, codes: Tensor) -> Tensor:
        """Scores ``(n, length, n_slots)`` of what was read: logarithms of the shares of attention of the classes."""
        return self.log_power.exp() * (reading @ codes.transpose(1, 2)).clamp(min=_TINY).log()

    def _seen(self, memory: TaskState) -> Tensor:
        """Which places of the window hold a text, ``(n, 1, window)``."""
        written = memory[_WRITTEN]
        return (torch.arange(self.window, device=written.device) < written.unsqueeze(1)).unsqueeze(1)

    def _moved(self, keys: Tensor, values: Tensor, held: Tensor, labels: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The keys of labelled texts ``(n, m, ·)`` after the first layer, and the logarithm of what they stand for."""
        alike, same = self.log_alike.exp(), self.log_same.exp()
        scores = alike * (keys @ held.transpose(1, 2)) + same * (values @ labels.transpose(1, 2))
        own = (alike + same + self.own).expand(*scores.shape[:2], 1)
        shares = torch.cat([scores.masked_fill(~seen, _FAR), own], dim=2).softmax(2)
        of_own = shares[:, :, -1:]
        moved = F.normalize(of_own * keys + self.pull * (shares[:, :, :-1] @ held), dim=-1)
        return moved, -self.trust * of_own.squeeze(2).clamp(min=_LEAST).log()

    def _read(self, queries: Tensor, keys: Tensor, trusted: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """The codes that ``queries`` ``(n, m, key_dim)`` read where they may look, ``(n or 1, m, length)``."""
        cosines, weights = queries @ keys.transpose(1, 2), self.head_weights.softmax(0)
        attended = torch.zeros_like(cosines)
        for sharpness, weight in zip(self.log_sharpness.exp(), weights, strict=True):
            scores = (sharpness * cosines + trusted.unsqueeze(1)).masked_fill(~seen, _FAR)
            attended = attended + weight * scores.softmax(2)
        read: Tensor = (attended * seen) @ values
        return read
