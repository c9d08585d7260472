"""A drift alarm with a stated rate of false alarms, whatever the errors of the classifier look like."""

import math
from dataclasses import dataclass

import numpy as np

from nlpmeta.errors import NLPMetaError

_MOST = 5000
"""Losses that later ones are ranked among; a longer stream is ranked among its first ones, as in inductive conformal
prediction."""
_POWERS = tuple(round(0.1 * i, 1) for i in range(1, 10))


@dataclass(frozen=True)
class DriftAlarm:
    """Sequential test of the losses of a head that does not change: a value; ``after`` gives the next one.

    Source: the conformal Shiryaev-Roberts procedure, Vovk et al., COPA 2021 (arXiv:2102.10439), section 4. Each loss is
    turned into a conformal p-value, its rank from above among all losses so far (ties broken at random): independent
    and uniform while the stream is exchangeable (Vovk, Gammerman and Shafer 2005, theorem 2.2). Each p-value is bet on
    being small, with stakes ``e * p ** (e - 1)`` for nine ``e``, and each statistic becomes ``(1 + statistic) *
    stake``. The alarm sounds when the mean of the nine reaches ``one_in``.

    Without drift the mean less the number of steps is a martingale, so the expected number of steps to a false alarm is
    ``one_in`` or more and, by Doob's inequality, ``n`` steps hold one with probability ``n / one_in`` or less.
    """

    one_in: int = 20_000
    seed: int = 0
    losses: tuple[float, ...] = ()
    statistics: tuple[float, ...] = (0.0,) * len(_POWERS)
    n_seen: int = 0

    def __post_init__(self) -> None:
        if self.one_in < 1:
            raise NLPMetaError(f"one_in is the number of texts to a false alarm, at least 1; got {self.one_in}.")

    @property
    def level(self) -> float:
        """The statistic; the alarm sounds at ``one_in``."""
        return sum(self.statistics) / len(self.statistics)

    @property
    def sounds(self) -> bool:
        """Whether there is an alarm."""
        return self.level >= self.one_in

    def after(self, loss: float) -> "DriftAlarm":
        """The alarm once it has seen one more loss."""
        chance = float(np.random.default_rng([self.seed, self.n_seen]).uniform(1e-12, 1.0))
        larger = sum(each > loss for each in self.losses)
        equal = sum(each == loss for each in self.losses) + 1
        p_value = (larger + chance * equal) / (len(self.losses) + 1)
        statistics = tuple(
            (1 + statistic) * power * math.exp((power - 1) * math.log(p_value))
            for power, statistic in zip(_POWERS, self.statistics, strict=True)
        )
        losses = (*self.losses, loss) if len(self.losses) < _MOST else self.losses
        return DriftAlarm(self.one_in, self.seed, losses, statistics, self.n_seen + 1)

    def again(self) -> "DriftAlarm":
        """A fresh one, for after an alarm."""
        return DriftAlarm(self.one_in, self.seed + 1)
