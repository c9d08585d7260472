"""What a run says: the memory and time that its steps will take, ``metrics.jsonl``, trackers, and a live line."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from typing_extensions import Self

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.progress import peak_bytes, start_watching, steps_bar
from nlpmeta.storage.files import (
    disk_errors_said_plainly,
    make_folder,
    open_regular,
    open_to_append,
    write_bytes,
)
from nlpmeta.training import TrainSettings
from nlpmeta.training.step import Peak

if TYPE_CHECKING:
    from accelerate import Accelerator
    from rich.progress import Progress

    from nlpmeta.training.step import Stepper

_STEPS = 20  # whose episodes are looked at
_PARTS = (0.3, 0.6)  # of the largest group, whose memory is tried
_TASKS = 2  # of a group that are tried together: several have an adapter a text, one does not
_PROBES = ((2, 1), (6, 2))  # ways and shots of the two small tasks that are timed
HELD = 1.4
"""What a process holds for its tensors over their own bytes, where that cannot be measured."""
_LEAST, _MOST_HELD = 50e6, 3.0  # bytes of tensors beside which the rest of the process is no noise; what is believed
_REPEATS = 3  # of each small task, for the time
_FORWARD = 0.35  # of the time of a step by token: a pass without gradient
ROUGHLY = 2.0
"""A run takes between the forecast time divided by this and times this."""
_COPIES = 5
"""Of the weights that train: gradient, two moments of AdamW, the moving average and the best so far."""


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes beyond what the process holds when training starts."""

    tokens: int
    """Of the largest group of episodes that is computed at once, among those that were looked at, padding included."""
    activations: int
    weights: int
    """Gradients, optimiser and averages."""
    held: float = HELD
    """What the process holds for its tensors over their own bytes: it is part of ``activations``."""

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
    """From what two parts of the largest group of the first steps take; the weights are not changed.

    Forward and backward are really computed, with the learner and the settings of the run, on as many support texts for
    a query text as the group has, so that any learner, first or second order, is forecast alike. How much more than its
    tensors the process holds depends on what is allocated and freed in which order, and is measured too. What is
    computed chunk by chunk makes it an upper bound.
    """
    groups = [group for step in range(_STEPS) for group in stepper.groups_of(step)]
    most, largest = max(((stepper.padded_at_once(group), group) for group in groups), key=lambda each: each[0])
    tried = largest[:_TASKS]
    parts = [[_part(episode, share) for episode in tried] for share in _PARTS]
    with torch.random.fork_rng(devices=[]):
        (few, small), (more, large) = (_probe(stepper, part, weights) for part in parts)
        another = [_part(episode, _PARTS[-1]) for episode in groups[-1][:_TASKS]]
        held = _held(stepper, [parts[-1], another], weights, large)
    slope = max(0.0, (large - small) / max(1, more - few))
    fixed = max(0.0, small - slope * few) / len(tried)
    return MemoryForecast(
        tokens=most,
        activations=int(held * (fixed * len(largest) + slope * most)),
        weights=_COPIES * sum(weight.nbytes for weight in weights.values()),
        held=held,
    )


def _probe(stepper: "Stepper", group: list[Episode], weights: Mapping[str, nn.Parameter]) -> tuple[int, int]:
    """Padded tokens of a group, and the bytes of tensors that its gradient took at the peak."""
    with Peak([*stepper.learner.parameters(), *stepper.learner.buffers()]) as memory:
        _try(stepper, group, weights)
    return stepper.padded_at_once(group), memory.most


def _held(stepper: "Stepper", tried: list[list[Episode]], weights: Mapping[str, nn.Parameter], most: int) -> float:
    """The memory that the process takes for groups, one after the other, over that of the tensors of one."""
    if most < _LEAST or stepper.learner.encoder.device.type != "cpu" or not start_watching(trim=True):
        return HELD
    before = peak_bytes()
    for group in tried:  # not while tensors are counted: that changes in which order they are freed
        _try(stepper, group, weights)
    taken = peak_bytes() - before
    start_watching(trim=True)
    return min(max(1.0, taken / most), _MOST_HELD)


def _try(stepper: "Stepper", group: list[Episode], weights: Mapping[str, nn.Parameter]) -> None:
    stepper.gradients(group, 1.0)
    for weight in weights.values():
        weight.grad = None


def _part(episode: Episode, share: float) -> Episode:
    """A share of an episode's classes, and of the texts of each where that leaves fewer than two classes."""
    n_way = len(episode.support.label_names)
    ways = min(n_way, max(2, round(share * n_way)))
    return _cut(episode, ways, share=share * n_way / ways)


def _cut(episode: Episode, n_way: int, *, share: float = 1.0, n_shot: int = 0, n_query: int = 0) -> Episode:
    """The first classes of an episode with a share of the texts of each, or so many."""
    names = episode.support.label_names[:n_way]
    return Episode(_first(episode.support, names, share, n_shot), _first(episode.query, names, share, n_query))


def _first(data: LabeledTexts, names: Sequence[str], share: float, n: int) -> LabeledTexts:
    part = data.with_classes(names)
    rows: list[int] = []
    for label in range(part.n_way):
        found = [row for row, each in enumerate(part.labels) if each == label]
        rows += found[: n or max(1, round(share * len(found)))]
    return part.select(rows)


@dataclass(frozen=True)
class TimeForecast:
    """Seconds of a run from its first step on, roughly."""

    steps: int
    per_step: float
    held_out: float
    """Of all measurements on held-out tasks."""

    @property
    def seconds(self) -> float:
        """All of it, on a machine that stays as busy as it is."""
        return self.steps * self.per_step + self.held_out

    def __str__(self) -> str:
        low, high = self.seconds / ROUGHLY, self.seconds * ROUGHLY
        measuring = f", of which {_duration(self.held_out)} for held-out tasks" if self.held_out else ""
        return f"roughly {_duration(low)} to {_duration(high)} for {self.steps:,} steps{measuring}"


def forecast_time(stepper: "Stepper", weights: Mapping[str, nn.Parameter], *, held_out_tokens: int) -> TimeForecast:
    """From the seconds of two small tasks, drawn out to the tokens of the first steps; the weights are not changed.

    ``held_out_tokens`` are those of all measurements on held-out tasks, which take no backward pass. What is stopped
    early takes less; resuming, the steps that are left.
    """
    settings, times = stepper.settings, []
    with torch.random.fork_rng(devices=[]):
        for number, (n_way, n_shot) in enumerate(_PROBES * _REPEATS):
            # Other tasks than those of memory: their texts are new.
            task = _cut(stepper.sampler.episode(number), n_way, n_shot=n_shot, n_query=1)
            began = time.perf_counter()
            stepper.gradients([task], 1.0)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append((stepper.tokens_of([task]), time.perf_counter() - began))
            for weight in weights.values():
                weight.grad = None
    small, large = (_fastest(times[i :: len(_PROBES)]) for i in range(len(_PROBES)))
    slope = max(large[1] / max(1, large[0]) / 2, (large[1] - small[1]) / max(1, large[0] - small[0]))
    fixed = max(0.0, large[1] - slope * large[0])
    n = min(_STEPS, settings.steps)
    groups = [group for step in range(n) for group in stepper.groups_of(step)]
    tokens = [(stepper.tokens_of(group), stepper.tokens_at_once(group)) for group in groups]
    passes = sum(all_of + _FORWARD * (all_of - kept) for all_of, kept in tokens)  # what is not kept passes twice
    per_step = settings.accumulate * (fixed * len(groups) + slope * passes) / n
    return TimeForecast(settings.steps, per_step, _FORWARD * slope * held_out_tokens)


def _fastest(times: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Mean tokens and the seconds that as many take, of the fastest by token: the machine was least disturbed then."""
    tokens = sum(n for n, _ in times) / len(times)
    return tokens, tokens * min(seconds / max(1, n) for n, seconds in times)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


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
            self._bar = steps_bar()
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
