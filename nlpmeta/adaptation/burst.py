"""A campaign seen without labels: texts that come soon after one another and are unusually alike."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nlpmeta.adaptation.drift import DriftAlarm

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
