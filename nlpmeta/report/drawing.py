"""How pictures look: colours that follow a light or dark page, text that stays text, the same bytes every time."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nlpmeta.errors import NLPMetaError
from nlpmeta.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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

    ``alt`` says in words what is seen; a ``wide`` one scrolls inside the page, because its labels need the room.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    png: bytes
    wide: bool = False

    def write(self, folder: Path) -> None:
        """Write it to ``folder`` as a PNG file."""
        write_bytes(folder / f"{self.name}.png", self.png)


def check_matplotlib() -> None:
    """Make sure that pictures can be drawn.

    Raises:
        NLPMetaError: if matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise NLPMetaError("Pictures need matplotlib: pip install 'nlpmeta[plot]'.")


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


def picture(figure: "Figure", *, name: str, title: str, caption: str, alt: str, wide: bool = False) -> Picture:
    """Draw ``figure``, as SVG without a background and as PNG."""
    from matplotlib import rc_context

    vector, raster = StringIO(), BytesIO()
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a script that the font of the PNG lacks
        nothing = {key: None for key in ("Date", "Creator", "Format", "Type")}
        figure.savefig(vector, format="svg", transparent=True, metadata=nothing)
        figure.savefig(raster, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    svg = _for_page(vector.getvalue(), name=name, alt=alt)
    return Picture(name, title, caption, alt, svg, raster.getvalue(), wide)


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
