"""A folder of results: a line for each cell that is done, so that a run that was killed goes on where it stood."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nlpmeta.bench.drawing import Maps
from nlpmeta.bench.plan import Cell, Job, Plain
from nlpmeta.data import Episode
from nlpmeta.episodes.index import MultiLabelDraw
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.storage.files import disk_errors_said_plainly, make_folder, open_to_append, read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one contender did on one episode.

    Seconds are wall-clock; ``adapt_seconds`` run from a loaded model and raw support texts to a classifier.
    ``peak_bytes`` is the most resident memory of the process during the cell, the loaded encoder included.
    ``artefact_bytes`` is what has to be kept beside the encoder's own weights. ``bins`` are ``calibration_bins``;
    ``predicted`` has the number of a class for each query text. Where texts may have several labels, accuracy is the
    share of texts whose labels are all right, pairs of text and label are calibrated, and ``facts`` has more figures.
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
    """The classes of a task and the right one of each query text.

    With ``several`` a text may have several: ``labels``, and what is predicted, are then numbers by ``numbers_of``.
    """

    label_names: tuple[str, ...]
    labels: tuple[int, ...]
    several: bool = False

    @classmethod
    def of(cls, episode: Episode | MultiLabelDraw) -> "QuerySet":
        """Of the query texts of a task."""
        if isinstance(episode, MultiLabelDraw):
            return cls(episode.query.label_names, tuple(numbers_of(episode.query.matrix())), several=True)
        return cls(episode.query.label_names, episode.query.labels)

    def json(self) -> dict[str, object]:
        """As plain values; nothing is said of several labels where there are none."""
        found: dict[str, object] = {"label_names": list(self.label_names), "labels": list(self.labels)}
        return found | ({"several": True} if self.several else {})


def numbers_of(marks: "NDArray[np.bool_]") -> list[int]:
    """Sets of labels ``(n, n_labels)`` as whole numbers: the binary digit of place i says whether label i is there."""
    return [sum(1 << label for label in np.flatnonzero(row).tolist()) for row in marks]


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
            str(row["task"]): QuerySet(tuple(row["label_names"]), tuple(row["labels"]), row.get("several") is True)
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
