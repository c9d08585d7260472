"""What ``nlpmeta bench`` prints: a line for each task and method, and one for each step of a scaling run."""

from typing import TYPE_CHECKING

from nlpmeta.cli.console import out, out_json, out_table

if TYPE_CHECKING:
    from nlpmeta.bench.store import Store

_MEGA = 1e6


def show(store: "Store") -> None:
    """Tables for a person."""
    from nlpmeta.bench.scaling import series_of
    from nlpmeta.bench.summary import groups_of

    lines = store.lines()
    groups = groups_of(lines)
    if groups:
        headers = ("task", "shots", "method", "draws", "accuracy, %", "macro-F1, %", "ECE, %", "adapt, s")
        out_table((*headers, "texts/s", "peak MB", "to keep, MB"), [group.cells() for group in groups])
    series = series_of(lines)
    if series:
        out_table(
            ("method", "over", "sizes", "adapt, s", "exponent"),
            [
                (
                    each.method.title,
                    each.over,
                    " ".join(map(str, each.sizes)),
                    " ".join(f"{value:.2f}" for value in each.seconds),
                    "" if each.growth is None else f"{each.growth.exponent:.2f}",
                )
                for each in series
            ],
        )
    out(f"Results: {store.folder}. Pictures and tables: nlpmeta report {store.folder}")


def show_json(store: "Store") -> None:
    """One JSON object."""
    from nlpmeta.bench.scaling import series_of
    from nlpmeta.bench.summary import groups_of

    lines = store.lines()
    rows = [
        {
            "data": group.task.data,
            "lang": group.task.lang,
            "n_shot": group.task.n_shot,
            "method": group.method.name,
            "max_steps": group.method.max_steps,
            "draws": len(group.lines),
            "accuracy": group.accuracy.json(),
            "macro_f1": group.macro_f1.json(),
            "calibration_error": group.calibration_error,
            "adapt_seconds": group.mean("adapt_seconds"),
            "predictions_per_second": group.mean("predictions_per_second"),
            "peak_bytes": group.mean("peak_bytes"),
            "artefact_bytes": group.mean("artefact_bytes"),
        }
        for group in groups_of(lines)
    ]
    scaling = [
        {
            "method": each.method.name,
            "over": each.over,
            "sizes": list(each.sizes),
            "adapt_seconds": list(each.seconds),
            "peak_bytes": list(each.peaks),
            "exponent": None if each.growth is None else each.growth.exponent,
        }
        for each in series_of(lines)
    ]
    out_json({"rows": rows, "scaling": scaling})
