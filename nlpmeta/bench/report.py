"""One HTML page of pictures and tables that asks nobody for anything: no script, no font, no image from elsewhere."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.bench import series_of
from nlpmeta.bench.drawing import COLOURS, DARK, FAINT, Picture, canvas, check_matplotlib, picture, shortened
from nlpmeta.bench.pictures import (
    accuracy_against_time,
    embedding_map,
    languages,
    learning_curves,
    reliability,
    scaling,
)
from nlpmeta.bench.plan import commands_of, explained
from nlpmeta.bench.store import QuerySet, Store
from nlpmeta.bench.summary import SEVERAL, Comparable, Group, groups_of
from nlpmeta.errors import DataError
from nlpmeta.storage.files import read_text, write_text

if TYPE_CHECKING:
    from matplotlib.patches import Rectangle

_HEADERS = (
    *("task", "shots", "method", "draws", "accuracy, %", "macro-F1, %", "calibration error, %", "adaptation, s"),
    *("predictions/s", "peak memory, MB", "to keep, MB"),
)


def page(store: Store, groups: Sequence[Group], pictures: Sequence[Picture], *, title: str) -> str:
    """The whole page: the answer first, then pictures, then what is folded away until it is opened."""
    shown, folded = ([each for each in pictures if each.folded is folds] for folds in (False, True))
    links = "".join(f'<a href="#{_id(each)}">{escape(each.title)}</a>' for each in shown)
    body = "\n".join(_figure(each) for each in shown)
    opened = (f"<details><summary>{escape(each.title)}</summary>\n{_figure(each)}</details>" for each in folded)
    details = "\n".join(["<h2>Maps and mistakes</h2>", *opened]) if folded else ""
    table = f"<details><summary>All figures</summary>\n{_table(groups)}</details>" if groups else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{_css()}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{_answer(groups)}
<p>{escape(_said(store, groups))}</p>
{_how(store, groups)}
<nav aria-label="Pictures">{links}</nav>
<div class="pictures">
{body}
</div>
{details}
{table}
</main>
</body>
</html>
"""


def _said(store: Store, groups: Sequence[Group]) -> str:
    """In words: what was compared, and on what machine."""
    lines = store.lines()
    methods = len(dict.fromkeys(group.method for group in groups))
    tasks = len(dict.fromkeys((group.task.data, group.task.lang) for group in groups))
    cores = sorted({f"{line.setting['threads']} of {line.setting['cores']} cores" for line in lines})
    versions = sorted({f"{line.setting['package']} {line.setting['version']}" for line in lines})
    what = f"{methods} methods on {tasks} data sets, the same support sets, queries and encoder weights for all. "
    intro = what if groups else ""
    days = sorted({str(line.setting["date"]) for line in lines if "date" in line.setting})
    when = f" Measured from {days[0]} to {days[-1]}." if days else ""
    when += f" {SEVERAL}" if any(group.several for group in groups) else ""
    return (
        f"{intro}{len(lines)} support sets were adapted to. Run on {' and '.join(cores)}; {', '.join(versions)}.{when}"
    )


def _answer(groups: Sequence[Group]) -> str:
    """The winner in a sentence, and the means of all methods over the tasks that they share."""
    same, found = Comparable.of(groups), {(group.task, group.method): group for group in groups}
    shots = sorted({task.n_shot for task in same.tasks})
    if not shots or len(same.methods) < 2:
        return ""
    means = {
        method: [
            100 * float(np.mean([found[task, method].accuracy.mean for task in same.tasks if task.n_shot == n_shot]))
            for n_shot in shots
        ]
        for method in same.methods
    }
    ranked = sorted(means, key=lambda method: -float(np.mean(means[method])))
    first, second = ranked[:2]
    leads = ", ".join(f"{ours - theirs:+.1f}" for ours, theirs in zip(means[first], means[second], strict=True))
    n_sets = len({(task.data, task.lang) for task in same.tasks})
    counts = ", ".join(map(str, shots))
    sentence = (
        f"Best on average over {n_sets} datasets: {first.title}, {leads} points against {second.title} "
        f"with {counts} examples per class."
    )
    head = "".join(
        f'<th scope="col">{cell}</th>' for cell in ("mean accuracy, %", *(f"{n} shot{'s' * (n != 1)}" for n in shots))
    )
    best = [max(column) for column in zip(*means.values(), strict=True)]
    rows = "\n".join(
        f'<tr><th scope="row">{escape(method.title)}</th>'
        + "".join(
            f"<td>{'<strong>' if value == top else ''}{value:.1f}{'</strong>' if value == top else ''}</td>"
            for value, top in zip(means[method], best, strict=True)
        )
        + "</tr>"
        for method in ranked
    )
    around = '<div class="means" tabindex="0" role="group" aria-label="Mean accuracy">'
    table = f"{around}<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    return f'<p class="answer">{escape(sentence)}</p>\n{table}'


def _how(store: Store, groups: Sequence[Group]) -> str:
    """What the methods are, and the commands that measure the same again."""
    if not groups:
        return ""
    methods = dict.fromkeys(group.method for group in groups)
    terms = "".join(
        f"<dt>{escape(each.title)}</dt><dd>{escape(explained(each.name, each.max_steps))}</dd>" for each in methods
    )
    commands = escape("\n".join(commands_of([line.key for line in store.lines()])))
    listed = f'<pre class="scroll" tabindex="0"><code>{commands}</code></pre>'
    return f"<details><summary>Methods, datasets and commands</summary>\n<dl>{terms}</dl>\n{listed}</details>"


def _figure(each: Picture) -> str:
    svg = (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(each.title, quote=True)}">{each.svg}</div>'
    )
    return (
        f'<section id="{_id(each)}"><h2>{escape(each.title)}</h2>\n<figure>{svg if each.wide else each.svg}'
        f"<figcaption>{escape(each.caption)}</figcaption></figure></section>"
    )


def _table(groups: Sequence[Group]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEADERS)
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in group.cells())}</tr>" for group in groups)
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="All figures"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _css() -> str:
    style = read_text(Path(__file__).with_name("page.css"))
    for word, colours in (("LIGHT", COLOURS), ("DARK", DARK)):
        style = style.replace(word, " ".join(f"--c{i}: {colour};" for i, colour in enumerate(colours)))
    return style


def _id(each: Picture) -> str:
    return escape(f"picture-{each.name}", quote=True)


CELL = 0.17
"""Inches of a row: room for a label of 8 points."""
READABLE, WORST = 30, 20
"""A matrix of more classes than this is also drawn with the worst ones alone."""


def confusion(group: Group, query_sets: Mapping[str, QuerySet], *, name: str, most: int | None = None) -> Picture:
    """Counts over all draws of ``group``: right answers in the one colour, mistakes in the other.

    Args:
        group: the draws of a method on a task.
        query_sets: the classes and true labels of its queries.
        name: of the picture.
        most: only the classes with the most mistakes, at most so many, in the order of their names; ``None`` for all.
    """
    names = query_sets[next(iter(group.lines.values())).task].label_names
    counts = confusion_counts(group, query_sets)
    worst = _worst(counts, names)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wrong = (counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()).argsort(kind="stable")[::-1]
    kept = np.sort(wrong[:most])
    counts, share, labels = counts[np.ix_(kept, kept)], share[np.ix_(kept, kept)], [shortened(names[i]) for i in kept]
    size, longest = CELL * len(labels), max(map(len, labels)) * 0.075
    with canvas(max(4.0, size + longest + 0.6), max(3.6, size + longest + 0.6)) as figure:
        axes = figure.subplots()
        for true, guess in zip(*np.nonzero(counts), strict=True):
            colour = COLOURS[0] if true == guess else COLOURS[1]
            axes.add_patch(_square(int(guess), int(true), colour, 0.15 + 0.85 * float(share[true, guess])))
        axes.set_xlim(0, len(labels))
        axes.set_ylim(len(labels), 0)
        axes.set_aspect("equal")
        axes.set_xticks(np.arange(len(labels)) + 0.5, labels, rotation=90, fontsize=8)
        axes.set_yticks(np.arange(len(labels)) + 0.5, labels, fontsize=8)
        axes.set_xticks(np.arange(len(labels) + 1), minor=True)
        axes.set_yticks(np.arange(len(labels) + 1), minor=True)
        axes.grid(which="minor", color=FAINT, linewidth=0.3)
        axes.tick_params(which="both", length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        some = "" if most is None else f", the {len(labels)} classes with the most mistakes of {len(names)}"
        return picture(
            figure,
            name=name,
            title=f"Mistakes: {group.task.title}, {group.task.n_shot} shots, {group.method.title}{some}",
            caption=f"Rows are true classes; the darker, the larger the share of the row. Most often: {worst}.",
            alt=f"Confusion matrix of {len(labels)} classes; most often {worst}.",
            wide=True,
            folded=True,
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


PAGE_FILE, PICTURES_FOLDER = "report.html", "pictures"


def make_report(folder: Path, *, title: str = "Benchmark") -> Path:
    """Write ``report.html`` and ``pictures/*.png`` into a folder of results; the path of the page.

    Raises:
        NLPMetaError: if matplotlib is not installed.
        DataError: if the folder holds no results.
        WorkFailedError: if the disk does not allow the write.
    """
    check_matplotlib()
    store = Store(folder)
    if not store.lines():
        raise DataError(f"There are no results in {folder}; run: nlpmeta bench --out {folder}.")
    groups = groups_of(store.lines())
    pictures = pictures_of(store, groups)
    for each in pictures:
        each.write(folder / PICTURES_FOLDER)
    write_text(folder / PAGE_FILE, page(store, groups, pictures, title=title))
    return folder / PAGE_FILE


def pictures_of(store: Store, groups: list[Group]) -> list[Picture]:
    """Every picture that the results give; those that they do not give are left out."""
    found: list[Picture | None] = []
    if groups:
        found += [learning_curves(groups), accuracy_against_time(groups), *languages(groups), reliability(groups)]
    found += [embedding_map(each, name=_name("map", each.title, each.method)) for each in store.maps()]
    found.append(scaling(series_of(store.lines())))
    queries = store.query_sets()
    for group in _most_shots([group for group in groups if not group.several]):
        name = _name("confusion", group.task.title, group.method.name)
        if len(queries[next(iter(group.lines.values())).task].label_names) > READABLE:
            found.append(confusion(group, queries, name=f"{name}-worst", most=WORST))
        found.append(confusion(group, queries, name=name))
    return [each for each in found if each is not None]


def _most_shots(groups: list[Group]) -> list[Group]:
    """For each set the first method at its largest number of shots; a page with every method's would be too long."""
    best: dict[str, Group] = {}
    first = groups[0].method if groups else None
    for group in groups:
        known = best.get(group.task.title)
        if group.method == first and (known is None or group.task.n_shot > known.task.n_shot):
            best[group.task.title] = group
    return list(best.values())


def _name(*parts: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
