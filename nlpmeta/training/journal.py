"""What a run tells the world: ``metrics.jsonl``, trackers, and a live line."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import Self

from nlpmeta.errors import NLPMetaError
from nlpmeta.storage.files import disk_errors_said_plainly, make_folder, open_regular, open_to_append, write_bytes
from nlpmeta.training import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator
    from rich.progress import Progress

METRICS_FILE = "metrics.jsonl"
_LONGEST_LINE = 1 << 20  # bytes; ours have some hundred


class Journal:
    """A context manager that takes the values of each step; only the main process writes."""

    def __init__(
        self, out: Path | None, settings: TrainSettings, accelerator: "Accelerator", *, show_progress: bool
    ) -> None:
        self._settings, self._accelerator = settings, accelerator
        self._path = out / METRICS_FILE if out is not None and accelerator.is_main_process else None
        self._show = show_progress and accelerator.is_main_process and sys.stderr.isatty()
        self._bar: Progress | None = None
        self._heldout = ""
        if settings.trackers:
            accelerator.init_trackers("nlpmeta", config={"steps": settings.steps, "seed": settings.seed})

    def cut_after(self, step: int) -> None:
        """Drop the lines of steps that will be taken again."""
        if self._path is None or not self._path.exists():
            return
        sound: dict[int, bytes] = {}
        with open_regular(self._path) as file:
            while line := file.readline(_LONGEST_LINE):
                number = _step_of(line)
                if number is not None and number <= step:
                    sound[number] = line.rstrip(b"\r\n") + b"\n"
        write_bytes(self._path, b"".join(sound[number] for number in sorted(sound)))

    def write(self, values: dict[str, object]) -> None:
        """One line; numbers that JSON does not know (NaN) become null."""
        if self._path is not None:
            clean = {name: None if _is_nan(value) else value for name, value in values.items()}
            with disk_errors_said_plainly(self._path):
                make_folder(self._path.parent)
                with open_to_append(self._path) as file:
                    file.write(f"{json.dumps(clean)}\n".encode())
        if self._settings.trackers:
            numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
            self._accelerator.log(numbers, step=int(str(values["step"])))
        self._draw(values)

    def __enter__(self) -> Self:
        if self._show:
            self._bar = _bar()
            self._task = self._bar.add_task("training", total=self._settings.steps, note="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._settings.trackers:
            self._accelerator.end_training()

    def _draw(self, values: dict[str, object]) -> None:
        if self._bar is None:
            return
        if isinstance(mean := values.get("heldout_mean"), float):
            self._heldout = f" · held-out {100 * mean:.1f} %"
        note = f"loss {values['loss']:.3f}{self._heldout} · {values['episodes_per_second']:.2f} episodes/s"
        self._bar.update(self._task, completed=int(str(values["step"])), note=note)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def check_trackers(asked: tuple[str, ...]) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        NLPMetaError: names it and those that are.
    """
    from accelerate.tracking import get_available_trackers

    found = [str(name) for name in get_available_trackers()]
    missing = [name for name in asked if name not in found]
    if missing:
        raise NLPMetaError(
            f"The tracker {missing[0]!r} is not installed; installed: {', '.join(found) or 'none'}. "
            f"Install it with: pip install {missing[0]}"
        )


def _step_of(line: bytes) -> int | None:
    """The step of a line; a line that was cut short by a crash, or damaged in whatever way, belongs to none."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return step if type(step) is int and step >= 1 else None


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
