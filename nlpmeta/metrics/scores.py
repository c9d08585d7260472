"""Run a learner over episodes, with intervals."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nlpmeta.data import Episode
from nlpmeta.episodes import Sampler
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Embed as Embed
from nlpmeta.learners.base import Learner, Texts
from nlpmeta.metrics import Bins, accuracy, error_of_bins, macro_f1
from nlpmeta.progress import track

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
FEWEST_TEXTS = 30
"""Scored texts below which a share says little: its interval is then 35 points wide."""
MOST_SAID = 0.5
"""Half the width of an interval that says nothing of a share: it spans a hundred points."""
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
        """``{"mean": …, "ci95": …}``, with ``null`` for what is unknown."""
        return {"mean": _plain(self.mean), "ci95": _plain(self.ci95)}

    def percent(self) -> str:
        """``84.0 ± 1.2``, in percent; without the interval where that spans more than all there is, as of two draws."""
        if math.isnan(self.mean):
            return "-"
        half = "" if math.isnan(self.ci95) or self.ci95 > MOST_SAID else f" ± {100 * self.ci95:.1f}"
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


def pooled_error(bins: Bins) -> Interval:
    """The calibration error over the query texts of all episodes, ``bins`` ``(n_episodes, n_bins, 3)``.

    Episodes are pooled because the error of a few texts is far too large on average. The interval is the jackknife's
    (Efron and Tibshirani 1993, chapter 11).
    """
    from scipy.stats import t

    n, whole = len(bins), bins.sum(0)
    if n == 1:
        return Interval(float(error_of_bins(whole)), math.nan)
    without_one = error_of_bins(whole - bins)
    spread = math.sqrt((n - 1) / n * float(((without_one - without_one.mean()) ** 2).sum()))
    return Interval(float(error_of_bins(whole)), float(t.ppf(0.975, n - 1)) * spread)


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
        """``{"mean": …, "low": …, "high": …}``, with ``null`` for what is unknown."""
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


@dataclass(frozen=True, eq=False)
class EpisodeScore:
    """What one learner did on one episode."""

    episode: Episode
    probabilities: Tensor
    """``(n_query, n_way)``."""
    adapt_seconds: float
    chosen: str | None = None
    """The head that was chosen, for a learner that chooses."""
    out_of_scope: Tensor | None = None
    """Probabilities of the texts out of scope, ``(n_out_of_scope, n_way)``, where the episode has any."""

    @property
    def predictions(self) -> list[int]:
        """The predicted class of each query text."""
        labels: list[int] = self.probabilities.argmax(1).tolist()
        return labels

    @property
    def accuracy(self) -> float:
        """The share of query texts that were classified right."""
        return accuracy(self.episode.query.labels, self.predictions)

    @property
    def macro_f1(self) -> float:
        """The unweighted mean of the F1 of the classes that occur."""
        return macro_f1(self.episode.query.labels, self.predictions)


@torch.no_grad()
def score_episode(
    learner: Learner, episode: Episode, embed: Embed | None = None, *, weights: Sequence[float] | None = None
) -> EpisodeScore:
    """Adapt to the support of ``episode`` and score its query and its texts out of scope.

    Args:
        learner: in evaluation mode.
        episode: the task.
        embed: where the embeddings come from, for a learner that works on embeddings; its own encoder by default.
        weights: how many texts each text of the support counts as, for a learner that uses it.
    """
    start = time.perf_counter()
    support = learner.support(episode.support, embed)
    if weights is not None:
        support = replace(support, weights=torch.tensor(weights, dtype=torch.float64, device=support.labels.device))
    state = learner.adapt(support)
    seconds = time.perf_counter() - start
    texts = episode.query.texts + episode.out_of_scope
    predictor = learner.predictor(state)
    probabilities = predictor.logits(Texts(texts, _features(learner, embed, texts))).softmax(1)
    n_query = len(episode.query)
    outside = probabilities[n_query:] if episode.out_of_scope else None
    return EpisodeScore(episode, probabilities[:n_query], seconds, predictor.choice, outside)


def score_episodes(
    learner: Learner, sampler: Sampler, n_episodes: int, *, embed: Embed | None = None, show_progress: bool = False
) -> list[EpisodeScore]:
    """``score_episode`` on episodes 0 to ``n_episodes - 1``."""
    learner.eval()
    scores = []
    with track("Episodes", n_episodes, show=show_progress) as advance:
        for index in range(n_episodes):
            scores.append(score_episode(learner, sampler.episode(index), embed))
            advance(1)
    return scores


def accuracy_over(scores: Sequence[EpisodeScore], *, pooled: bool) -> Interval | Proportion:
    """The mean accuracy of episodes, or with ``pooled`` (no text is scored twice) the share of all their texts."""
    if not pooled:
        return Interval.of([score.accuracy for score in scores])
    right = sum(
        true == guess
        for score in scores
        for true, guess in zip(score.episode.query.labels, score.predictions, strict=True)
    )
    return Proportion(right, sum(len(score.episode.query) for score in scores))


def confused_pairs(scores: Sequence[EpisodeScore], most: int = 5) -> list[tuple[str, str, int]]:
    """The pairs (true label, predicted label) that were mistaken most often, with the number of texts.

    A text that several episodes mistook for the same class counts once.
    """
    from collections import Counter

    mistaken = {
        (score.episode.query.label_names[true], score.episode.query.label_names[guess], text)
        for score in scores
        for text, true, guess in zip(
            score.episode.query.texts, score.episode.query.labels, score.predictions, strict=True
        )
        if true != guess
    }
    pairs = Counter((true, guess) for true, guess, _ in mistaken)
    return [(true, guess, count) for (true, guess), count in sorted(pairs.items(), key=lambda p: (-p[1], p[0]))[:most]]


def _features(learner: Learner, embed: Embed | None, texts: tuple[str, ...]) -> Tensor | None:
    return embed(texts) if embed is not None and learner.inputs == "embeddings" else None
