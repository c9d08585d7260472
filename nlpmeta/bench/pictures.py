"""Pictures of a benchmark: accuracy against seconds, maps, scaling."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.bench import FIXED_SHOT, FIXED_WAY, Series
from nlpmeta.bench.drawing import (
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    WIDTH,
    Map,
    Picture,
    canvas,
    log_axis,
    log_ticks,
    method_colours,
    picture,
    shortened,
)
from nlpmeta.bench.store import TaskMaps
from nlpmeta.bench.summary import Comparable, Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 2


def learning_curves(groups: Sequence[Group]) -> Picture | None:
    """Accuracy over shots, one panel a set, bands are 95 % intervals over draws; needs two numbers of shots."""
    titles = list(dict.fromkeys(group.task.title for group in groups))
    shots = sorted({group.task.n_shot for group in groups})
    if len(shots) < 2:
        return None
    colours = method_colours(_methods(groups))
    rows = -(-len(titles) // COLUMNS)
    with canvas(WIDTH, 2.1 * rows + 0.5 + 0.17 * len(colours)) as figure:
        grid = np.atleast_1d(figure.subplots(rows, min(COLUMNS, len(titles)), squeeze=False)).ravel()
        for axes, title in zip(grid, titles, strict=False):
            here = [group for group in groups if group.task.title == title]
            for method in _methods(here):
                _curve(axes, [group for group in here if group.method.title == method], *colours[method])
            axes.set_title(title)
            axes.set_xlabel("shots")
            log_ticks(axes, shots)
            axes.set_ylim(0, 100)
            axes.grid(axis="y")
        for axes in grid[len(titles) :]:
            axes.set_visible(False)
        figure.supylabel("accuracy, %")
        handles = {line.get_label(): line for axes in grid for line in axes.get_lines()}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=1, frameon=False)
        return picture(
            figure,
            name="learning-curves",
            title="Accuracy over shots",
            caption="Mean over draws; the band is the 95 % t-interval. Shots are support texts "
            "of each class, on a logarithmic axis.",
            alt=f"Learning curves of {len(colours)} methods on {len(titles)} sets.",
        )


def _curve(axes: "Axes", groups: Sequence[Group], colour: str, marker: str) -> None:
    ordered = sorted(groups, key=lambda group: group.task.n_shot)
    shots = [group.task.n_shot for group in ordered]
    means = np.array([100 * group.accuracy.mean for group in ordered])
    half = np.nan_to_num(np.array([100 * group.accuracy.ci95 for group in ordered]))
    axes.fill_between(shots, np.clip(means - half, 0, 100), np.clip(means + half, 0, 100), color=colour, alpha=0.15)
    axes.plot(shots, means, marker=marker, markersize=4, color=colour, label=ordered[0].method.title)


def accuracy_against_time(groups: Sequence[Group]) -> Picture | None:
    """A point for each method and number of shots: means over the tasks that every method did."""
    same = Comparable.of(groups)
    names, tasks = [method.title for method in same.methods], same.tasks
    by = {(group.task, group.method.title): group for group in groups}
    if not tasks:
        return None
    colours = method_colours(_methods(groups))
    with canvas(WIDTH, 3.4 + 0.17 * len(names)) as figure:
        axes = figure.subplots()
        for name in names:
            points = []
            for n_shot in sorted({task.n_shot for task in tasks}):
                here = [by[task, name] for task in tasks if task.n_shot == n_shot]
                seconds = float(np.mean([group.mean("adapt_seconds") for group in here]))
                points.append((seconds, 100 * float(np.mean([group.accuracy.mean for group in here])), n_shot))
            colour, marker = colours[name]
            axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, marker=marker, label=name)
            for seconds, accuracy, n_shot in points:
                axes.annotate(str(n_shot), (seconds, accuracy), xytext=(4, 4), textcoords="offset points", fontsize=7)
        log_axis(axes, "x")
        axes.set_xlabel("adaptation, seconds (logarithmic)")
        axes.set_ylabel("accuracy, %")
        axes.grid(color=FAINT)
        figure.legend(loc="outside lower center", ncols=1, frameon=False)
        return picture(
            figure,
            name="accuracy-against-time",
            title="Accuracy against adaptation time",
            caption=f"Means over {len(tasks)} tasks that every method did; the number at a point is that of shots.",
            alt="Accuracy against seconds of adaptation: " + ", ".join(names) + ".",
        )


def reliability(groups: Sequence[Group]) -> Picture:
    """How often predictions of a confidence are right, over all tasks and draws of a method."""
    colours = method_colours(_methods(groups))
    with canvas(WIDTH, 4.0 + 0.17 * len(colours)) as figure:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle="--")
        for name, (colour, marker) in colours.items():
            bins = np.sum([group.bins() for group in groups if group.method.title == name], axis=0)
            n_texts, confidence, right = bins[bins[:, 0] > 0].T
            error = float(np.abs(confidence - right).sum() / n_texts.sum())
            label = f"{name}: error {100 * error:.1f} %"
            x, y = 100 * confidence / n_texts, 100 * right / n_texts
            axes.plot(x, y, color=colour, marker=marker, markersize=4, label=label)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("right, %")
        axes.grid(color=FAINT)
        figure.legend(loc="outside lower center", ncols=1, frameon=False)
        return picture(
            figure,
            name="reliability",
            title="Do probabilities mean what they say?",
            caption="On the dashed line they do; below it a method is overconfident. The error is the expected "
            "calibration error with 15 bins, over all tasks and draws.",
            alt="Reliability diagram of " + ", ".join(colours) + ".",
        )


def languages(groups: Sequence[Group]) -> list[Picture]:
    """Bars by language for each set and number of shots that was measured in several languages."""
    found = []
    for data, n_shot in dict.fromkeys((group.task.data, group.task.n_shot) for group in groups):
        here = [group for group in groups if (group.task.data, group.task.n_shot) == (data, n_shot)]
        names = sorted({group.task.lang for group in here})
        if len(names) > 1:
            found.append(_bars(here, names, title=f"{data} by language, {n_shot} shots", name=f"{data}-{n_shot}"))
    return found


def _bars(groups: Sequence[Group], langs: Sequence[str], *, title: str, name: str) -> Picture:
    colours = method_colours(_methods(groups))
    thick = 0.8 / len(colours)
    with canvas(WIDTH, 0.8 + 0.17 * len(colours) + 0.2 * len(langs) * len(colours)) as figure:
        axes = figure.subplots()
        for i, (method, (colour, _)) in enumerate(colours.items()):
            by = {group.task.lang: group.accuracy for group in groups if group.method.title == method}
            rows = [row for row, lang in enumerate(langs) if lang in by]
            means = [100 * by[langs[row]].mean for row in rows]
            errors = np.nan_to_num([100 * by[langs[row]].ci95 for row in rows])
            axes.barh(
                [row + i * thick for row in rows], means, thick, xerr=errors, color=colour, ecolor=INK, label=method
            )
        axes.set_yticks(np.arange(len(langs)) + 0.4 - thick / 2, langs)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, %")
        figure.legend(loc="outside lower center", ncols=1, frameon=False)
        return picture(
            figure,
            name=f"languages-{name}",
            title=title,
            caption="Mean over draws and its 95 % interval.",
            alt=f"{title}: accuracy of {', '.join(colours)} in {', '.join(langs)}.",
        )


def _methods(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(group.method.title for group in groups))


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
            folded=True,
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
