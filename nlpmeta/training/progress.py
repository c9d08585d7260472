"""How far a run has come: all of its state that is neither a weight nor the optimiser's."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Progress:
    """Counters of a run; they travel in its checkpoints."""

    step: int = 0
    first: float | None = None
    last: float | None = None
    best: float | None = None
    best_step: int = 0
    waiting: int = 0
    training_sum: float = 0.0
    training_count: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, Tensor] = field(default_factory=dict)
    """The logarithm of the weight of each group of tasks."""
    partitions: dict[str, Tensor] = field(default_factory=dict)
    """The clusters that tasks are drawn from, by the number of their sampler."""

    def improved(self, accuracy: float, weights: Mapping[str, Tensor]) -> bool:
        """Whether ``accuracy`` is the best so far; if so ``weights`` are remembered."""
        self.last = accuracy
        if self.best is not None and accuracy <= self.best:
            self.waiting += 1
            return False
        self.best, self.best_step, self.waiting = accuracy, self.step, 0
        self.best_weights = {name: weight.clone() for name, weight in weights.items()}
        return True

    def ran_out_of_patience(self, patience: int | None) -> bool:
        """Whether held-out accuracy has not risen for ``patience`` measurements."""
        return patience is not None and self.waiting >= patience

    def add_training_accuracy(self, accuracy: float) -> None:
        """Count one step's accuracy towards the mean since the last measurement."""
        self.training_sum += accuracy
        self.training_count += 1

    def take_training_accuracy(self) -> float:
        """That mean; counting starts anew."""
        mean = self.training_sum / max(1, self.training_count)
        self.training_sum, self.training_count = 0.0, 0
        return mean

    def take(self, numbers: Mapping[str, object]) -> None:
        """Go on from what ``numbers`` returned.

        Raises:
            ValueError: if a number is of another kind, or not finite.
        """
        for name, now in self.numbers().items():
            value = numbers.get(name, now)  # an older release may not have counted it
            is_count = isinstance(now, int) and not isinstance(now, float)
            if is_count and not (type(value) is int and 0 <= value < 1 << 53):
                raise ValueError(f"{name} is no count")
            if not is_count and not (isinstance(value, int | float) and math.isfinite(value)) and value is not None:
                raise ValueError(f"{name} is no finite number")
            setattr(self, name, value)

    def numbers(self) -> dict[str, float | int | None]:
        """All but the tensors, for JSON."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, dict)}
