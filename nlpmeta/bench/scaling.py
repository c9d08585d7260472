"""How time and memory grow with ways and shots: the tasks to measure, and the exponent that fits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nlpmeta.bench.run import Bench
from nlpmeta.bench.store import Line
from nlpmeta.bench.summary import Group, Method, Task, method_of

WAYS, SHOTS = (5, 10, 20, 40, 80, 150), (1, 2, 5, 10, 20, 50)
FIXED_SHOT, FIXED_WAY = 5, 10
FEW_QUERIES = 50
"""Scaling is about adaptation; a few queries show that what was adapted works."""


def scaling_benches(whole: Bench) -> list[Bench]:
    """Two series on the first task: ``WAYS`` at ``FIXED_SHOT`` texts a class, ``SHOTS`` at ``FIXED_WAY`` classes.

    Raises:
        DataError: when it is run, if the data set has too few classes.
    """
    task = replace(whole.tasks[0], max_query=FEW_QUERIES)
    ways = replace(whole, tasks=tuple(replace(task, n_way=n_way) for n_way in WAYS), n_shots=(FIXED_SHOT,), n_draws=1)
    shots = replace(whole, tasks=(replace(task, n_way=FIXED_WAY),), n_shots=SHOTS, n_draws=1)
    return [ways, shots]


@dataclass(frozen=True)
class Growth:
    """``seconds = factor * size ** exponent``, fitted on logarithms."""

    exponent: float
    factor: float

    @classmethod
    def of(cls, sizes: Sequence[float], seconds: Sequence[float]) -> "Growth":
        """The least-squares line through the logarithms; sizes and seconds are positive, at least two sizes differ."""
        exponent, constant = np.polyfit(np.log(sizes), np.log(seconds), 1)
        return cls(float(exponent), float(np.exp(constant)))


@dataclass(frozen=True)
class Series:
    """Adaptation of one method over growing ``sizes`` (ways or shots); ``peaks`` are bytes of resident memory.

    Seconds of a method that was cut short are those that all its steps would have taken, and ``extrapolated`` says so.
    """

    method: Method
    over: Literal["ways", "shots"]
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    peaks: tuple[int, ...]
    extrapolated: bool

    @property
    def growth(self) -> Growth | None:
        """The fit; ``None`` with fewer than two sizes."""
        return Growth.of(self.sizes, self.seconds) if len(self.sizes) > 1 else None


def series_of(lines: Sequence[Line]) -> list[Series]:
    """The scaling runs among results."""
    found: dict[tuple[Method, Literal["ways", "shots"]], dict[int, Group]] = {}
    for line in lines:
        if line.key["n_way"] is None:
            continue
        n_way, n_shot, method = int(line.key["n_way"]), int(str(line.key["n_shot"])), method_of(line)
        group = Group(Task(str(line.key["data"]), str(line.key["lang"] or ""), n_shot), method, {0: line})
        if n_shot == FIXED_SHOT:
            found.setdefault((method, "ways"), {})[n_way] = group
        if n_way == FIXED_WAY:
            found.setdefault((method, "shots"), {})[n_shot] = group
    return [
        Series(
            method,
            over,
            tuple(sorted(groups)),
            tuple(groups[size].full_seconds() for size in sorted(groups)),
            tuple(int(groups[size].mean("peak_bytes")) for size in sorted(groups)),
            any(group.is_cut for group in groups.values()),
        )
        for (method, over), groups in found.items()
    ]
