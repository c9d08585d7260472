"""The optimiser, its schedule as a function of the step, and the moving average of weights."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner
from nlpmeta.training.settings import TrainSettings


def trainable(learner: Learner) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The adapter's weights and the learner's own, by name.

    Raises:
        NLPMetaError: if there is nothing to train.
    """
    adapters = {name: weight for name, weight in adapter_weights(learner.encoder).items() if weight.requires_grad}
    adapter = {f"encoder.backbone.{name}": weight for name, weight in adapters.items()}
    own = {name: w for name, w in learner.named_parameters() if w.requires_grad and not name.startswith("encoder.")}
    if not adapter and not own:
        raise NLPMetaError("There is nothing to train: the encoder has no adapter that may and the learner no weights.")
    return adapter, own


def make_optimizer(learner: Learner, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with one rate for the adapter and one for the learner's own weights, which do not decay."""
    adapter, own = trainable(learner)
    groups = [
        {"params": list(adapter.values()), "lr": settings.learning_rate, "weight_decay": settings.weight_decay},
        {"params": list(own.values()), "lr": settings.head_learning_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=(0.9, 0.98))


def rate_factor(step: int, settings: TrainSettings) -> float:
    """The share of the highest rate at ``step``: a linear rise, then half a cosine down to ``final_rate``."""
    if step < settings.warmup:
        return (step + 1) / (settings.warmup + 1)
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.final_rate + (1 - settings.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def average_gradients(weights: Mapping[str, nn.Parameter], accelerator: Accelerator) -> None:
    """Replace every gradient by its mean over the processes, in one message."""
    for weight in weights.values():
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    if accelerator.num_processes == 1:
        return
    flat = torch.cat([weight.grad.flatten() for weight in weights.values() if weight.grad is not None])
    flat = accelerator.reduce(flat, reduction="mean")
    for weight, part in zip(weights.values(), flat.split([w.numel() for w in weights.values()]), strict=True):
        weight.grad = part.view_as(weight).clone()


class MovingAverage:
    """An exponential moving average of weights; early steps weigh less, as the average has to start somewhere."""

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self._weights, self._decay = weights, decay
        self.average = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after ``step``."""
        decay = min(self._decay, (1 + step) / (10 + step)) if self._decay else 0.0
        for name, weight in self._weights.items():
            self.average[name].lerp_(weight.detach(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights in place of the current ones for a block."""
        current = {name: weight.detach().clone() for name, weight in self._weights.items()}
        put(self._weights, self.average)
        try:
            yield
        finally:
            put(self._weights, current)


@torch.no_grad()
def put(weights: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    """Copy ``values`` into the weights of the same names."""
    for name, weight in weights.items():
        weight.copy_(values[name])
