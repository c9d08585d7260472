"""The tables of the learning curves, as the pages have them, and their picture; benchmarks/curves.py measures."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nlpmeta.bench.drawing import canvas, method_colours, picture
from nlpmeta.storage.files import write_bytes

WIDE = {
    "kazsandra-sentiment": "Kazakh sentiment, 2 classes",
    "korean-hate": "Korean hate speech, 3 classes",
    "3i4k-speech-intention": "Korean speech intentions, 7 classes",
}
SETS = {
    "sib200:swh_Latn": "SIB-200 Swahili, 7 topics",
    "sms-spam": "SMS spam, 2 classes",
    **WIDE,
    "massive:sw": "MASSIVE Swahili, 60 intents",
    "banking77": "BANKING77, 77 intents",
    "clinc150": "CLINC150, 150 intents (seen)",
}
"""Data sets, the small ones first, and what they are called; meta-training has seen CLINC150."""
SHOTS = ("0", "1", "2", "5", "10", "20", "50", "100", "all")
METHODS = {
    "auto": "nlpmeta",
    "logistic": "logistic regression, frozen encoder",
    "lora": "LoRA",
    "fine-tuning": "full fine-tuning",
    "setfit": "SetFit",
    "budget": "nlpmeta, a minute of fine-tuning",
    "budget5": "nlpmeta, five minutes of fine-tuning",
    "tuned": "nlpmeta, tuned",
    "maml": "MAML",
}
BASELINE, PEERS = ("auto", "logistic"), ("auto", "lora", "fine-tuning", "setfit")
BUDGETED = ("auto", "budget", "lora", "fine-tuning", "setfit")
Row = dict[str, object]
Values = Mapping[tuple[str, str], Mapping[str, float]]


def means(rows: Iterable[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """By set and method: the mean accuracy in % for each number of shots."""
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        each = values.setdefault((str(row["set"]), str(row["method"])), {})
        each.setdefault(str(row["shots"]), []).append(100 * float(str(row["accuracy"])))
    return {key: {n: float(np.mean(each[n])) for n in SHOTS if n in each} for key, each in values.items()}


def beside(found: Values, methods: Sequence[str], title: str, shots: Sequence[str] = SHOTS) -> str:
    """Markdown: the accuracies of some methods side by side, the best bold; a line for each set."""
    lines = [f"| {title} | {' | '.join(shots)} |", "|---" * (1 + len(shots)) + "|"]
    for name, called in SETS.items():
        cells = [_best([found.get((name, method), {}).get(n) for method in methods]) for n in shots]
        if any(cells):
            lines.append(f"| {called} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _best(values: Sequence[float | None]) -> str:
    """``**81.2** / 76.4``; nothing is bold where all are equal, and who was not measured is left out."""
    figures = [f"{value:.1f}" for value in values if value is not None]
    best = max(figures, key=float, default="")
    return " / ".join(f"**{each}**" if each == best and len({*figures}) > 1 else each for each in figures)


def leads(rows: Iterable[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """By method and number of shots: how far ``auto`` is ahead in points on each set, on the draws that both have."""
    found = {(r["method"], r["set"], r["shots"], r["draw"]): 100 * float(str(r["accuracy"])) for r in rows}
    gaps: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (method, name, n_shot, draw), value in found.items():
        if method != "auto" and ("auto", name, n_shot, draw) in found:
            each = gaps.setdefault((str(method), str(n_shot)), {})
            each.setdefault(str(name), []).append(found["auto", name, n_shot, draw] - value)
    return {key: {name: float(np.mean(values)) for name, values in each.items()} for key, each in gaps.items()}


def lead_table(rows: Iterable[Row], methods: Sequence[str] = tuple(METHODS)) -> str:
    """Markdown: a line for each method that ``auto`` is compared with; mean over the sets, and the worst of them."""
    found, shots = leads(rows), SHOTS[1:]
    lines = [f"| `auto` is ahead of, points on the mean (on the worst set) | {' | '.join(shots)} |"]
    lines.append("|---" * (1 + len(shots)) + "|")
    for method in methods:
        gaps = [list(found.get((method, n), {}).values()) for n in shots]
        if any(gaps):
            cells = (f"{np.mean(each):+.1f} ({min(each):+.1f})" if each else "" for each in gaps)
            lines.append(f"| {METHODS[method]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tables(rows: Sequence[Row]) -> tuple[str, str, str]:
    """``auto`` beside the baseline on all draws, beside its peers on the first one, and its leads over these."""
    first = means(row for row in rows if not row["draw"])
    peers = " / ".join(("`auto`", *(METHODS[method] for method in PEERS[1:])))
    return (
        beside(means(rows), BASELINE, "`auto` / logistic regression"),
        beside(first, PEERS, peers, SHOTS[1:]),
        lead_table(rows, PEERS[1:]),
    )


def budgets(rows: Sequence[Row]) -> str:
    """Markdown: ``auto``, with a minute for fine-tuning, and its peers, with their CPU seconds; the best bold."""
    columns = ["`auto`", "a minute", *(METHODS[method] for method in PEERS[1:])]
    lines = [f"| dataset | examples of each class | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    found = {(row["set"], row["shots"], row["method"]): row for row in rows if not row["draw"]}
    for name, called in SETS.items():
        for n in SHOTS:
            if (name, n, "budget") in found:
                some = [found.get((name, n, method)) for method in BUDGETED]
                figures = [None if row is None else f"{100 * float(str(row['accuracy'])):.1f}" for row in some]
                best = max((each for each in figures if each), key=float)
                bold = [f"**{each}**" if each == best else each for each in figures]
                cells = [
                    f"{each} ({float(str(row['seconds'])):.0f})" if row else ""
                    for row, each in zip(some, bold, strict=True)
                ]
                lines.append(f"| {called} | {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shared(rows: Sequence[Row]) -> list[Row]:
    """The rows of draws that all methods have that were measured with as many examples of the same set."""
    methods: dict[tuple[object, object], set[object]] = {}
    there: dict[tuple[object, object, object], set[object]] = {}
    for row in rows:
        methods.setdefault((row["set"], row["shots"]), set()).add(row["method"])
        there.setdefault((row["set"], row["shots"], row["draw"]), set()).add(row["method"])
    return [row for row in rows if there[row["set"], row["shots"], row["draw"]] == methods[row["set"], row["shots"]]]


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """A panel a set, on the draws that all methods have."""
    found = means(shared(rows))
    names = [name for name in SETS if any(key[0] == name for key in found)]
    methods = [method for method in METHODS if any(key[1] == method for key in found)]
    colours = method_colours([METHODS[method] for method in methods])
    shots = SHOTS[: 1 + max(SHOTS.index(n) for each in found.values() for n in each)]
    with canvas(10.0, 2.4 * -(-len(names) // 4) + 0.5) as figure:
        grid = np.atleast_1d(figure.subplots(-(-len(names) // 4), min(4, len(names)), squeeze=False)).ravel()
        for axes, name in zip(grid, names, strict=False):
            for method in methods:
                each = found.get((name, method), {})
                colour, marker = colours[METHODS[method]]
                places = [SHOTS.index(n) for n in each]
                axes.plot(places, list(each.values()), color=colour, marker=marker, markersize=4, label=METHODS[method])
            axes.set_title(SETS[name], fontsize=9)
            axes.set_xticks(range(len(shots)), shots, fontsize=7)
            axes.set_xlim(-0.4, len(shots) - 0.6)
            axes.set_ylim(0, 100)
            axes.grid(axis="y")
        for axes in grid[len(names) :]:
            axes.set_visible(False)
        figure.supylabel("accuracy, %")
        figure.supxlabel("examples of each class")
        handles = {line.get_label(): line for axes in grid for line in axes.get_lines()}
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, frameon=False)
        made = picture(figure, name="curves", title="Learning curves", caption="", alt="Learning curves.")
    write_bytes(path, made.png)
