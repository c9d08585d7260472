"""The picture that ``nlpmeta evaluate --plot`` draws: accuracy by presentation, a line a method."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.errors import NLPMetaError
from nlpmeta.report.drawing import check_matplotlib

if TYPE_CHECKING:
    from nlpmeta.files import Json
    from nlpmeta.protocols import Protocol

_WIDTH, _HEIGHT, _DPI = 6.4, 4.0, 150


def check_picture(path: Path, protocol: "Protocol") -> None:
    """Make sure that there will be a picture, before any work.

    Raises:
        NLPMetaError: if the protocol has no presentations, the file is no PNG, or matplotlib is not installed.
    """
    if not protocol.presentations:
        raise NLPMetaError(f"--plot draws accuracy by presentation; {protocol.name} has none, --protocol stream does.")
    if path.suffix.lower() != ".png":
        raise NLPMetaError(f"--plot writes a PNG; name it so, not {path.name!r}.")
    check_matplotlib()


def draw_streams(rows: "Sequence[Mapping[str, Json]]", path: Path) -> None:
    """Draw rows, as ``--json`` prints them, of one data set: each method and language a line with its 95 % band.

    Raises:
        WorkFailedError: if the disk does not allow the write; nothing half-written stays.
    """
    from io import BytesIO

    from matplotlib.figure import Figure

    from nlpmeta.files import write_bytes

    several = len({row["lang"] for row in rows}) > 1
    lines: dict[str, list[Mapping[str, Json]]] = {}
    for row in sorted(rows, key=_presentation):
        name = f"{row['method']}, {row['lang']}" if several else str(row["method"])
        lines.setdefault(name, []).append(row)
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.subplots()
    for name, found in lines.items():
        at = [_presentation(row) for row in found]
        mean, half = [_accuracy(row, "mean") for row in found], [_accuracy(row, "ci95") for row in found]
        (line,) = axes.plot(at, mean, marker="o", markersize=3, label=name)
        low, high = ([m + sign * h for m, h in zip(mean, half, strict=True)] for sign in (-1, 1))
        axes.fill_between(at, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    first = rows[0]
    where = str(first["data"]) if several or first["lang"] is None else f"{first['data']}, {first['lang']}"
    axes.set(xlabel="presentation of the class", ylabel="accuracy, %", ylim=(0, 102))
    axes.set_title(f"{where}: {first['n_way']} classes, {first['episodes']} streams", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    write_bytes(path, content.getvalue())


def _presentation(row: "Mapping[str, Json]") -> int:
    return int(str(row["presentation"]))


def _accuracy(row: "Mapping[str, Json]", part: str) -> float:
    """Percent; not a number where one stream cannot tell."""
    accuracy = row["accuracy"]
    value = accuracy.get(part) if isinstance(accuracy, Mapping) else None
    return 100 * float(str(value)) if value is not None else math.nan
