"""Blocks of causal attention over labelled texts, all at once or one by one with a window of what was computed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HEADS = 4
_WRITTEN = "written"


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

    def run(self, asked: Tensor, told: Tensor) -> Tensor:
        """Answers ``(n, length, width)`` to texts, from the same texts with labels, both ``(n, length, width)``."""
        length = told.size(1)
        steps = torch.arange(length, device=told.device)
        age = steps.unsqueeze(1) - steps
        # A labelled text sees itself; the same text, asked, sees those before it. The window counts what is kept.
        for_told = (age >= 0) & (age <= self.window)
        for_asked = (age > 0) & (age <= self.window)
        for block in self._blocks:
            keys, values = block.offered(told)
            asked, told = block(asked, keys, values, for_asked), block(told, keys, values, for_told)
        return asked

    def blank(self) -> dict[str, Tensor]:
        """The window of one stream that has seen nothing."""
        place = self.first.out.weight.device
        zeros = torch.zeros(1, len(self._blocks), self.window, self.width, device=place)
        return {"keys": zeros, "values": zeros.clone(), _WRITTEN: torch.zeros(1, dtype=torch.long, device=place)}

    def ask(self, memory: dict[str, Tensor], texts: Tensor) -> Tensor:
        """Answers ``(n, width)`` to texts ``(n, width)``, each against its stream or all against the only one."""
        asked = texts.unsqueeze(1)
        seen = self._seen(memory)
        for i, block in enumerate(self._blocks):
            keys, values = (memory[name][:, i].expand(len(asked), -1, -1) for name in ("keys", "values"))
            asked = block(asked, keys, values, seen)
        return asked[:, 0]

    def written(self, memory: dict[str, Tensor], told: Tensor) -> dict[str, Tensor]:
        """The window after one labelled text of each stream, ``(n, width)``; the oldest gives way."""
        told, rows = told.unsqueeze(1), torch.arange(len(told), device=told.device)
        place = memory[_WRITTEN] % self.window
        every: dict[str, list[Tensor]] = {"keys": [], "values": []}
        seen = self._seen(memory)
        own = torch.ones_like(seen[..., :1])
        for i, block in enumerate(self._blocks):
            before = {name: memory[name][:, i].clone() for name in every}
            new = dict(zip(every, block.offered(told), strict=True))
            with_own = {name: torch.cat([before[name], new[name]], dim=1) for name in every}
            told = block(told, with_own["keys"], with_own["values"], torch.cat([seen, own], dim=2))
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

    def offered(self, told: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of labelled texts, ``(n, length, width)`` each."""
        keys, values = self.offer(self.norm(told)).chunk(2, dim=-1)
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
