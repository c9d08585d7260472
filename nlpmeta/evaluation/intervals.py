"""How sure a mean is, and whether one method is better than another on the same episodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.errors import NLPMetaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
FEWEST_TEXTS = 30
"""Scored texts below which a share says little: its interval is then 35 points wide."""
_DRAWS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and the half-width of its 95 % t-interval (NaN where one value cannot tell)."""

    mean: float
    ci95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of independent values."""
        from scipy.stats import t

        n = len(values)
        spread = float(np.std(values, ddof=1)) if n > 1 else math.nan
        half = float(t.ppf(0.975, n - 1)) * spread / math.sqrt(n) if n > 1 else math.nan
        return cls(float(np.mean(values)), half)

    def json(self) -> dict[str, float | None]:
        """``{"mean": …, "ci95": …}``, with ``null`` for what cannot be told."""
        return {"mean": _plain(self.mean), "ci95": _plain(self.ci95)}

    def percent(self) -> str:
        """``84.0 ± 1.2``, in percent."""
        half = "" if math.isnan(self.ci95) else f" ± {100 * self.ci95:.1f}"
        return f"{100 * self.mean:.1f}{half}"


@dataclass(frozen=True)
class Proportion:
    """A share of ``n`` independent texts, with Wilson's 95 % interval (Wilson 1927; Brown, Cai and DasGupta 2001).

    Raises:
        NLPMetaError: if ``n`` is less than 1 or ``right`` no part of it.
    """

    right: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.n or self.n < 1:
            raise NLPMetaError(f"A share needs texts; got {self.right} of {self.n}.")

    @property
    def mean(self) -> float:
        """The share itself."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end."""
        from scipy.stats import binomtest

        found = binomtest(self.right, self.n).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)

    def json(self) -> dict[str, float | int | None]:
        """``{"mean": …, "low": …, "high": …, "right": …, "n_texts": …}``."""
        low, high = self.interval
        ends = {"mean": _plain(self.mean), "low": _plain(low), "high": _plain(high)}
        return {**ends, "right": self.right, "n_texts": self.n}

    def percent(self) -> str:
        """``84.0 (75.1 to 90.2)``, in percent."""
        low, high = self.interval
        return f"{100 * self.mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def says_little(n_texts: int) -> str | None:
    """A sentence about so few scored texts; ``None`` where there are enough."""
    if n_texts >= FEWEST_TEXTS:
        return None
    texts = "1 text was" if n_texts == 1 else f"{n_texts} texts were"
    return f"only {texts} scored: with fewer than {FEWEST_TEXTS} the figure says little"


@dataclass(frozen=True)
class Difference:
    """A mean difference and its 95 % interval (NaN where one episode cannot tell)."""

    mean: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def json(self) -> dict[str, float | None]:
        """``{"mean": …, "low": …, "high": …}``, with ``null`` for what cannot be told."""
        return {"mean": _plain(self.mean), "low": _plain(self.low), "high": _plain(self.high)}

    def percent(self) -> str:
        """``+1.2 (0.4 to 2.0)``, in points."""
        if math.isnan(self.low):
            return f"{100 * self.mean:+.1f}"
        return f"{100 * self.mean:+.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def paired_difference(baseline: Sequence[float], other: Sequence[float], *, seed: int = 0) -> Difference:
    """The mean of ``other - baseline`` over episodes that both were scored on, with a percentile bootstrap interval.

    Source: Efron and Tibshirani 1993, chapter 13. Where we differ: percentiles are moved outwards as Hesterberg 2015
    (arXiv:1411.5279) proposes, because with five draws the plain interval is a third too narrow.

    Args:
        baseline: a score an episode.
        other: the scores of the other method on the same episodes, in the same order.
        seed: decides which episodes are resampled.

    Raises:
        NLPMetaError: if the methods were not scored on the same number of episodes, or on none.
    """
    from scipy.stats import norm, t

    if len(baseline) != len(other) or not len(other):
        raise NLPMetaError(f"Scores of the same episodes are needed; got {len(baseline)} and {len(other)}.")
    gains = np.asarray(other, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    n = len(gains)
    if n == 1:
        return Difference(float(gains[0]), math.nan, math.nan)
    level = float(norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1)))
    low, high = np.quantile(_resampled_means(gains, seed), [level, 1 - level])
    return Difference(float(gains.mean()), float(low), float(high))


def _resampled_means(gains: "NDArray[np.float64]", seed: int) -> "NDArray[np.float64]":
    """The means of ``RESAMPLES`` samples with replacement, drawn in parts of bounded size."""
    rng = np.random.default_rng(seed)
    part = max(1, _DRAWS_AT_ONCE // len(gains))
    sizes = [min(part, RESAMPLES - start) for start in range(0, RESAMPLES, part)]
    return np.concatenate([gains[rng.integers(len(gains), size=(size, len(gains)))].mean(1) for size in sizes])


def _plain(value: float) -> float | None:
    """A share for JSON, without digits that mean nothing."""
    return None if math.isnan(value) else round(value, 8)
