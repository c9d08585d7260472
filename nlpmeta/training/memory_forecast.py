"""How much memory the steps of a run will take, said before the first of them."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from nlpmeta.data import Episode, LabeledTexts

if TYPE_CHECKING:
    from nlpmeta.training.step import Stepper

_STEPS = 20  # whose episodes are looked at
_PROBES = ((2, 1), (6, 2))  # ways and shots of the two small tasks that are tried
HELD = 1.4
"""What a process holds for its tensors over their own bytes, measured by ``benchmarks/memory_forecast.py``."""
_COPIES = 5
"""Of the weights that train: gradient, two moments of AdamW, the moving average and the best so far."""


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes beyond what the process holds when training starts."""

    tokens: int
    """Of the largest group of episodes that is computed at once, among those that were looked at."""
    activations: int
    weights: int
    """Gradients, optimiser and averages."""

    @property
    def peak(self) -> int:
        """All of it."""
        return self.activations + self.weights

    def __str__(self) -> str:
        return (
            f"about {self.peak / 1e6:,.0f} MB at the peak beside the encoder: {self.activations / 1e6:,.0f} MB for "
            f"{self.tokens:,} tokens at once, {self.weights / 1e6:,.0f} MB for gradients and optimiser"
        )


def forecast_memory(stepper: "Stepper", weights: Mapping[str, nn.Parameter]) -> MemoryForecast:
    """From what two small tasks take, drawn out to the largest of the first steps; the weights are not changed.

    Forward and backward are really computed, with the learner and the settings of the run, so that any learner, first
    or second order, is forecast alike. What is computed chunk by chunk makes it an upper bound.
    """
    episode = stepper.sampler.episode(0)
    with torch.random.fork_rng(devices=[]):
        small, large = (_probe(stepper, _cut(episode, *shape), weights) for shape in _PROBES)
    slope = max(0.0, (large[1] - small[1]) / max(1, large[0] - small[0]))
    fixed = max(0.0, small[1] - slope * small[0])
    groups = [group for step in range(_STEPS) for group in stepper.groups_of(step)]
    tokens, n_tasks = max((stepper.tokens_at_once(group), len(group)) for group in groups)
    return MemoryForecast(
        tokens=tokens,
        activations=int(HELD * (fixed * n_tasks + slope * tokens)),
        weights=_COPIES * sum(weight.nbytes for weight in weights.values()),
    )


def _probe(stepper: "Stepper", episode: Episode, weights: Mapping[str, nn.Parameter]) -> tuple[int, int]:
    """Tokens of a task, and the bytes that its gradient took at the peak."""
    with _Peak([*stepper.learner.parameters(), *stepper.learner.buffers()]) as memory:
        stepper.gradients([episode], 1.0)
    for weight in weights.values():
        weight.grad = None
    return stepper.tokens_at_once([episode]), memory.most


def _cut(episode: Episode, n_way: int, n_shot: int) -> Episode:
    """The first classes of an episode with the first support texts of each and one query text."""
    names = episode.support.label_names[:n_way]
    return Episode(_first(episode.support, names, n_shot), _first(episode.query, names, 1))


def _first(data: LabeledTexts, names: Sequence[str], n: int) -> LabeledTexts:
    part = data.with_classes(names)
    rows: list[int] = []
    for label in range(part.n_way):
        rows += [row for row, each in enumerate(part.labels) if each == label][:n]
    return part.select(rows)


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The bytes of tensors that come into being in a block, at the moment when there are most."""

    def __init__(self, known: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._held = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return
        self._held.add(key)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._held.discard(key)
        self._now -= size
