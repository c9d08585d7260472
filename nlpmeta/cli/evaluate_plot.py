"""The picture that ``nlpmeta evaluate --plot`` draws: accuracy by presentation, a line a method."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.errors import NLPMetaError

if TYPE_CHECKING:
    from nlpmeta.protocols import Protocol, Row

_WIDTH, _HEIGHT, _DPI = 6.4, 4.0, 150


def check(path: Path, protocol: "Protocol") -> None:
    """Make sure that there will be a picture, before any work.

    Raises:
        NLPMetaError: if the protocol has no presentations, the file is no PNG, or matplotlib is not installed.
    """
    if not protocol.presentations:
        raise NLPMetaError(f"--plot draws accuracy by presentation; {protocol.name} has none, --protocol stream does.")
    if path.suffix.lower() != ".png":
        raise NLPMetaError(f"--plot writes a PNG; name it so, not {path.name!r}.")
    if find_spec("matplotlib") is None:
        raise NLPMetaError("--plot needs matplotlib. Install it with: pip install 'nlpmeta[plot]'")


def draw(rows: "Sequence[Row]", path: Path) -> None:
    """Draw the rows of one or several languages, each method and language a line with its 95 % band.

    Raises:
        WorkFailedError: if the disk does not allow the write; nothing half-written stays.
    """
    from io import BytesIO

    from matplotlib.figure import Figure

    from nlpmeta.files import write_bytes

    several = len({row.setting.lang for row in rows}) > 1
    lines: dict[str, list[Row]] = {}
    for row in rows:
        name = f"{row.setting.method}, {row.setting.lang}" if several else row.setting.method
        lines.setdefault(name, []).append(row)
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.subplots()
    for name, found in lines.items():
        at = [row.setting.presentation or 0 for row in found]
        mean = [100 * row.summary.accuracy.mean for row in found]
        half = [100 * row.summary.accuracy.ci95 for row in found]
        (line,) = axes.plot(at, mean, marker="o", markersize=3, label=name)
        low, high = ([m + sign * h for m, h in zip(mean, half, strict=True)] for sign in (-1, 1))
        axes.fill_between(at, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    first = rows[0].setting
    where = first.data if several or first.lang is None else f"{first.data}, {first.lang}"
    axes.set(xlabel="presentation of the class", ylabel="accuracy, %", ylim=(0, 102))
    axes.set_title(f"{where}: {first.n_way} classes, {first.episodes} streams", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    write_bytes(path, content.getvalue())
