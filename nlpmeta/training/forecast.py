"""What a run says: how much memory and disk its steps will take, ``metrics.jsonl``, trackers, and a live line."""

import json
import math
import shutil
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from typing_extensions import Self

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.encoder.frozen_layers import StatePrecision, bytes_of
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.episodes import Sampler
from nlpmeta.errors import NLPMetaError
from nlpmeta.storage.files import (
    disk_errors_said_plainly,
    make_folder,
    open_regular,
    open_to_append,
    user_cache,
    write_bytes,
)
from nlpmeta.training import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator
    from rich.progress import Progress

    from nlpmeta.training.step import Stepper

_EPISODES = 2000  # that are drawn in advance; longer runs are estimated from as many, evenly spread
_TEXTS = 2000  # that are tokenised for it


def forecast_states(
    encoder: TextEncoder,
    sampler: Sampler,
    n_episodes: int,
    precision: StatePrecision,
    *,
    also: Iterable[str] = (),
    say: Callable[[str], None] | None = None,
) -> int:
    """Bytes that the states of all texts of a run take at most; says so, and refuses what the disk has no room for.

    Args:
        encoder: whose states.
        sampler: the training tasks.
        n_episodes: how many of them the run takes.
        precision: how states are stored.
        also: texts of held-out tasks.
        say: called with the forecast.

    Raises:
        NLPMetaError: if there is not enough free space.
    """
    drawn = min(n_episodes, _EPISODES)
    indices = {i * n_episodes // drawn for i in range(drawn)}
    training = {text for i in indices for text in sampler.episode(i).texts()}
    others = set(also) - training
    some = sorted(training)[:: max(1, len(training) // _TEXTS)]
    per_text = sum(map(len, encoder.tokenize(some))) / max(1, len(some))
    n_texts = len(training) * n_episodes // drawn + len(others)
    size = bytes_of(int(n_texts * per_text), encoder.dim, precision)
    bound = "" if drawn == n_episodes else "at most "
    folder = user_cache()
    free = free_bytes(folder)
    summary = f"{bound}{n_texts:,} texts of {per_text:.0f} tokens, {size / 1e6:,.0f} MB in {precision}"
    if size > free:
        raise NLPMetaError(
            f"The states of the lower layers would take {summary}, but {free / 1e6:,.0f} MB are free in {folder}. "
            "Free some space, set NLPMETA_CACHE to another disk, or lower_states=off."
        )
    if say is not None:
        say(f"Cache of the lower layers: {summary}; kept in {folder / 'states'}.")
    return size


def free_bytes(folder: Path) -> int:
    """The free space of the disk that ``folder`` is or will be on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


_STEPS = 20  # whose episodes are looked at
_PROBES = ((2, 1), (6, 2))  # ways and shots of the two small tasks that are tried
HELD = 1.4
"""What a process holds for its tensors over their own bytes, measured by ``benchmarks/memory_forecast.py``."""
_COPIES = 5
"""Of the weights that train: gradient, two moments of AdamW, the moving average and the best so far."""


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes beyond what the process holds when training starts."""

    tokens: int
    """Of the largest group of episodes that is computed at once, among those that were looked at."""
    activations: int
    weights: int
    """Gradients, optimiser and averages."""

    @property
    def peak(self) -> int:
        """All of it."""
        return self.activations + self.weights

    def __str__(self) -> str:
        return (
            f"about {self.peak / 1e6:,.0f} MB at the peak beside the encoder: {self.activations / 1e6:,.0f} MB for "
            f"{self.tokens:,} tokens at once, {self.weights / 1e6:,.0f} MB for gradients and optimiser"
        )


def forecast_memory(stepper: "Stepper", weights: Mapping[str, nn.Parameter]) -> MemoryForecast:
    """From what two small tasks take, drawn out to the largest of the first steps; the weights are not changed.

    Forward and backward are really computed, with the learner and the settings of the run, so that any learner, first
    or second order, is forecast alike. What is computed chunk by chunk makes it an upper bound.
    """
    episode = stepper.sampler.episode(0)
    with torch.random.fork_rng(devices=[]):
        small, large = (_probe(stepper, _cut(episode, *shape), weights) for shape in _PROBES)
    slope = max(0.0, (large[1] - small[1]) / max(1, large[0] - small[0]))
    fixed = max(0.0, small[1] - slope * small[0])
    groups = [group for step in range(_STEPS) for group in stepper.groups_of(step)]
    tokens, n_tasks = max((stepper.tokens_at_once(group), len(group)) for group in groups)
    return MemoryForecast(
        tokens=tokens,
        activations=int(HELD * (fixed * n_tasks + slope * tokens)),
        weights=_COPIES * sum(weight.nbytes for weight in weights.values()),
    )


def _probe(stepper: "Stepper", episode: Episode, weights: Mapping[str, nn.Parameter]) -> tuple[int, int]:
    """Tokens of a task, and the bytes that its gradient took at the peak."""
    with _Peak([*stepper.learner.parameters(), *stepper.learner.buffers()]) as memory:
        stepper.gradients([episode], 1.0)
    for weight in weights.values():
        weight.grad = None
    return stepper.tokens_at_once([episode]), memory.most


def _cut(episode: Episode, n_way: int, n_shot: int) -> Episode:
    """The first classes of an episode with the first support texts of each and one query text."""
    names = episode.support.label_names[:n_way]
    return Episode(_first(episode.support, names, n_shot), _first(episode.query, names, 1))


def _first(data: LabeledTexts, names: Sequence[str], n: int) -> LabeledTexts:
    part = data.with_classes(names)
    rows: list[int] = []
    for label in range(part.n_way):
        rows += [row for row, each in enumerate(part.labels) if each == label][:n]
    return part.select(rows)


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The bytes of tensors that come into being in a block, at the moment when there are most."""

    def __init__(self, known: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._held = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return
        self._held.add(key)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._held.discard(key)
        self._now -= size


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
