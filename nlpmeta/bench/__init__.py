"""The benchmark itself: jobs in turn, each in a process of its own, every cell written down as soon as it is done."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from typing import IO, Any, Literal, TypeAlias

import numpy as np

from nlpmeta.bench.plan import BenchTask, Cell, Entry, Job
from nlpmeta.bench.store import LOG_FILE, Line, Store
from nlpmeta.bench.summary import Group, Method, Task, method_of
from nlpmeta.encoder.weights import resolve
from nlpmeta.storage.files import open_to_append

Say = Callable[[str], None]
Found: TypeAlias = "dict[str, Any]"
"""What a worker said about a cell, as JSON has it."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Tasks, contenders, shots and draws; ``limit`` is the seconds that a process may work on one cell."""

    tasks: tuple[BenchTask, ...]
    entries: tuple[Entry, ...]
    n_shots: tuple[int, ...]
    n_draws: int
    encoder: str
    max_length: int | None = None
    device: str = "auto"
    limit: float | None = None

    def jobs(self) -> list[Job]:
        """All that there is to do, task by task."""
        digest = resolve(self.encoder).digest
        draws = {n_shot: self.n_draws if n_shot else 1 for n_shot in self.n_shots}  # without examples all are the same
        cells = tuple(Cell(n_shot, draw) for n_shot in self.n_shots for draw in range(draws[n_shot]))
        return [
            Job(
                task=task,
                entry=entry,
                encoder=self.encoder,
                encoder_digest=digest,
                max_length=self.max_length,
                device=self.device,
                cells=cells,
            )
            for task in self.tasks
            for entry in self.entries
        ]

    def run(self, store: Store, *, say: Say) -> int:
        """Do what is missing in ``store``; the number of cells that failed.

        Raises:
            NLPMetaError: if another process writes there, or the data cannot give the tasks.
        """
        with store.only_writer():
            return run_jobs(self.jobs(), store, limit=self.limit, say=say)


def run_jobs(jobs: Sequence[Job], store: Store, *, limit: float | None, say: Say) -> int:
    """Do what is missing of ``jobs`` in turn; the number of cells that failed."""
    left = [replace(job, cells=store.missing(job)) for job in jobs]
    total, done, failed, start = sum(len(job.cells) for job in left), 0, 0, monotonic()
    say(f"{total} of {sum(len(job.cells) for job in jobs)} cells to do")
    for job in (job for job in left if job.cells):
        for cell, found in _work(job, store.folder / LOG_FILE, limit):
            done += 1
            where = f"[{done}/{total}] {job.task.title}, {cell.n_shot} shots, draw {cell.draw}: {job.entry.title}"
            if "failed" in found:
                failed += 1
                say(f"{where} failed: {found['failed']} (more in {store.folder / LOG_FILE})")
                continue
            store.add(job, cell, found)
            measured = found["measured"]
            say(
                f"{where}: {100 * measured['accuracy']:.1f} %, adapted in {measured['adapt_seconds']:.2f} s "
                f"({monotonic() - start:.0f} s so far)"
            )
    return failed


def _work(job: Job, log: Path, limit: float | None) -> Iterator[tuple[Cell, Found]]:
    """What comes out for each cell; a process that dies or takes too long costs the cell that it was at."""
    waiting = list(job.cells)
    while waiting:
        with open_to_append(log) as errors, _started(replace(job, cells=tuple(waiting)), errors) as worker:
            lines = _lines(worker)
            while waiting:
                found = _next(lines, worker, limit)
                cell = Cell(**found["cell"]) if "cell" in found else waiting[0]
                waiting.remove(cell)
                yield cell, found
                if "cell" not in found:
                    break
            worker.kill()


def _started(job: Job, errors: IO[bytes]) -> "subprocess.Popen[bytes]":
    worker = subprocess.Popen(  # noqa: S603  # our own module
        [sys.executable, "-m", "nlpmeta.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )
    if worker.stdin is not None:
        with worker.stdin as stream:
            stream.write(json.dumps(job.json()).encode())
    return worker


def _lines(worker: "subprocess.Popen[bytes]") -> "Queue[bytes]":
    """The lines that the worker writes, an empty one when it ends; a thread reads, so that waiting can have a limit."""
    lines: Queue[bytes] = Queue()

    def read() -> None:
        if worker.stdout is not None:
            for line in worker.stdout:
                lines.put(line)
        lines.put(b"")

    Thread(target=read, daemon=True).start()
    return lines


def _next(lines: "Queue[bytes]", worker: "subprocess.Popen[bytes]", limit: float | None) -> Found:
    try:
        line = lines.get(timeout=limit)
    except Empty:
        worker.kill()
        return {"failed": f"stopped after {limit:.0f} s"}
    if not line:
        return {"failed": f"the process ended with code {worker.wait()}"}
    return dict(json.loads(line))


WAYS, SHOTS = (5, 10, 20, 40, 80, 150), (1, 2, 5, 10, 20, 50)
FIXED_SHOT, FIXED_WAY = 5, 10
FEW_QUERIES = 50
"""Scaling is about adaptation; a few queries show that what was adapted works."""


def scaling_benches(whole: Bench) -> list[Bench]:
    """Two series on the first task: ``WAYS`` at ``FIXED_SHOT`` texts a class, ``SHOTS`` at ``FIXED_WAY`` classes.

    Raises:
        DataError: when it is run, if the data set has too few classes.
    """
    task = replace(whole.tasks[0], max_query=FEW_QUERIES)
    ways = replace(whole, tasks=tuple(replace(task, n_way=n_way) for n_way in WAYS), n_shots=(FIXED_SHOT,), n_draws=1)
    shots = replace(whole, tasks=(replace(task, n_way=FIXED_WAY),), n_shots=SHOTS, n_draws=1)
    return [ways, shots]


@dataclass(frozen=True)
class Growth:
    """``seconds = factor * size ** exponent``, fitted on logarithms."""

    exponent: float
    factor: float

    @classmethod
    def of(cls, sizes: Sequence[float], seconds: Sequence[float]) -> "Growth":
        """The least-squares line through the logarithms; sizes and seconds are positive, at least two sizes differ."""
        exponent, constant = np.polyfit(np.log(sizes), np.log(seconds), 1)
        return cls(float(exponent), float(np.exp(constant)))


@dataclass(frozen=True)
class Series:
    """Adaptation of one method over growing ``sizes`` (ways or shots); ``peaks`` are bytes of resident memory.

    Seconds of a method that was cut short are those that all its steps would have taken, and ``extrapolated`` says so.
    """

    method: Method
    over: Literal["ways", "shots"]
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    peaks: tuple[int, ...]
    extrapolated: bool

    @property
    def growth(self) -> Growth | None:
        """The fit; ``None`` with fewer than two sizes."""
        return Growth.of(self.sizes, self.seconds) if len(self.sizes) > 1 else None


def series_of(lines: Sequence[Line]) -> list[Series]:
    """The scaling runs among results."""
    found: dict[tuple[Method, Literal["ways", "shots"]], dict[int, Group]] = {}
    for line in lines:
        if line.key["n_way"] is None:
            continue
        n_way, n_shot, method = int(line.key["n_way"]), int(str(line.key["n_shot"])), method_of(line)
        group = Group(Task(str(line.key["data"]), str(line.key["lang"] or ""), n_shot), method, {0: line})
        if n_shot == FIXED_SHOT:
            found.setdefault((method, "ways"), {})[n_way] = group
        if n_way == FIXED_WAY:
            found.setdefault((method, "shots"), {})[n_shot] = group
    return [
        Series(
            method,
            over,
            tuple(sorted(groups)),
            tuple(groups[size].full_seconds() for size in sorted(groups)),
            tuple(int(groups[size].mean("peak_bytes")) for size in sorted(groups)),
            any(group.is_cut for group in groups.values()),
        )
        for (method, over), groups in found.items()
    ]
