"""Maps of support and query before and after meta-training, and how adaptation grows with its support."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.bench.maps import Map
from nlpmeta.bench.scaling import FIXED_SHOT, FIXED_WAY, Series
from nlpmeta.bench.store import TaskMaps
from nlpmeta.report.drawing import (
    COLOURS,
    INK,
    MARKERS,
    WIDTH,
    Picture,
    canvas,
    log_axis,
    log_ticks,
    method_colours,
    picture,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MEGA = 1e6


def embedding_map(found: TaskMaps, *, name: str) -> Picture:
    """Two panels: the frozen and the meta-trained encoder."""
    maps = found.maps
    with canvas(WIDTH, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        _scatter(left, maps.frozen, "before meta-training")
        _scatter(right, maps.adapted, "after meta-training")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        return picture(
            figure,
            name=name,
            title=f"Map: {found.title}, {found.n_shot} shots",
            caption=f"{len(maps.frozen.label_names)} of the classes; large marks are support texts, small ones query "
            "texts. Two principal components of each encoder's own embeddings.",
            alt=f"Support and query texts of {found.title} in two dimensions, before and after meta-training.",
        )


def _scatter(axes: "Axes", shown: Map, title: str) -> None:
    points, labels = np.asarray(shown.points), np.asarray(shown.labels)
    is_support = np.arange(len(labels)) < shown.n_support
    for number, label_name in enumerate(shown.label_names):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        for part, size, edge in ((~is_support, 9, "none"), (is_support, 42, INK)):
            x, y = points[part & (labels == number)].T
            name = shortened(label_name, 24) if size > 9 else None
            axes.scatter(x, y, s=size, c=colour, marker=marker, edgecolors=edge, linewidths=0.6, alpha=0.85, label=name)
    axes.set_title(f"{title}\n({100 * shown.explained:.0f} % of the variance)")
    axes.set_xticks([])
    axes.set_yticks([])


def scaling(series: Sequence[Series]) -> Picture | None:
    """Adaptation time and memory over ways and over shots, both axes logarithmic, with the fitted exponents."""
    if not series:
        return None
    colours = method_colours(list(dict.fromkeys(each.method.title for each in series)))
    with canvas(WIDTH, 5.2) as figure:
        grid = figure.subplots(2, 2)
        for column, (over, fixed) in enumerate((("ways", f"{FIXED_SHOT} shots"), ("shots", f"{FIXED_WAY} ways"))):
            here = [each for each in series if each.over == over]
            for each in here:
                colour, marker = colours[each.method.title]
                fit = "" if each.growth is None else f", exponent {each.growth.exponent:.2f}"
                label = f"{each.method.title}, {over}{fit}"
                style = "--" if each.extrapolated else "-"
                grid[0, column].plot(each.sizes, each.seconds, style, color=colour, marker=marker, label=label)
                peaks = [peak / _MEGA for peak in each.peaks]
                grid[1, column].plot(each.sizes, peaks, color=colour, marker=marker)
            for row, what in enumerate(("adaptation, s", "peak memory, MB")):
                log_ticks(grid[row, column], sorted({size for each in here for size in each.sizes}))
                grid[row, column].set_xlabel(f"{over} ({fixed})")
                grid[row, column].set_ylabel(what)
                grid[row, column].grid()
            log_axis(grid[0, column], "y")
            grid[1, column].set_ylim(bottom=0)
        handles = [line for axes in grid[0] for line in axes.get_lines()]
        names = [str(line.get_label()) for line in handles]
        figure.legend(handles, names, loc="outside lower center", ncols=1, frameon=False)
        return picture(
            figure,
            name="scaling",
            title="Adaptation over ways and shots",
            caption="The exponent e is fitted to seconds = c · size^e. A dashed line is extrapolated from the seconds "
            "that a step took to all the steps that the method takes by itself.",
            alt="Seconds and memory of adaptation over ways and shots: " + ", ".join(colours) + ".",
        )
