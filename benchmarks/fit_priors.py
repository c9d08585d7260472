"""How the priors are learned: values at a grid of shots and ways, from auxiliary tasks of all sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.auto.priors import Shrunk, Surface

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOTS, WAYS = (1.0, 2.0, 5.0, 10.0, 16.0), (2.0, 7.0, 20.0, 60.0)
REACH_SHOTS, REACH_WAYS = 0.7, 1.2
"""How far a task counts on the grid, in doublings of shots and ways."""
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, eq=False)
class Size:
    """How large a task was, of which family (a data set) it is, and of which kind (intent, topic, sentiment, ...)."""

    family: str
    n_shot: float
    n_way: int
    n_texts: int
    kind: str


def nearness(sizes: Sequence[Size], n_shot: float, n_way: float) -> "NDArray[np.float64]":
    """How much each task counts at a point of the grid, ``(n_tasks,)``; families count alike.

    Where there is one example a class nothing can be held out, and what is known beforehand is all there is: these
    tasks and the others say nothing about one another.
    """
    shots = np.log2([size.n_shot for size in sizes]) - np.log2(n_shot)
    ways = np.log2([size.n_way for size in sizes]) - np.log2(n_way)
    weights = np.exp(-((shots / REACH_SHOTS) ** 2 + (ways / REACH_WAYS) ** 2) / 2)
    same = np.asarray([size.n_shot == 1 for size in sizes]) == (n_shot == 1)
    weights *= same if same.any() else 1
    families = np.asarray([size.family for size in sizes])
    totals = {family: float(weights[families == family].sum()) for family in set(families.tolist())}
    whole = max(totals.values())
    # A family with many tasks is no more to be believed than one with few; one that is far away stays far.
    alike = {family: (total / whole) ** -0.5 if total else 0.0 for family, total in totals.items()}
    shared: NDArray[np.float64] = weights * np.asarray([alike[family] for family in families.tolist()])
    whole_weight: NDArray[np.float64] = shared / shared.sum()
    return whole_weight


def surface(sizes: Sequence[Size], value: "Callable[[NDArray[np.float64]], NDArray[np.float64]]") -> Surface:
    """``value`` of the tasks' weights at each point of the grid."""
    rows = [[value(nearness(sizes, n_shot, n_way)) for n_way in WAYS] for n_shot in SHOTS]
    return Surface(SHOTS, WAYS, np.asarray(rows, dtype=np.float64))


def weighted_quantile(values: "NDArray[np.float64]", weights: "NDArray[np.float64]", share: float) -> float:
    """The smallest of ``values`` ``(n,)`` that has ``share`` of the weight at or below it."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    place = int(np.searchsorted(reached, share * reached[-1], side="left"))
    return float(values[order][min(place, len(values) - 1)])


@dataclass(frozen=True, eq=False)
class Observed:
    """One quantity of one task: its estimate on the support (``None`` if nothing could be held out), and what was true.

    ``estimate`` has a value for each level, ``(n_levels,)``; ``truth`` are the values of the query, ``(n_query,)``.
    """

    size: Size
    estimate: "NDArray[np.float64] | None"
    truth: "NDArray[np.float64]"


def fit_quantiles(tasks: Sequence[Observed], levels: Sequence[float]) -> Shrunk:
    """Learn to predict, from a support set, the value that a query text exceeds with the probability of each level.

    Source: few-shot conformal prediction with auxiliary tasks, Fisch, Schuster, Jaakkola and Barzilay, ICML 2021
    (arXiv:2102.08898): a quantile is predicted from the few examples of a task, and the prediction is corrected so that
    it holds over tasks. Where we differ: the predictor is a weighted mean of the quantile of the support and of that of
    other tasks of the same size; its weight is the one with the smallest pinball loss; and the correction is learned on
    predictions for kinds of tasks that the predictor did not know.
    """
    blind = _without_own_kind(tasks, lambda some: _quantile_surface(some, levels))
    strength = min(STRENGTHS, key=lambda s: _pinball(tasks, _predicted(tasks, blind, s), levels))
    residuals = [t.truth[:, None] - guess for t, guess in zip(tasks, _predicted(tasks, blind, strength), strict=True)]
    correction = _surface_of_quantiles([task.size for task in tasks], residuals, levels)
    return Shrunk(_quantile_surface(tasks, levels), strength, correction)


def fit_mean(tasks: Sequence[Observed], *, tails: tuple[float, float]) -> tuple[Shrunk, Surface]:
    """Learn to predict the one value of each task's ``truth`` ``(1,)``, and the band around it between ``tails``."""
    blind = _without_own_kind(tasks, _mean_surface)

    def loss(strength: float) -> float:
        errors = [
            task.truth[0] - guess[0] for task, guess in zip(tasks, _predicted(tasks, blind, strength), strict=True)
        ]
        return float(np.square(errors).mean())

    strength = min(STRENGTHS, key=loss)
    errors = [task.truth - guess for task, guess in zip(tasks, _predicted(tasks, blind, strength), strict=True)]
    sizes, flat = [task.size for task in tasks], np.concatenate(errors)
    correction = surface(sizes, lambda weights: np.asarray([weights @ flat]))
    left = [error - correction.at(size.n_shot, size.n_way) for size, error in zip(sizes, errors, strict=True)]
    band = _surface_of_quantiles(
        sizes, [each[:, None].repeat(2, axis=1) for each in left], [1 - tail for tail in tails]
    )
    return Shrunk(_mean_surface(tasks), strength, correction), band


def _without_own_kind(tasks: Sequence[Observed], fit: Callable[[Sequence[Observed]], Surface]) -> dict[str, Surface]:
    kinds = {task.size.kind for task in tasks}
    return {kind: fit([task for task in tasks if task.size.kind != kind]) for kind in sorted(kinds)}


def _predicted(tasks: Sequence[Observed], priors: dict[str, Surface], strength: float) -> "list[NDArray[np.float64]]":
    guesses = []
    for task in tasks:
        size, nothing = task.size, Surface(SHOTS[:1], WAYS[:1], np.zeros((1, 1)))
        shrunk = Shrunk(priors[size.kind], strength, nothing)
        guesses.append(shrunk.at(task.estimate, n_texts=size.n_texts, n_shot=size.n_shot, n_way=size.n_way))
    return guesses


def _pinball(tasks: Sequence[Observed], guesses: "Sequence[NDArray[np.float64]]", levels: Sequence[float]) -> float:
    """The mean over tasks of the loss that a right quantile minimises."""
    shares = 1 - np.asarray(levels)
    losses = []
    for task, guess in zip(tasks, guesses, strict=True):
        error = task.truth[:, None] - guess
        losses.append(np.maximum(shares * error, (shares - 1) * error).mean())
    return float(np.mean(losses))


def _mean_surface(tasks: Sequence[Observed]) -> Surface:
    truth = np.asarray([task.truth[0] for task in tasks])
    return surface([task.size for task in tasks], lambda weights: np.asarray([weights @ truth]))


def _quantile_surface(tasks: Sequence[Observed], levels: Sequence[float]) -> Surface:
    values = [task.truth[:, None].repeat(len(levels), axis=1) for task in tasks]
    return _surface_of_quantiles([task.size for task in tasks], values, levels)


def _surface_of_quantiles(
    sizes: Sequence[Size], values: "Sequence[NDArray[np.float64]]", levels: Sequence[float]
) -> Surface:
    """At each point of the grid the quantile ``1 - level`` of column ``level`` of ``values``; tasks count alike."""
    flat = np.concatenate(values)
    counts = np.asarray([len(each) for each in values])

    def quantiles(weights: "NDArray[np.float64]") -> "NDArray[np.float64]":
        each = np.repeat(weights / counts, counts)
        return np.asarray([weighted_quantile(flat[:, i], each, 1 - level) for i, level in enumerate(levels)])

    return surface(sizes, quantiles)
