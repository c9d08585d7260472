"""What ``nlpmeta evaluate`` prints for a person: a table with a line a setting and method."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nlpmeta.cli.console import out, out_table

if TYPE_CHECKING:
    from nlpmeta.evaluation import Interval
    from nlpmeta.protocols import Protocol, Row


def show(rows: "Sequence[Row]", protocol: "Protocol") -> None:
    """The table; columns that would be empty are left out, and so is the language where there is one only."""
    if protocol.presentations:
        rows = [row for row in rows if row.setting.presentation in protocol.presentations]
    first = rows[0].setting
    several = len({row.setting.lang for row in rows}) > 1
    columns: dict[str, Callable[[Row], str]] = {"method": lambda row: row.setting.method}
    if several:
        columns["lang"] = lambda row: row.setting.lang or "all"
    columns["ways"] = lambda row: str(row.setting.n_way)
    columns["shots"] = lambda row: str(row.setting.n_shot)
    if protocol.presentations:
        columns["presentation"] = lambda row: str(row.setting.presentation)
    columns["accuracy, %"] = lambda row: row.summary.accuracy.percent()
    columns["macro-F1, %"] = lambda row: row.summary.macro_f1.percent()
    columns["ECE, %"] = lambda row: row.summary.calibration_error.percent()
    if any(row.summary.oos_auroc for row in rows):
        columns["out-of-scope AUROC, %"] = lambda row: _percent(row.summary.oos_auroc)
        columns[f"recall at {100 * (protocol.in_scope_accuracy or 0):.0f} %"] = lambda row: _percent(
            row.summary.oos_recall
        )
    if any(row.gains for row in rows):
        columns[f"over {first.method}"] = lambda row: row.gains[0].percent() if row.gains else ""
    where = first.data if several or first.lang is None else f"{first.data}, {first.lang}"
    what = "streams" if protocol.presentations else "episodes"
    out(f"{where}: {protocol.name}, {first.episodes} {what}, seed {first.seed}")
    out_table(tuple(columns), [[cell(row) for cell in columns.values()] for row in rows])
    out(f"±, brackets: 95 % intervals over {what}. ECE: expected calibration error.")


def _percent(interval: "Interval | None") -> str:
    return "" if interval is None else interval.percent()
