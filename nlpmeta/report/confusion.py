"""The confusion matrix: which classes a method takes for which others, readable at 77 classes and more."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.bench.store import QuerySet
from nlpmeta.bench.summary import Group
from nlpmeta.report.drawing import COLOURS, FAINT, Picture, canvas, picture, shortened

if TYPE_CHECKING:
    from matplotlib.patches import Rectangle

CELL = 0.17
"""Inches of a row: room for a label of 8 points."""


def confusion(group: Group, query_sets: Mapping[str, QuerySet], *, name: str) -> Picture:
    """Counts over all draws of ``group``: right answers in the one colour, mistakes in the other."""
    first = next(iter(group.lines.values()))
    names = query_sets[first.task].label_names
    counts = confusion_counts(group, query_sets)
    size = CELL * len(names)
    longest = max(len(shortened(each)) for each in names) * 0.075
    with canvas(max(4.0, size + longest + 0.6), max(3.6, size + longest + 0.6)) as figure:
        axes = figure.subplots()
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        for true, guess in zip(*np.nonzero(counts), strict=True):
            colour = COLOURS[0] if true == guess else COLOURS[1]
            strength = 0.15 + 0.85 * float(share[true, guess])
            axes.add_patch(_square(int(guess), int(true), colour, strength))
        axes.set_xlim(0, len(names))
        axes.set_ylim(len(names), 0)
        axes.set_aspect("equal")
        labels = [shortened(each) for each in names]
        axes.set_xticks(np.arange(len(names)) + 0.5, labels, rotation=90, fontsize=8)
        axes.set_yticks(np.arange(len(names)) + 0.5, labels, fontsize=8)
        axes.set_xticks(np.arange(len(names) + 1), minor=True)
        axes.set_yticks(np.arange(len(names) + 1), minor=True)
        axes.grid(which="minor", color=FAINT, linewidth=0.3)
        axes.tick_params(which="both", length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        worst = _worst(counts, names)
        return picture(
            figure,
            name=name,
            title=f"Mistakes: {group.task.title}, {group.task.n_shot} shots, {group.method.title}",
            caption=f"Rows are true classes; the darker, the larger the share of the row. Most often: {worst}.",
            alt=f"Confusion matrix of {len(names)} classes; most often {worst}.",
            wide=True,
        )


def confusion_counts(
    group: Group, query_sets: Mapping[str, QuerySet]
) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """How often each class (row) was taken for each class (column), over all draws; ``(n_way, n_way)``."""
    n_way = len(query_sets[next(iter(group.lines.values())).task].label_names)
    counts = np.zeros((n_way, n_way), dtype=np.int64)
    for line in group.lines.values():
        np.add.at(counts, (np.asarray(query_sets[line.task].labels), np.asarray(line.measured.predicted)), 1)
    return counts


def _square(x: int, y: int, colour: str, strength: float) -> "Rectangle":
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=colour, alpha=strength, linewidth=0)


def _worst(counts: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", names: Sequence[str]) -> str:
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:3]
    pairs = [(int(i) // len(names), int(i) % len(names)) for i in order]
    said = [f"{names[t]} taken for {names[g]} ({wrong[t, g]})" for t, g in pairs if wrong[t, g]]
    return "; ".join(said) or "no mistake"
