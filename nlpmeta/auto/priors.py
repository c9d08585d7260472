"""What auxiliary tasks taught about candidates, temperatures and label sets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.storage.files import read_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = Path(__file__).parent / "priors.json"


@dataclass(frozen=True, eq=False)
class Surface:
    """Values at some numbers of shots and ways; between these points they are linear in the logarithms of both."""

    shots: tuple[float, ...]
    ways: tuple[float, ...]
    values: "NDArray[np.float64]"
    """``(n_shots, n_ways, ...)``."""

    def __post_init__(self) -> None:
        if self.values.shape[:2] != (len(self.shots), len(self.ways)):
            raise ValueError(f"values of shape {self.values.shape} for {len(self.shots)} shots, {len(self.ways)} ways")

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> "Surface":
        """What ``json`` gave."""
        shots, ways = (tuple(float(each) for each in _list(facts[name])) for name in ("shots", "ways"))
        return cls(shots, ways, np.asarray(facts["values"], dtype=np.float64))

    def json(self) -> dict[str, object]:
        """The same for a file."""
        return {"shots": list(self.shots), "ways": list(self.ways), "values": self.values.round(4).tolist()}

    def at(self, n_shot: float, n_way: float) -> "NDArray[np.float64]":
        """The value ``(...)`` for a task; outside of the points it is that of the nearest one."""
        (low, high, up), (left, right, across) = _between(self.shots, n_shot), _between(self.ways, n_way)
        rows = (1 - up) * self.values[low] + up * self.values[high]
        value: NDArray[np.float64] = (1 - across) * rows[left] + across * rows[right]
        return value


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A quantity of a task, from its estimate on the support set and from what it was on other tasks of its size.

    The estimate counts as much as the texts that it comes from, the prior as ``strength`` texts.
    """

    prior: Surface
    strength: float
    correction: Surface

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> "Shrunk":
        """What ``json`` gave."""
        prior, correction = (Surface.of(_mapping(facts[name])) for name in ("prior", "correction"))
        return cls(prior, float(str(facts["strength"])), correction)

    def json(self) -> dict[str, object]:
        """The same for a file."""
        return {"prior": self.prior.json(), "strength": self.strength, "correction": self.correction.json()}

    def at(
        self, estimate: "NDArray[np.float64] | None", *, n_texts: int, n_shot: float, n_way: int
    ) -> "NDArray[np.float64]":
        """The value for a task; ``estimate`` is ``None`` where nothing could be held out."""
        known = self.prior.at(n_shot, n_way)
        share = 0.0 if estimate is None else n_texts / (n_texts + self.strength)
        value = (1 - share) * known + (share * estimate if estimate is not None else 0.0)
        return np.asarray(value + self.correction.at(n_shot, n_way))


@dataclass(frozen=True, eq=False)
class Profile:
    """What was learned for one way of seeing texts: adapted and frozen encoder side by side, or one encoder.

    Attributes:
        heads: the names of the heads, in the order of ``prior``.
        prior: the weights of the mixture that was best on tasks of that size, ``(n_shots, n_ways, n_heads)``.
        strength: how many held-out texts the prior counts as.
        head_temperatures: what suited the scores of each head, as powers of 2, ``(n_shots, n_ways, n_heads)``.
        temperature_strength: how much these are held on to; see ``judging.fitting_temperature``.
        temperature: what the scores of the mixture are divided by.
        levels: the coverages that ``quantiles`` are for, rising.
        quantiles: the log probability that the true class reaches with each of these probabilities.
        accuracy: the log odds of a right answer, from those on held-out texts.
        band: how far below and above that the accuracies of nine tasks in ten lay, ``(n_shots, n_ways, 2)``.
        clean: the log odds of a right answer on held-out texts that 98 clean tasks in 100 reach.
        scope: weights of the clues to texts out of scope, the last one a constant.
    """

    heads: tuple[str, ...]
    prior: Surface
    strength: float
    head_temperatures: Surface
    temperature_strength: float
    temperature: Surface
    levels: tuple[float, ...]
    quantiles: Shrunk
    accuracy: Shrunk
    band: Surface
    clean: Surface
    scope: tuple[float, ...]

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> "Profile":
        """What ``json`` gave."""
        surfaces = ("prior", "head_temperatures", "temperature", "band", "clean")
        surface = {name: Surface.of(_mapping(facts[name])) for name in surfaces}
        return cls(
            heads=tuple(map(str, _list(facts["heads"]))),
            strength=float(str(facts["strength"])),
            temperature_strength=float(str(facts["temperature_strength"])),
            head_temperatures=surface["head_temperatures"],
            levels=tuple(_list(facts["levels"])),
            scope=tuple(_list(facts["scope"])),
            prior=surface["prior"],
            temperature=surface["temperature"],
            band=surface["band"],
            clean=surface["clean"],
            quantiles=Shrunk.of(_mapping(facts["quantiles"])),
            accuracy=Shrunk.of(_mapping(facts["accuracy"])),
        )

    def json(self) -> dict[str, object]:
        """The same for a file."""
        return {
            "heads": list(self.heads),
            "prior": self.prior.json(),
            "strength": self.strength,
            "head_temperatures": self.head_temperatures.json(),
            "temperature_strength": self.temperature_strength,
            "temperature": self.temperature.json(),
            "levels": list(self.levels),
            "quantiles": self.quantiles.json(),
            "accuracy": self.accuracy.json(),
            "band": self.band.json(),
            "clean": self.clean.json(),
            "scope": [round(each, 4) for each in self.scope],
        }

    def prior_of(self, heads: Sequence[str], n_shot: float, n_way: float) -> Tensor:
        """The weights of these heads for a task of that size, ``(n_heads,)``, of sum 1."""
        known = dict(zip(self.heads, self.prior.at(n_shot, n_way).tolist(), strict=True))
        weights = torch.tensor([max(known[name], 0.0) for name in heads], dtype=torch.float64, device="cpu")
        return weights / weights.sum()

    def temperatures_of(self, n_shot: float, n_way: float) -> dict[str, float]:
        """What scores are divided by on most tasks of that size, by the name of the head."""
        powers = self.head_temperatures.at(n_shot, n_way)
        return dict(zip(self.heads, np.exp2(powers).tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Priors:
    """All of ``priors.json``."""

    two_views: Profile
    one_view: Profile

    def profile(self, *, two_views: bool) -> Profile:
        """The part for an encoder with adapters, which is seen two ways, or for one without."""
        return self.two_views if two_views else self.one_view


@lru_cache(maxsize=1)
def shipped_priors() -> Priors:
    """What the package comes with.

    Raises:
        ModelFolderError: if the file is damaged.
    """
    try:
        facts = json.loads(read_text(FILE))
        return Priors(Profile.of(facts["two_views"]), Profile.of(facts["one_view"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{FILE} is damaged ({error}). Install nlpmeta again.") from error


def _between(points: Sequence[float], value: float) -> tuple[int, int, float]:
    """The neighbours of ``value`` among rising ``points``, and how far it is on the way between them."""
    place = float(np.interp(np.log(value), np.log(points), np.arange(len(points))))
    low = int(place)
    return low, min(low + 1, len(points) - 1), place - low


def _list(value: object) -> Sequence[float]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {value!r}")
    return value


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, found {value!r}")
    return value


def held_out_quantiles(likelihood: Tensor, levels: Sequence[float]) -> "NDArray[np.float64]":
    """The log probabilities that the true class of a held-out text reaches with the probability of each level.

    Args:
        likelihood: log probabilities of the true classes of held-out texts, ``(n,)``.
        levels: probabilities.
    """
    values = np.asarray(likelihood.tolist(), dtype=np.float64)
    found: NDArray[np.float64] = np.quantile(values, 1 - np.asarray(levels), method="inverted_cdf")
    return found


def threshold(profile: Profile, likelihood: Tensor, *, n_shot: float, n_way: int, coverage: float) -> float:
    """The log probability above which a label belongs to the set, for sets that hold the true one with ``coverage``.

    Source: few-shot conformal prediction with auxiliary tasks, Fisch et al., ICML 2021 (arXiv:2102.08898), on the score
    of Sadinle, Lei and Wasserman 2019 (arXiv:1609.00451), the probability of the label. The coverage is that over many
    tasks like the auxiliary ones, not a promise for each single one: a handful of texts cannot give that.

    Args:
        profile: what was learned on the auxiliary tasks.
        likelihood: log probabilities of the true classes of held-out support texts; empty if none could be held out.
        n_shot: support texts of a class, on average.
        n_way: how many classes.
        coverage: between the lowest and the highest of ``profile.levels``.

    Raises:
        NLPMetaError: if it is not.
    """
    low, high = profile.levels[0], profile.levels[-1]
    if not low <= coverage <= high:
        raise NLPMetaError(f"abstain takes a coverage from {low} to {high}; got {coverage}.")
    known = held_out_quantiles(likelihood, profile.levels) if len(likelihood) else None
    values = profile.quantiles.at(known, n_texts=len(likelihood), n_shot=n_shot, n_way=n_way)
    falling = np.minimum.accumulate(values)  # a set for a higher coverage is never the smaller one
    return float(np.interp(coverage, profile.levels, falling))
