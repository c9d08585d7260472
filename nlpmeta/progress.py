"""Progress on standard error: for a person at a terminal, for work of more than two seconds, and for no one else.

And how much memory the process takes while it works.
"""

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[[int], None]
"""Called with the number of units (texts, episodes, bytes) that were just done."""

PATIENCE = 2.0  # seconds
_bars = 0  # that are shown just now
_status = ""  # what stands on the last line of the terminal until something else is to be said


def show_status(message: str, *, show: bool = True) -> None:
    """A line on standard error that goes away as soon as something else is said; only on a terminal."""
    global _status
    if not show or sys.stderr is None or not sys.stderr.isatty():
        return
    clear_status()
    sys.stderr.write(message)
    sys.stderr.flush()
    _status = message


def clear_status() -> None:
    """Take the line of ``show_status`` away, if there is one."""
    global _status
    if _status:
        width, _status = len(_status), ""
        sys.stderr.write(f"\r{' ' * width}\r")  # plain spaces: every terminal knows them
        sys.stderr.flush()


@contextmanager
def track(description: str, total: int | None, *, show: bool = True) -> Iterator[Advance]:
    """A progress bar of ``total`` units that appears once the work has lasted ``PATIENCE`` seconds."""
    if not show or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(description, total=total)
    start, shown = time.monotonic(), False

    def advance(units: int) -> None:
        nonlocal shown
        global _bars
        bar.advance(task, units)
        if not shown and not _bars and time.monotonic() - start > PATIENCE:  # two bars would overwrite one another
            clear_status()
            bar.start()
            shown, _bars = True, _bars + 1

    try:
        yield advance
    finally:
        if shown:
            _end(bar)


def _end(bar: "Progress") -> None:
    global _bars
    _bars -= 1
    bar.stop()


_within: ContextVar[bool] = ContextVar("within", default=False)


@contextmanager
def bars_within(*, show: bool = True) -> Iterator[None]:
    """Whether ``track_within`` shows bars inside the block."""
    token = _within.set(show)
    try:
        yield
    finally:
        _within.reset(token)


def track_within(description: str, total: int | None) -> AbstractContextManager[Advance]:
    """``track`` for work deep inside other work, shown if that said so (``bars_within``)."""
    return track(description, total, show=_within.get())


def steps_bar() -> "Progress":
    """The live line of training: steps done, a note, the time that is left; on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' own progress bars and notes off standard error while models are loaded or written.

    Ours are shown where it takes long, and what does not fit is refused by us, in one line.
    """
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def start_watching(*, trim: bool = False) -> bool:
    """Forget earlier peaks; whether the system lets us (Linux does, elsewhere a peak is that of the whole process).

    With ``trim`` what was freed is given back to the system first, and it says whether that could be done too: what is
    then taken is taken anew.
    """
    gc.collect()
    try:
        if trim:
            ctypes.CDLL(None).malloc_trim(0)  # of glibc
        _CLEAR.write_text("5", encoding="ascii")  # documented in proc(5): resets the peak resident set size
    except (OSError, AttributeError, TypeError):
        return False
    return True


def peak_bytes() -> int:
    """The largest resident set size since ``start_watching``."""
    try:
        status = _STATUS.read_text(encoding="ascii", errors="replace")
        return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
