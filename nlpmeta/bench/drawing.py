"""How pictures look: colours that follow a light or dark page, text that stays text, the same bytes every time."""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nlpmeta.data import Episode
from nlpmeta.encoder.lora import has_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.views import ADAPTED, FROZEN, ScaledEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.storage.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nlpmeta.evaluation.protocols import Protocol
    from nlpmeta.storage.files import Json

INK, FAINT = "#1a1a1b", "#d0d0d1"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a7a7b", "#8b5cf6")
"""Told apart with any colour vision, after Okabe and Ito 2008."""
DARK = ("#5ab4f0", "#ff9a4d", "#3fd0a4", "#f0a8cf", "#e8c04a", "#9ad6ff", "#b0b0b1", "#b79cff")
"""The same on a dark page."""
WIDTH = 4.6
"""Inches: what a phone shows at a size that can be read."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Picture:
    """A drawn figure: ``svg`` for the page, ``png`` for a file.

    ``alt`` says in words what is seen; a ``wide`` one scrolls inside the page, because its labels need the room; a
    ``folded`` one is shown once it is opened.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    png: bytes
    wide: bool = False
    folded: bool = False

    def write(self, folder: Path) -> None:
        """Write it to ``folder`` as a PNG file."""
        write_bytes(folder / f"{self.name}.png", self.png)


def check_matplotlib() -> None:
    """Make sure that pictures can be drawn.

    Raises:
        NLPMetaError: if matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise NLPMetaError("Plots need matplotlib: pip install 'nlpmeta[plot]'.")


@contextmanager
def canvas(width: float, height: float) -> "Iterator[Figure]":
    """A figure of so many inches, closed afterwards; names in data are never read as formulas."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": _cycle(),
        "grid.color": FAINT,
        **{name: INK for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")},
    }
    with rc_context(settings):  # type: ignore[arg-type]  # its stubs list every key
        yield Figure(figsize=(width, height), layout="constrained")


def picture(
    figure: "Figure", *, name: str, title: str, caption: str, alt: str, wide: bool = False, folded: bool = False
) -> Picture:
    """Draw ``figure``, as SVG without a background and as PNG."""
    from matplotlib import rc_context

    vector, raster = StringIO(), BytesIO()
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a script that the font of the PNG lacks
        nothing = {key: None for key in ("Date", "Creator", "Format", "Type")}
        figure.savefig(vector, format="svg", transparent=True, metadata=nothing)
        figure.savefig(raster, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    svg = _for_page(vector.getvalue(), name=name, alt=alt)
    return Picture(name, title, caption, alt, svg, raster.getvalue(), wide, folded)


def method_colours(titles: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each method, the same in every picture."""
    return {title: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, title in enumerate(titles)}


def log_ticks(axes: "Axes", values: Sequence[float]) -> None:
    """A logarithmic horizontal axis whose ticks are ``values``."""
    from matplotlib.ticker import FixedLocator, NullLocator

    side = axes.xaxis
    axes.set_xscale("log")
    side.set_major_locator(FixedLocator(list(values)))
    side.set_minor_locator(NullLocator())
    side.set_major_formatter(lambda value, _: f"{value:g}")


def log_axis(axes: "Axes", axis: Literal["x", "y"]) -> None:
    """A logarithmic axis with plain numbers at the powers of ten; formulas are off, so 10² would be shown raw."""
    from matplotlib.ticker import NullFormatter

    side = axes.xaxis if axis == "x" else axes.yaxis
    (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
    side.set_major_formatter(lambda value, _: f"{value:g}")
    side.set_minor_formatter(NullFormatter())


def shortened(name: str, most: int = 28) -> str:
    """A name of at most so many characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _for_page(svg: str, *, name: str, alt: str) -> str:
    """Only the element itself, with colours that the page can change, and ids that no other picture has."""
    from html import escape

    element = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    element = re.sub(r'(id="|url\(#|href="#)', lambda found: f"{found[0]}{name}-", element)
    for i, colour in enumerate(COLOURS):
        element = element.replace(colour, f"var(--c{i})")
    element = element.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    return element.replace("<svg ", f'<svg role="img" aria-label="{escape(alt, quote=True)}" ', 1).strip()


def _cycle() -> object:
    from cycler import cycler

    return cycler(color=list(COLOURS))


_WIDTH, _HEIGHT, _DPI = 6.4, 4.0, 150


def check_picture(path: Path, protocol: "Protocol") -> None:
    """Make sure that there will be a picture, before any work.

    Raises:
        NLPMetaError: if the protocol has no presentations, the file is no PNG, or matplotlib is not installed.
    """
    if not protocol.presentations:
        raise NLPMetaError(f"--plot draws accuracy by presentation; {protocol.name} has none, --protocol stream does.")
    if path.suffix.lower() != ".png":
        raise NLPMetaError(f"--plot writes a PNG; use that extension, not {path.name!r}.")
    check_matplotlib()


def draw_streams(rows: "Sequence[Mapping[str, Json]]", path: Path) -> None:
    """Draw rows, as ``--json`` prints them, of one data set: each method and language a line with its 95 % band.

    Raises:
        WorkFailedError: if the disk does not allow the write; nothing half-written stays.
    """
    from io import BytesIO

    from matplotlib.figure import Figure

    from nlpmeta.storage.files import write_bytes

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


MOST_CLASSES, MOST_QUERIES = 8, 20
"""More classes than a reader can tell by colour, or more points of a class, hide the picture."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """Points ``(x, y)`` of the texts of some classes, support first; ``explained`` is the share of their variance."""

    label_names: tuple[str, ...]
    labels: tuple[int, ...]
    n_support: int
    points: tuple[tuple[float, float], ...]
    explained: float


@dataclass(frozen=True, kw_only=True)
class Maps:
    """The same texts as the frozen and as the meta-trained encoder sees them."""

    frozen: Map
    adapted: Map

    @classmethod
    def of(cls, encoder: TextEncoder, episode: Episode) -> "Maps | None":
        """Principal components of the embeddings, for each of the two by itself; ``None`` without adapters."""
        if not has_adapter(encoder):
            return None
        counts = episode.query.counts()
        names = sorted(sorted(counts), key=lambda name: -counts[name])[:MOST_CLASSES]
        support, query = episode.support.with_classes(names), episode.query.with_classes(names)
        rows = [i for label in range(len(names)) for i in _first(query.labels, label)]
        query = query.select(rows)
        labels = support.labels + query.labels
        views = ScaledEncoder(encoder)
        vectors = views.encode(support.texts + query.texts).cpu().numpy()
        both = [
            _map(vectors[:, views.columns(scale)], labels, names=tuple(names), n_support=len(support))
            for scale in (FROZEN, ADAPTED)
        ]
        return cls(frozen=both[0], adapted=both[1])

    def json(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Maps":
        """What ``json`` gave."""
        return cls(**{name: Map(**values[name]) for name in ("frozen", "adapted")})


def _map(vectors: np.ndarray, labels: tuple[int, ...], *, names: tuple[str, ...], n_support: int) -> Map:
    from sklearn.decomposition import PCA

    fitted = PCA(2, svd_solver="full").fit(vectors)
    points = tuple((round(float(x), 4), round(float(y), 4)) for x, y in fitted.transform(vectors))
    explained = float(fitted.explained_variance_ratio_.sum())
    return Map(label_names=names, labels=labels, n_support=n_support, points=points, explained=explained)


def _first(labels: tuple[int, ...], label: int) -> list[int]:
    return [i for i, each in enumerate(labels) if each == label][:MOST_QUERIES]
