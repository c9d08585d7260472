"""The optimiser, its schedule and precision, the average of weights, and the stop at numbers that are not finite."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.errors import NLPMetaError, WorkFailedError
from nlpmeta.learners.base import Learner
from nlpmeta.training import TrainSettings


def trainable(learner: Learner) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The adapter's weights and the learner's own, by name.

    Raises:
        NLPMetaError: if there is nothing to train.
    """
    adapters = {name: weight for name, weight in adapter_weights(learner.encoder).items() if weight.requires_grad}
    adapter = {f"encoder.backbone.{name}": weight for name, weight in adapters.items()}
    own = {name: w for name, w in learner.named_parameters() if w.requires_grad and not name.startswith("encoder.")}
    if not adapter and not own:
        raise NLPMetaError("There is nothing to train: neither the adapters nor the learner have trainable weights.")
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


@contextmanager
def precision(accelerator: Accelerator) -> Iterator[None]:
    """A block in the chosen precision. On a CPU attention stays in float32, where its gradients are sooner there."""
    narrow = accelerator.mixed_precision == "bf16" and accelerator.device.type == "cpu"
    with accelerator.autocast(), _AttentionInFloat32() if narrow else nullcontext():
        yield


class _AttentionInFloat32(TorchFunctionMode):
    """PyTorch's gradient of attention in bfloat16 takes several times as long as in float32 on a CPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            wide = {name: _in_float32(value) for name, value in kwargs.items()}
            return func(*map(_in_float32, args), **wide).to(args[0].dtype)


def _in_float32(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


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


MOST_SKIPPED = 20
"""Steps in a row that loss scaling (fp16) may skip while it looks for a scale that fits."""


class DivergedError(WorkFailedError):
    """A loss, a gradient or a weight is infinite or no number: from here on nothing would be learned.

    ``step`` is the number of the step that was not taken; the learner is left with the last good weights.
    """

    def __init__(self, step: int, what: str, settings: TrainSettings, *, kept: bool = False) -> None:
        """``kept`` says whether the last good weights were written to a folder too."""
        rates = f"learning_rate ({settings.learning_rate:g}) or head_learning_rate ({settings.head_learning_rate:g})"
        where = "are in the folder of the run" if kept else "were kept"
        super().__init__(
            f"Training diverged and stopped at step {step}: {what} not a finite number. The last good weights {where}. "
            f"Lower {rates}, or max_grad_norm ({settings.max_grad_norm:g}), and train again."
        )
        self.step, self.what, self.settings = step, what, settings


class Guard:
    """Watches one run; every process sees the same numbers, so that all stop at the same step."""

    def __init__(self, settings: TrainSettings) -> None:
        self._settings, self._skipped = settings, 0

    def check_losses(self, step: int, losses: Iterable[tuple[str, float]]) -> None:
        """See that the losses of all groups of tasks can count for the weights of these groups.

        Raises:
            DivergedError: if one is not finite.
        """
        if not all(math.isfinite(loss) for _, loss in losses):
            raise DivergedError(step + 1, "the loss is", self._settings)

    def check(self, step: int, loss: float, norm: float, *, scaled: bool) -> bool:
        """See before the weights change that loss and gradient are finite; whether loss scaling skips this step.

        Args:
            step: counted from 0.
            loss: the mean over all processes.
            norm: the length of the gradient.
            scaled: whether losses are scaled (fp16), where gradients that overflow are part of finding the scale.

        Raises:
            DivergedError: if one is not finite.
        """
        if not math.isfinite(loss):
            raise DivergedError(step + 1, "the loss is", self._settings)
        if math.isfinite(norm):
            self._skipped = 0
            return False
        self._skipped += 1
        if not scaled or self._skipped > MOST_SKIPPED:
            raise DivergedError(step + 1, "the gradient is", self._settings)
        return True

    def check_weights(self, step: int, weights: Mapping[str, nn.Parameter]) -> None:
        """See after a step that the weights are finite, by one number.

        Raises:
            DivergedError: if one is not.
        """
        if not bool(torch.stack([weight.detach().abs().max() for weight in weights.values()]).max().isfinite()):
            raise DivergedError(step + 1, "a weight is", self._settings)
