"""Results of several draws together: means, intervals, and differences that are paired by draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.bench.store import Line
from nlpmeta.errors import DataError
from nlpmeta.metrics import error_of_bins
from nlpmeta.metrics.scores import Difference, Interval, paired_difference
from nlpmeta.storage.files import Json, read_text, write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MEGA = 1e6
SEVERAL = "Several labels per text: accuracy is exact match, ECE is of all pairs of text and label."


@dataclass(frozen=True, order=True)
class Method:
    """A contender as it stands in results."""

    name: str
    max_steps: int | None = None
    checkpoint: str | None = None

    @property
    def title(self) -> str:
        """How it is called in tables and pictures."""
        return self.name if self.max_steps is None else f"{self.name} (≤ {self.max_steps} steps)"


@dataclass(frozen=True, order=True)
class Task:
    """What was measured on: a set, a language, and a number of shots."""

    data: str
    lang: str
    n_shot: int

    @property
    def title(self) -> str:
        """``injongo swa``, without the shots."""
        return f"{self.data} {self.lang}".strip()


@dataclass(frozen=True)
class Group:
    """The draws of one method on one task."""

    task: Task
    method: Method
    lines: Mapping[int, Line]
    """By the number of the draw."""

    def values(self, name: str) -> list[float]:
        """A measured figure of each draw."""
        return [float(getattr(self.lines[draw].measured, name)) for draw in sorted(self.lines)]

    @property
    def accuracy(self) -> Interval:
        """Mean accuracy over draws."""
        return Interval.of(self.values("accuracy"))

    @property
    def macro_f1(self) -> Interval:
        """Mean macro-F1 over draws."""
        return Interval.of(self.values("macro_f1"))

    @property
    def calibration_error(self) -> float:
        """The expected calibration error over the queries of all draws."""
        return float(error_of_bins(self.bins()))

    def bins(self) -> "NDArray[np.float64]":
        """Calibration bins of all draws together, ``(n_bins, 3)``."""
        each = np.asarray([line.measured.bins for line in self.lines.values()], dtype=np.float64)
        total: NDArray[np.float64] = each.sum(0)
        return total

    def mean(self, name: str) -> float:
        """The mean of a measured figure."""
        return float(np.mean(self.values(name)))

    @property
    def several(self) -> bool:
        """Whether texts may have several labels, so that accuracy is that of all labels of a text."""
        return any(line.measured.facts.get("several") for line in self.lines.values())

    def more(self) -> dict[str, Json]:
        """What is known beside the other figures where texts may have several labels."""
        facts = [line.measured.facts for line in self.lines.values()] if self.several else []
        names = ("micro_f1", "mean_average_precision")
        known = {name: [float(found) for each in facts if (found := each[name]) is not None] for name in names}
        figures = {name: Interval.of(values).json() for name, values in known.items() if values}
        return {"several": True, **figures} if self.several else {}

    def cells(self) -> tuple[str, ...]:
        """What tables show: task, shots, method, draws, then the figures.

        Accuracy, macro-F1 and calibration error are in percent, then come seconds of adaptation, predictions a second,
        MB of memory and MB to keep.
        """
        return (
            self.task.title,
            str(self.task.n_shot),
            self.method.title,
            str(len(self.lines)),
            self.accuracy.percent(),
            self.macro_f1.percent(),
            f"{100 * self.calibration_error:.1f}",
            f"{self.mean('adapt_seconds'):.2f}",
            f"{self.mean('predictions_per_second'):.0f}",
            f"{self.mean('peak_bytes') / _MEGA:.0f}",
            f"{self.mean('artefact_bytes') / _MEGA:.2f}",
        )

    @property
    def is_cut(self) -> bool:
        """Whether a limit of steps kept it from taking all that it wants."""
        return any(_wanted(line) > _taken(line) for line in self.lines.values())

    def full_seconds(self) -> float:
        """Seconds of adaptation had no limit of steps been set, extrapolated from the seconds that a step took."""
        return float(
            np.mean([line.measured.adapt_seconds * _wanted(line) / _taken(line) for line in self.lines.values()])
        )

    def gain_over(self, baseline: "Group") -> Difference | None:
        """How much more accurate this is on the draws that both did; ``None`` where they share none."""
        shared = sorted(set(self.lines) & set(baseline.lines))
        if not shared:
            return None
        theirs, own = ([each.lines[draw].measured.accuracy for draw in shared] for each in (baseline, self))
        return paired_difference(theirs, own)


def groups_of(lines: Sequence[Line]) -> list[Group]:
    """The draws of each method on each task, in the order in which they were first done; scaling runs left out."""
    found: dict[tuple[Task, Method], dict[int, Line]] = {}
    for line in lines:
        key = line.key
        if key["n_way"] is not None:
            continue
        task = Task(str(key["data"]), str(key["lang"] or ""), int(str(key["n_shot"])))
        found.setdefault((task, method_of(line)), {})[int(str(key["draw"]))] = line
    return [Group(task, method, draws) for (task, method), draws in found.items()]


@dataclass(frozen=True)
class Comparable:
    """Methods and the tasks that all of them did: what means can be taken over."""

    methods: tuple[Method, ...]
    tasks: tuple[Task, ...]

    @classmethod
    def of(cls, groups: Sequence[Group]) -> "Comparable":
        """Methods that did less than two thirds of the tasks (a full SetFit, say) would leave hardly any: not these."""
        tasks = tuple(dict.fromkeys(group.task for group in groups))
        done: dict[Method, set[Task]] = {}
        for group in groups:
            done.setdefault(group.method, set()).add(group.task)
        methods = tuple(method for method, own in done.items() if 3 * len(own) >= 2 * len(tasks))
        return cls(methods, tuple(task for task in tasks if all(task in done[method] for method in methods)))


def method_of(line: Line) -> Method:
    """The contender of a line."""
    limit, checkpoint = line.key["max_steps"], line.key["checkpoint"]
    return Method(
        str(line.key["method"]), None if limit is None else int(limit), None if checkpoint is None else str(checkpoint)
    )


def _taken(line: Line) -> int:
    return int(line.measured.facts.get("steps") or 1)


def _wanted(line: Line) -> int:
    return int(line.measured.facts.get("wanted_steps") or _taken(line))


BEGIN, END = "<!-- benchmark: written by nlpmeta report --into -->", "<!-- end of benchmark -->"
MEGA = 1e6


@dataclass(frozen=True)
class Around:
    """What stands before and after the table."""

    before: str
    after: str


def markdown(groups: Sequence[Group]) -> str:
    """A row for each task and number of shots with the accuracy of every method, and what each method costs."""
    methods = list(dict.fromkeys(group.method for group in groups))
    if not methods:
        raise DataError("There are no results yet; run: nlpmeta bench --out FOLDER.")
    said = ["", SEVERAL] if any(group.several for group in groups) else []
    return "\n".join([*_accuracies(groups, methods), "", *_costs(groups, methods), *said])


def _accuracies(groups: Sequence[Group], methods: Sequence[Method]) -> list[str]:
    """Accuracy, and the difference of the first method to the best of the others on the same draws."""
    found = {(group.task, group.method): group for group in groups}
    first = methods[0]
    lines = [_row(["task", "shots", *(method.title for method in methods), "difference to the best other"])]
    lines.append("|---" * (len(methods) + 3) + "|")
    for task in dict.fromkeys(group.task for group in groups):
        here = [found.get((task, method)) for method in methods]
        others = [group for group in here[1:] if group is not None]
        best = max(others, key=lambda group: group.accuracy.mean, default=None)
        ours = found.get((task, first))
        gain = ours.gain_over(best) if ours is not None and best is not None else None
        cells = ["" if group is None else group.accuracy.percent() for group in here]
        lines.append(_row([task.title, str(task.n_shot), *cells, "" if gain is None else gain.percent()]))
    same = Comparable.of(groups)
    for n_shot in sorted({task.n_shot for task in same.tasks}):
        tasks = [task for task in same.tasks if task.n_shot == n_shot]
        if len(tasks) > 1:
            means = {m: float(np.mean([found[task, m].accuracy.mean for task in tasks])) for m in same.methods}
            rivals = [mean for method, mean in means.items() if method != first]
            cells = [f"**{100 * means[method]:.1f}**" if method in means else "" for method in methods]
            gain_ = f"{100 * (means[first] - max(rivals)):+.1f}" if first in means and rivals else ""
            lines.append(_row([f"mean of {len(tasks)} sets", str(n_shot), *cells, gain_]))
    return lines


def _costs(groups: Sequence[Group], methods: Sequence[Method]) -> list[str]:
    """Means over the tasks that the methods share; a method that did few of them has its own number of tasks."""
    found, same = {(group.task, group.method): group for group in groups}, Comparable.of(groups)
    names = ["tasks", "macro-F1, %", "calibration error, %", "adaptation, s", "without a limit of steps, s"]
    lines = [_row(["mean over tasks", *names, "predictions/s", "peak memory, MB", "to keep, MB"])]
    lines.append("|---" * (len(names) + 4) + "|")
    for method in methods:
        here = [found[task, method] for task in same.tasks if (task, method) in found]
        if not here:
            continue
        full = np.mean([group.full_seconds() for group in here])
        cells = [
            str(len(here)),
            f"{100 * np.mean([group.macro_f1.mean for group in here]):.1f}",
            f"{100 * np.mean([group.calibration_error for group in here]):.1f}",
            f"{np.mean([group.mean('adapt_seconds') for group in here]):.2f}",
            f"{full:.0f} (extrapolated)" if any(group.is_cut for group in here) else "",
            f"{np.mean([group.mean('predictions_per_second') for group in here]):.0f}",
            f"{np.mean([group.mean('peak_bytes') for group in here]) / MEGA:.0f}",
            f"{np.mean([group.mean('artefact_bytes') for group in here]) / MEGA:.2f}",
        ]
        lines.append(_row([method.title, *cells]))
    return lines


def check_marks(path: Path) -> Around:
    """What stands before and after the marks of a Markdown file.

    Raises:
        DataError: if the file or the marks are not there.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    before, begin, rest = read_text(path).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{path} lacks the lines {BEGIN!r} and {END!r}; the table is written between them.")
    return Around(before, after)


def put_into(path: Path, table: str) -> None:
    """Put ``table`` between the two marks of a Markdown file; all else stays.

    Raises:
        DataError: if the file or the marks are not there.
        WorkFailedError: if the disk does not allow the write.
    """
    around = check_marks(path)
    write_text(path, f"{around.before}{BEGIN}\n{table}\n{END}{around.after}")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
