"""Alarms: what is no longer as it was, by labels, by texts, by bursts of like texts; and the record of a stream."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nlpmeta.errors import NLPMetaError

_MOST_LOSSES = 5000
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
        losses = (*self.losses, loss) if len(self.losses) < _MOST_LOSSES else self.losses
        return DriftAlarm(self.one_in, self.seed, losses, statistics, self.n_seen + 1)

    def again(self) -> "DriftAlarm":
        """A fresh one, for after an alarm."""
        return DriftAlarm(self.one_in, self.seed + 1)


WINDOW = 16
"""Texts before a new one that it is held against. Chosen, as the level of the alarm, on YouTube comment spam."""
_MOST = 1024  # earlier texts, drawn at random from all


@dataclass(frozen=True, eq=False)
class Burst:
    """How alike newest texts are, and the alarm over it: a value; ``after`` gives the next one.

    A new text is compared with the ``WINDOW`` texts before it and with all ``earlier`` ones, which also say how near a
    text of its kind usually has others. The rank of each of the window's cosines among the earlier ones is as likely
    high as low while the order of texts means nothing; the mean of ``-log(1 - rank)`` over the window is what the alarm
    watches.

    ``recent`` ``(n <= WINDOW, dim)`` and ``earlier`` ``(n, dim)`` are embeddings of unit length. As windows overlap,
    what the alarm sees is not independent, and its stated rate of false alarms is not guaranteed here but measured
    (``benchmarks/spam_stream.py``).
    """

    alarm: DriftAlarm
    earlier: Tensor
    recent: Tensor
    n_earlier: int

    @classmethod
    def begin(cls, texts: Tensor, alarm: DriftAlarm) -> "Burst":
        """The start, with texts of unit length that are known ``(n, dim)``, in no order."""
        return cls(alarm, texts[:_MOST], texts[:0], len(texts))

    def after(self, text: Tensor) -> "Burst":
        """Once a text of unit length ``(dim,)`` has come."""
        if len(self.recent) < WINDOW:
            return replace(self, recent=torch.cat([self.recent, text[None]]))
        alarm = self.alarm.after(likeness(self.earlier @ text, self.recent @ text))
        aged = self._with_earlier(self.recent[0])
        return replace(aged, alarm=alarm, recent=torch.cat([self.recent[1:], text[None]]))

    def again(self) -> "Burst":
        """With a fresh alarm, for after it sounded; texts are remembered."""
        return replace(self, alarm=self.alarm.again())

    def _with_earlier(self, text: Tensor) -> "Burst":
        """One text more, or in the place of another, so that all earlier ones stay equally likely to be kept.

        Source: reservoir sampling, Vitter, ACM Transactions on Mathematical Software 11, 1985, algorithm R.
        """
        n_earlier = self.n_earlier + 1
        if len(self.earlier) < _MOST:
            return replace(self, earlier=torch.cat([self.earlier, text[None]]), n_earlier=n_earlier)
        place = int(np.random.default_rng([self.alarm.seed, n_earlier]).integers(n_earlier))
        if place >= _MOST:
            return replace(self, n_earlier=n_earlier)
        earlier = self.earlier.clone()
        earlier[place] = text
        return replace(self, earlier=earlier, n_earlier=n_earlier)


def likeness(earlier: Tensor, recent: Tensor) -> float:
    """The mean over ``recent`` cosines ``(m,)`` of minus the logarithm of the share of ``earlier`` ones ``(n,)`` above.

    1 on average while recent ones are like the earlier ones, more where they are higher; at most ``log(n + 1)``.
    """
    below = torch.searchsorted(earlier.sort().values, recent).double()
    return float(math.log(len(earlier) + 1) - (len(earlier) + 1 - below).log().mean())


SeenBy = Literal["labels", "texts", "burst"]


@dataclass(frozen=True)
class Alarm:
    """The stream has changed: seen at text ``n_texts`` and label ``n_labels`` of the stream.

    ``seen_by`` is ``labels`` where losses rose, ``texts`` where texts came that lie far from the known ones, and
    ``burst`` where many came that are like one another.
    """

    n_texts: int
    n_labels: int
    seen_by: SeenBy


@dataclass(frozen=True)
class Record:
    """Counts; ``recent`` and ``weight`` fade by ``fading`` with every label."""

    fading: float
    n_texts: int = 0
    n_labels: int = 0
    n_right: int = 0
    recent: float = 0.0
    weight: float = 0.0

    def after_text(self) -> "Record":
        """With one more text."""
        return Record(self.fading, self.n_texts + 1, self.n_labels, self.n_right, self.recent, self.weight)

    def after_label(self, right: bool) -> "Record":
        """With one more label, of a text whose prediction was right or not."""
        return Record(
            self.fading,
            self.n_texts,
            self.n_labels + 1,
            self.n_right + right,
            self.recent * self.fading + right,
            self.weight * self.fading + 1,
        )

    @property
    def accuracy(self) -> float | None:
        """Right predictions among those whose label came; ``None`` before the first."""
        return self.n_right / self.n_labels if self.n_labels else None

    @property
    def recent_accuracy(self) -> float | None:
        """The same with fading."""
        return self.recent / self.weight if self.weight else None
