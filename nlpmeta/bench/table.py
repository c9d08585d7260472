"""Results as a Markdown table: what stands in README between two marks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlpmeta.bench.summary import Comparable, Group, Method
from nlpmeta.errors import DataError
from nlpmeta.files import read_text, write_text

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
        raise DataError("There are no results yet; make some: nlpmeta bench --out FOLDER.")
    return "\n".join([*_accuracies(groups, methods), "", *_costs(groups, methods)])


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
        raise DataError(f"{path} lacks the lines {BEGIN!r} and {END!r}; the table goes between them.")
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
