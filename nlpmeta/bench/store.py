"""A folder of results: a line for each cell that is done, so that a run that was killed goes on where it stood."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from nlpmeta.bench.contender import Adapted, Contender
from nlpmeta.bench.drawing import Maps
from nlpmeta.bench.plan import Cell, Job, Plain
from nlpmeta.data import Episode
from nlpmeta.errors import DataError, NLPMetaError, WorkFailedError
from nlpmeta.metrics import accuracy, calibration_bins, calibration_error, macro_f1
from nlpmeta.progress import peak_bytes, start_watching
from nlpmeta.storage.files import disk_errors_said_plainly, make_folder, open_to_append, read_bytes, temporary_folder


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one contender did on one episode.

    Seconds are wall-clock; ``adapt_seconds`` run from a loaded model and raw support texts to a classifier.
    ``peak_bytes`` is the most resident memory of the process during the cell, the loaded encoder included.
    ``artefact_bytes`` is what has to be kept beside the encoder's own weights. ``bins`` are ``calibration_bins``;
    ``predicted`` has the number of a class for each query text.
    """

    n_way: int
    n_support: int
    n_query: int
    support: str
    accuracy: float
    macro_f1: float
    calibration_error: float
    adapt_seconds: float
    predictions_per_second: float
    peak_bytes: int
    artefact_bytes: int
    bins: list[list[float]]
    predicted: list[int]
    facts: dict[str, Plain]

    def json(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)


def measure_cell(contender: Contender, episode: Episode, *, seed: int) -> Measured:
    """Adapt to the support, score the query, and weigh what there is to keep.

    Raises:
        WorkFailedError: if what comes out are not probabilities of the classes.
    """
    start_watching()
    contender.prepare(seed)
    start = perf_counter()
    model = contender.adapt(episode.support)
    adapted = perf_counter()
    table = model.probabilities(episode.query.texts)
    done = perf_counter()
    peak = peak_bytes()
    _check(table, len(episode.query), episode.n_way)
    predicted = table.argmax(1).tolist()
    truth = list(episode.query.labels)
    return Measured(
        n_way=episode.n_way,
        n_support=len(episode.support),
        n_query=len(episode.query),
        support=episode.support.digest(),
        accuracy=accuracy(truth, predicted),
        macro_f1=macro_f1(truth, predicted),
        calibration_error=calibration_error(truth, table),
        adapt_seconds=adapted - start,
        predictions_per_second=len(episode.query) / (done - adapted),
        peak_bytes=peak,
        artefact_bytes=_weight(model),
        bins=np.round(calibration_bins(truth, table), 5).tolist(),
        predicted=predicted,
        facts=model.facts(),
    )


def _check(table: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", n_query: int, n_way: int) -> None:
    if table.shape != (n_query, n_way):
        raise WorkFailedError(f"Probabilities of shape {(n_query, n_way)} were expected; got {table.shape}.")
    if not np.isfinite(table).all() or (table < -1e-6).any() or not np.allclose(table.sum(1), 1, atol=1e-3):
        raise WorkFailedError("The output is not probabilities: they must be finite, from 0 to 1, and sum to 1.")


def _weight(model: Adapted) -> int:
    """The bytes of all files that ``save`` writes."""
    with temporary_folder() as folder:
        place = Path(folder) / "model"
        make_folder(place)
        model.save(place)
        return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


RESULTS_FILE, TASKS_FILE, MAPS_FILE = "results.jsonl", "tasks.jsonl", "maps.jsonl"
LOCK_FILE, LOG_FILE = ".lock", "worker.log"
_KEY = (
    *("data", "lang", "max_query", "seed", "n_way", "method", "max_steps", "checkpoint"),
    *("encoder", "n_shot", "draw"),
)


@dataclass(frozen=True)
class Line:
    """One cell that is done: what it was, and what came out."""

    key: Mapping[str, Plain]
    measured: Measured
    task: str
    setting: Mapping[str, Plain]

    def json(self) -> str:
        """One line of ``results.jsonl``."""
        return json.dumps({**self.key, "task": self.task, "measured": self.measured.json(), "setting": self.setting})


@dataclass(frozen=True)
class QuerySet:
    """The classes of a task and the right one of each query text."""

    label_names: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class TaskMaps:
    """The maps of a task, and which method and shots they are of."""

    title: str
    n_shot: int
    method: str
    maps: Maps


class Store:
    """The files of one folder.

    Raises:
        NLPMetaError: if the path is a file.
        DataError: on reading, if a file there is not one of results.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise NLPMetaError(f"{folder} is a file; name a folder for the results.")
        self.folder = folder

    def lines(self) -> list[Line]:
        """Every cell that is done; the last one where a cell was done twice."""
        found = {}
        for row in _rows(self.folder / RESULTS_FILE):
            try:
                key = {name: row[name] for name in _KEY}
                line = Line(key, Measured(**row["measured"]), row["task"], row["setting"])
            except (KeyError, TypeError) as error:
                raise _not_ours(self.folder / RESULTS_FILE, error) from error
            found[_id(key)] = line
        return list(found.values())

    def query_sets(self) -> dict[str, QuerySet]:
        """The query sets by their digest."""
        return {
            str(row["task"]): QuerySet(tuple(row["label_names"]), tuple(row["labels"]))
            for row in _rows(self.folder / TASKS_FILE)
        }

    def maps(self) -> list[TaskMaps]:
        """The maps, the last one of each task and method."""
        rows = {(row["data"], row["lang"], row["method"]): row for row in _rows(self.folder / MAPS_FILE)}
        return [
            TaskMaps(f"{data} {lang or ''}".strip(), int(row["n_shot"]), str(method), Maps.parse(row["maps"]))
            for (data, lang, method), row in rows.items()
        ]

    def missing(self, job: Job) -> tuple[Cell, ...]:
        """The cells of ``job`` that are not done yet."""
        done = {_id(line.key) for line in self.lines()}
        return tuple(cell for cell in job.cells if _id(job.key(cell)) not in done)

    def add(self, job: Job, cell: Cell, found: Mapping[str, Any]) -> None:
        """Write down what a worker said about a cell; it is on the disk when this returns.

        Raises:
            WorkFailedError: if the disk does not allow the write.
        """
        query = json.dumps(found["task"], sort_keys=True)
        digest = sha256(query.encode()).hexdigest()[:12]
        if digest not in self.query_sets():
            _append(self.folder / TASKS_FILE, json.dumps({"task": digest, **json.loads(query)}, ensure_ascii=False))
        if "maps" in found:
            _append(self.folder / MAPS_FILE, json.dumps({**job.key(cell), "maps": found["maps"]}, ensure_ascii=False))
        line = Line(job.key(cell), Measured(**found["measured"]), digest, found["setting"])
        _append(self.folder / RESULTS_FILE, line.json())

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """A block in which no other process adds results here.

        Raises:
            NLPMetaError: if another process does already.
        """
        from filelock import FileLock, Timeout

        with disk_errors_said_plainly(self.folder):
            make_folder(self.folder)
            lock = FileLock(self.folder / LOCK_FILE)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise NLPMetaError(
                    f"Another benchmark is writing to {self.folder}; wait or name another one."
                ) from error
        try:
            yield
        finally:
            lock.release()


_LARGEST = 1 << 30  # bytes


def _append(path: Path, line: str) -> None:
    """Add a line; half a line that a killed run left is cut off first."""
    with disk_errors_said_plainly(path):
        with open_to_append(path) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(0)
                whole = file.read().rfind(b"\n") + 1
                if whole < size:
                    file.truncate(whole)
            file.write(line.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _rows(path: Path) -> "Iterator[dict[str, Any]]":
    """The whole lines of a file; what stands after the last line end was not finished and does not count."""
    if not path.exists():
        return
    content = read_bytes(path, most=_LARGEST)
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            yield dict(json.loads(line))
        except (ValueError, TypeError) as error:
            raise _not_ours(path, error) from error


def _not_ours(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a file of benchmark results ({error!r}); it was not changed. Name another one.")


def _id(key: Mapping[str, Plain]) -> str:
    return json.dumps([key[name] for name in _KEY])
