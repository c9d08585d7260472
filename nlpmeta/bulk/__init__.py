"""Bulk prediction: partitions by local processes or a Ray cluster, and batches of pipelines that users have already.

``map_batches`` is for pipelines of ``datasets`` and Ray Data; the rest is how ``nlpmeta predict`` does many files.
"""

import logging
import os
import signal
import sys
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial, reduce
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from nlpmeta.bulk.partitions import Facts, Partition, Work, folder_of
from nlpmeta.errors import DataWarning, NLPMetaError, WorkFailedError, visible

if TYPE_CHECKING:
    from multiprocessing.context import SpawnContext

    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.classifier.light import LightClassifier
    from nlpmeta.encoder.engines import Engine

__all__ = ["map_batches"]
Batch: TypeAlias = Any
"""A dictionary of columns, a pandas data frame or an Arrow table."""
Task = Callable[[], Work]
"""Loads a model, in a process of its own, and gives what does a partition."""
_TRIES = 2  # workers that may die over one partition
_PATIENCE = 10.0  # seconds for a worker to clear away what it was writing


@dataclass(frozen=True)
class Outcome:
    """What became of a partition: its rows, how many of them got no label, notes, and what went wrong if it failed."""

    source: str
    rows: int = 0
    failed: int = 0
    notes: tuple[str, ...] = ()
    error: str | None = None


def outcomes(
    partitions: Sequence[Partition], task: Task, facts: Facts, *, workers: int = 1, ray: str | None = None
) -> Iterator[Outcome]:
    """Do all ``partitions``, in any order; one that fails does not keep the others from being done.

    A model is loaded once a worker. A partition whose worker is killed is given to another one.

    Args:
        partitions: what is to be done.
        task: loads the model; it travels to the workers.
        facts: for the records.
        workers: how many processes, of one thread each unless ``OMP_NUM_THREADS`` says more.
        ray: the address of a Ray cluster, or ``local`` for one that is started here.

    Raises:
        NLPMetaError: if the model cannot be loaded, or Ray is not installed.
        WorkFailedError: if workers are killed while they load the model.
    """
    if partitions and ray is not None:
        yield from _by_ray(partitions, task, facts, workers, ray)
    elif partitions and workers == 1 and "OMP_NUM_THREADS" in os.environ:  # this process counts as it would
        work = task()
        yield from (_attempt(each, work, facts) for each in partitions)
    elif partitions:
        yield from _by_processes(partitions, task, facts, workers)


def _attempt(partition: Partition, work: Work, facts: Facts) -> Outcome:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        try:
            found = partition.done_by(work, facts)
        except (NLPMetaError, OSError, ValueError, ArithmeticError, LookupError, TypeError, RuntimeError) as error:
            said = str(error) if isinstance(error, NLPMetaError) else f"{partition.source}: {error!r}"
            return Outcome(partition.source, error=said)
    notes = tuple(str(each.message) for each in caught if issubclass(each.category, DataWarning))
    return Outcome(partition.source, found.rows, len(found.failed), notes)


class _Worker:
    """A process with a model, and the partition that it is at."""

    def __init__(self, context: "SpawnContext", task: Task, facts: Facts) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, task, facts), daemon=True)
        self.process.start()
        theirs.close()
        self.is_ready, self.partition = False, cast("Partition | None", None)

    def give(self, partition: Partition) -> None:
        self.partition = partition
        with suppress(OSError):  # if it was killed, that is noticed where its answer is read
            self.pipe.send(partition)


def _serve(pipe: "Connection[Any, Any]", task: Task, facts: Facts) -> None:
    """What a worker does until it is told nothing more."""
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process says what is to be done
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for what is loaded later; sums in another order differ in a bit
    threadpool_limits(int(os.environ["OMP_NUM_THREADS"].partition(",")[0]))  # for what is loaded
    try:
        work = task()
    except NLPMetaError as error:
        pipe.send(str(error))
        return
    pipe.send(None)
    with suppress(EOFError, OSError):  # the first process is gone
        while True:
            pipe.send(_attempt(pipe.recv(), work, facts))


def _by_processes(partitions: Sequence[Partition], task: Task, facts: Facts, workers: int) -> Iterator[Outcome]:
    context, waiting, killed = get_context("spawn"), deque(partitions), Counter[str]()
    started = partial(_Worker, context, task, facts)
    team = [started()]  # the first alone: what is compiled for it, or why it fails, is there for the others
    most = min(workers, len(partitions))
    try:
        while waiting or any(each.partition for each in team):
            ready = wait([each.pipe for each in team])
            for worker in [each for each in team if each.pipe in ready]:
                try:
                    said = worker.pipe.recv()
                except (EOFError, OSError):
                    team.remove(worker)
                    yield from _mourned(worker, waiting, killed)
                    team += [started()] if waiting else []
                    continue
                if not worker.is_ready and said is not None:
                    raise NLPMetaError(said)
                if worker.is_ready:
                    yield said
                else:
                    team += [started() for _ in range(min(most - len(team), len(waiting) - 1))]
                worker.is_ready, worker.partition = True, None
                if waiting:
                    worker.give(waiting.popleft())
    finally:
        for worker in team:
            worker.process.terminate()
        for worker in team:
            worker.process.join(_PATIENCE)
            worker.process.kill()


def _mourned(worker: _Worker, waiting: "deque[Partition]", killed: "Counter[str]") -> Iterator[Outcome]:
    """Put back what a worker was at that was killed, unless that happened to it before.

    Raises:
        WorkFailedError: if it was loading the model, and was not the first of such.
    """
    worker.process.join()
    how = f"ended with code {worker.process.exitcode}; is there enough memory for --workers?"
    if worker.partition is None:
        killed[""] += not worker.is_ready
        if killed[""] == _TRIES:
            raise WorkFailedError(f"A worker that was loading the model {how}")
        return
    source = worker.partition.source
    killed[source] += 1
    if killed[source] < _TRIES:
        waiting.appendleft(worker.partition)
    else:
        yield Outcome(source, error=f"{source}: its worker {how} It was tried {_TRIES} times.")


class _RayWorker:  # an actor
    def __init__(self, task: Task, facts: Facts) -> None:
        self.work, self.facts = task(), facts

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return asdict(_attempt(Partition(**row), self.work, self.facts))


def check_ray() -> None:
    """See that Ray Data is installed.

    Raises:
        NLPMetaError: if it is not.
    """
    if find_spec("ray") is None:
        raise NLPMetaError("--ray needs Ray: pip install 'nlpmeta[ray]'; --workers alone needs nothing more.")


def _by_ray(partitions: Sequence[Partition], task: Task, facts: Facts, workers: int, address: str) -> Iterator[Outcome]:
    check_ray()
    import ray
    from ray import data

    if not ray.is_initialized():
        local = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {"address": address}
        try:
            ray.init(**local, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WorkFailedError(f"--ray {address}: there is no cluster to work on ({error}).") from error
    data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = data.from_items([asdict(each) for each in partitions], override_num_blocks=len(partitions))
    pool = data.ActorPoolStrategy(size=min(workers, len(partitions)), max_tasks_in_flight_per_actor=1)
    done = rows.map(_RayWorker, fn_constructor_args=(task, facts), compute=pool, num_cpus=1)
    try:
        yield from (Outcome(**{**row, "notes": tuple(row["notes"])}) for row in done.iter_rows())
    except ray.exceptions.RayError as error:  # its last line is that of the worker
        raise WorkFailedError(f"--ray {address}: {visible(str(error).strip().splitlines()[-1])}") from error


def map_batches(
    model: str,
    *,
    text_column: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    engine: "Engine" = "auto",
) -> Callable[[Batch], Batch]:
    """A function that adds the columns label and probability to a batch, for pipelines that map over batches.

    It loads the model once in each process. A batch is a dictionary of columns, a pandas data frame or an Arrow table,
    and comes back as such: ``datasets.Dataset.map(…, batched=True)`` and ``ray.data.Dataset.map_batches`` take it as it
    is. A text that is empty or missing gets no label. Where there are such columns, the new ones begin with predicted_.

    Args:
        model: a folder that every process can read, or ``user/name`` on the Hub.
        text_column: if it is not obvious; two with a comma between them for pairs.
        revision: a branch, tag or commit of the Hub.
        device: as for ``FewShotClassifier.from_pretrained``.
        engine: as for ``FewShotClassifier.from_pretrained``; ``auto`` does without PyTorch where it can.

    Raises:
        NLPMetaError: on the first batch, if the model cannot be loaded, or the batch has no such column.
    """
    return _Mapper(model, text_column, revision, device, engine)


@dataclass(frozen=True)
class _Mapper:
    model: str
    text_column: str | None
    revision: str | None
    device: str
    engine: "Engine"

    def __call__(self, batch: Batch) -> Batch:
        from nlpmeta.data.inputs import Pair
        from nlpmeta.sources.columns import text_columns, text_in

        is_table = hasattr(batch, "column_names")
        names = [str(name) for name in (batch.column_names if is_table else batch)]
        columns = text_columns(self.text_column, names, where="the batch")
        values = {name: batch[name].to_pylist() if is_table else list(batch[name]) for name in columns}
        rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
        found = [text_in(row, columns) for row in rows]
        texts = [
            each if isinstance(each, Pair) else str(each).strip() if isinstance(each, str) else "" for each in found
        ]
        prefix = "predicted_" if {"label", "probability"} & {name.casefold() for name in names} else ""
        added = {f"{prefix}{name}": each for name, each in self._answers(texts).items()}
        if is_table:
            return reduce(lambda table, name: table.append_column(name, [added[name]]), added, batch)
        return {**batch, **added} if isinstance(batch, Mapping) else batch.assign(**added)

    def _answers(self, texts: Sequence[str]) -> dict[str, list[Any]]:
        classifier = _classifier(self.model, self.revision, self.device, self.engine)
        filled = [text for text in texts if text]
        probabilities: Any = classifier.predict_proba(filled) if filled else []
        names = classifier.classes_.tolist()
        best = iter([(names[row.argmax()], round(float(row.max()), 6)) for row in probabilities])
        pairs = [next(best) if text else (None, None) for text in texts]
        return {"label": [label for label, _ in pairs], "probability": [probability for _, probability in pairs]}


@cache
def _classifier(
    model: str, revision: str | None, device: str, engine: "Engine"
) -> "FewShotClassifier | LightClassifier":
    from nlpmeta.classifier.light import LightClassifier
    from nlpmeta.encoder.engines import check_engine, takes_compiled

    if takes_compiled(device, check_engine(engine)):
        light = LightClassifier.of_folder(folder_of(model, revision), engine)
        if light is not None:
            return light
    from nlpmeta.classifier.classifier import FewShotClassifier

    full = FewShotClassifier.from_pretrained(model, revision=revision, device=device, engine=engine)
    if full.fitted_.gives_sets:
        raise NLPMetaError(f"{model} gives several labels per text; nlpmeta predict writes those.")
    return full
