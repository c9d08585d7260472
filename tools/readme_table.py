"""Writes the table of README.md from the rows that ``make bench`` and ``make bench-multilabel`` measured, or checks it.

python tools/readme_table.py             # write it
python tools/readme_table.py --check     # exit code 1 if README.md says something else
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nlpmeta.bench.store import Store
from nlpmeta.bench.summary import Group, Method, Task, groups_of
from nlpmeta.storage.files import read_text, write_text

ROOT = Path(__file__).parents[1]
README, RESULTS, SEVERAL = ROOT / "README.md", ROOT / "results" / "bench", ROOT / "results" / "multilabel.json"
BEGIN, END = "<!-- results: written by tools/readme_table.py -->", "<!-- end of results -->"
METHODS = {
    "auto@default": "nlpmeta",
    "logistic": "logistic regression",
    "adaptive-classifier": "adaptive-classifier",
    "setfit": "SetFit, 25 steps",
}
TASKS = {
    ("injongo", "swa"): "Injongo Swahili, 40 intents",
    ("sms-spam", "en"): "SMS spam, 2 classes",
}
SHOTS = 5
"""Of the tasks that have a row of their own."""
OF_SEVERAL = ("auto", "one-vs-rest logistic", None, "SetFit, one-vs-rest, 25 steps, chosen thresholds")
"""What the methods are called where a text may have several labels."""


def table(groups: Sequence[Group]) -> str:
    """A row for the mean of all tasks at each number of shots, and for some tasks alone; the best figure is bold."""
    found = {(group.task, group.method): group.accuracy.mean for group in groups}
    shown = [_method(groups, name) for name in METHODS]
    tasks = sorted({task for task, _ in found}, key=lambda task: (task.n_shot, task.title))
    rows = []
    for n_shot in sorted({task.n_shot for task in tasks}):
        these = [task for task in tasks if task.n_shot == n_shot]
        means = [float(np.mean([found[task, method] for task in these])) for method in shown]
        rows.append(_row(f"mean of {len({task.title for task in these})} datasets", n_shot, means))
    for (data, lang), title in TASKS.items():
        task = Task(data, lang, SHOTS)
        rows.append(_row(title, SHOTS, [found[task, method] for method in shown]))
    header = f"| accuracy, % | shots | {' | '.join(METHODS.values())} |"
    return "\n".join([header, "|---" * (len(METHODS) + 2) + "|", *rows])


def several(rows: Sequence[Mapping[str, object]]) -> str:
    """A row for each number of positives a label: macro-F1, the mean of all datasets on the draws that all have."""
    found: dict[tuple[object, object], list[list[float]]] = {}
    for row in rows:
        each = row["macro_f1_of_each"]
        assert isinstance(each, list)  # noqa: S101  # a figure for each draw
        found.setdefault((row["method"], row["n_shot"]), []).append([value / 100 for value in each])
    shots = sorted(int(str(n_shot)) for method, n_shot in found if method == OF_SEVERAL[-1])
    lines = []
    for n_shot in shots:
        figures = [None if method is None else found[method, n_shot] for method in OF_SEVERAL]
        shared = min(len(each) for of_sets in figures if of_sets is not None for each in of_sets)
        means = [None if each is None else float(np.mean([draws[:shared] for draws in each])) for each in figures]
        title = f"macro-F1 of several labels, mean of {len(found[OF_SEVERAL[0], n_shot])} datasets"
        lines.append(_row(title, n_shot, means))
    return "\n".join(lines)


def _method(groups: Sequence[Group], name: str) -> Method:
    """The method called ``name``, with a limit of steps where it trains."""
    methods = {group.method for group in groups if group.method.name == name}
    return min(methods, key=lambda method: method.max_steps is None)


def _row(title: str, n_shot: object, means: Sequence[float | None]) -> str:
    best = max(each for each in means if each is not None)
    shown = ["" if each is None else f"{100 * each:.1f}" for each in means]
    cells = [f"**{text}**" if each == best else text for each, text in zip(means, shown, strict=True)]
    return f"| {title} | {n_shot} | {' | '.join(cells)} |"


def with_table(readme: str, found: str) -> str:
    """The document with ``found`` between the two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{found}\n{END}{after}"


def whole() -> str:
    """Both parts, from what is in ``results/``."""
    rows = json.loads(read_text(SEVERAL))["rows"]
    return "\n".join(filter(None, (table(groups_of(Store(RESULTS).lines())), several(rows))))


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, and fail if there is a difference")
    asked = parser.parse_args()
    before = read_text(README)
    after = with_table(before, whole())
    if asked.check:
        return int(before != after)
    write_text(README, after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
