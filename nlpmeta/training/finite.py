"""Training stops where its numbers stop being numbers, and says at which step and why."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from nlpmeta.errors import WorkFailedError
from nlpmeta.training.settings import TrainSettings

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
            f"Lower {rates}, or max_grad_norm ({settings.max_grad_norm:g}), and train anew."
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
