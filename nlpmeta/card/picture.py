"""The picture on a card: accuracy over the number of examples of each class."""

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from nlpmeta.card.facts import Score
from nlpmeta.files import write_bytes

_FEWEST_POINTS = 2


def draw_curve(curve: Sequence[tuple[int, Score]], path: Path) -> bool:
    """Draw ``curve`` with its band to a PNG file; ``False`` if there is nothing to draw, or matplotlib is missing."""
    if len(curve) < _FEWEST_POINTS or find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shots = [each for each, _ in curve]
    means = [100 * score.mean for _, score in curve]
    figure = Figure(figsize=(5, 3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    low, high = ([100 * _ends(score)[i] for _, score in curve] for i in (0, 1))
    axes.fill_between(shots, low, high, alpha=0.2, linewidth=0)
    axes.plot(shots, means, marker="o")
    axes.set_xticks(shots)
    axes.set(xlabel="examples of each class", ylabel="accuracy, %")
    axes.grid(alpha=0.3)
    content = BytesIO()
    figure.savefig(content, metadata={"Software": None})  # the same bytes for the same curve: a push changes nothing
    write_bytes(path, content.getvalue())
    return True


def _ends(score: Score) -> tuple[float, float]:
    half = score.ci95 or 0.0
    return score.ends or (score.mean - half, score.mean + half)
