"""The process that a contender has to itself: a job on standard input, a line of JSON for each cell on the output.

    python -m nlpmeta.bench.worker < job.json

Whatever the packages under test print goes to standard error.
"""

import json
import math
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import IO, TYPE_CHECKING

import numpy as np

from nlpmeta.bench.contender import OURS, Adapted, Contender, OurMethod, contenders
from nlpmeta.bench.drawing import Maps
from nlpmeta.bench.plan import Cell, Job, Plain
from nlpmeta.bench.store import Measured, QuerySet, numbers_of
from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes.index import MultiLabelDraw, MultiLabelTasks
from nlpmeta.errors import WorkFailedError
from nlpmeta.evaluation.protocols import Tasks
from nlpmeta.metrics import Bins, accuracy, calibration_bins, error_of_bins, macro_f1, several_bins, several_scores
from nlpmeta.progress import peak_bytes, start_watching
from nlpmeta.storage.files import make_folder, temporary_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray


def main() -> int:
    """Do every cell of the job; a cell that fails is said and does not keep the others from being done."""
    results = _results_only()
    job = Job.parse(json.load(sys.stdin))
    contender, warm = _contender(job), False
    n_draws = 1 + max(cell.draw for cell in job.cells)
    for n_shot in sorted({cell.n_shot for cell in job.cells}):
        tasks = job.task.tasks(n_shot, n_draws)
        for cell in (cell for cell in job.cells if cell.n_shot == n_shot):
            episode = _episode(tasks, cell.draw)
            try:
                if not warm:
                    _warm_up(job, episode)
                    warm = True
                line = _line(contender, job, cell, episode)
            except Exception as error:  # other packages raise what they like
                traceback.print_exc()
                line = {"failed": f"{type(error).__name__}: {error}"}
            results.write(json.dumps({"cell": {"n_shot": cell.n_shot, "draw": cell.draw}, **line}) + "\n")
            results.flush()
    return 0


def _episode(tasks: Tasks | MultiLabelTasks, index: int) -> Episode | MultiLabelDraw:
    return tasks.draws[index] if isinstance(tasks, MultiLabelTasks) else tasks.sampler.episode(index)


def _adapted(contender: Contender, episode: Episode | MultiLabelDraw) -> Adapted:
    if isinstance(episode, MultiLabelDraw):
        return contender.adapt_several(episode.support)
    return contender.adapt(episode.support)


def _line(contender: Contender, job: Job, cell: Cell, episode: Episode | MultiLabelDraw) -> dict[str, object]:
    measured = measure_cell(contender, episode, seed=job.task.seed + cell.draw)
    found: dict[str, object] = {"measured": measured.json(), "setting": _setting(contender)}
    found["task"] = QuerySet.of(episode).json()
    largest = max(each.n_shot for each in job.cells)
    if isinstance(episode, MultiLabelDraw):
        return found
    if isinstance(contender, OurMethod) and cell == Cell(largest, 0):  # one map of a task is enough
        maps = Maps.of(contender.learner.encoder, episode)
        found |= {} if maps is None else {"maps": maps.json()}
    return found


def measure_cell(contender: Contender, episode: Episode | MultiLabelDraw, *, seed: int) -> Measured:
    """Adapt to the support, score the query, and weigh what there is to keep.

    Raises:
        WorkFailedError: if what comes out are not probabilities of the classes.
    """
    start_watching()
    contender.prepare(seed)
    start = perf_counter()
    model = _adapted(contender, episode)
    adapted = perf_counter()
    table = model.probabilities(episode.query.texts)
    done = perf_counter()
    peak = peak_bytes()
    query = QuerySet.of(episode)
    _check(table, len(query.labels), len(query.label_names), several=query.several)
    figures = _several(table, model, episode) if isinstance(episode, MultiLabelDraw) else _figures(table, query)
    return Measured(
        n_way=len(query.label_names),
        n_support=len(episode.support),
        n_query=len(query.labels),
        support=episode.support.digest(),
        accuracy=figures.accuracy,
        macro_f1=figures.macro_f1,
        calibration_error=float(error_of_bins(figures.bins)),
        adapt_seconds=adapted - start,
        predictions_per_second=len(query.labels) / (done - adapted),
        peak_bytes=peak,
        artefact_bytes=_weight(model),
        bins=np.round(figures.bins, 5).tolist(),
        predicted=figures.predicted,
        facts={**model.facts(), **figures.more},
    )


@dataclass(frozen=True, kw_only=True)
class _Figures:
    """How good a table of probabilities is; ``more`` is known where texts have several labels."""

    accuracy: float
    macro_f1: float
    bins: Bins
    predicted: list[int]
    more: Mapping[str, Plain] = field(default_factory=dict)


def _figures(table: "NDArray[np.float64]", query: QuerySet) -> _Figures:
    truth, predicted = list(query.labels), table.argmax(1).tolist()
    return _Figures(
        accuracy=accuracy(truth, predicted),
        macro_f1=macro_f1(truth, predicted),
        bins=calibration_bins(truth, table),
        predicted=predicted,
    )


def _several(table: "NDArray[np.float64]", model: Adapted, draw: MultiLabelDraw) -> _Figures:
    marks, given = draw.query.matrix(), table >= model.least()
    found = several_scores(marks, table, given)
    return _Figures(
        accuracy=found.pop("exact_match"),
        macro_f1=found.pop("macro_f1"),
        bins=several_bins(marks, table),
        predicted=numbers_of(given),
        more={"several": True, **{name: None if math.isnan(value) else value for name, value in found.items()}},
    )


def _check(table: "NDArray[np.float64]", n_query: int, n_way: int, *, several: bool) -> None:
    if table.shape != (n_query, n_way):
        raise WorkFailedError(f"Probabilities of shape {(n_query, n_way)} were expected; got {table.shape}.")
    wrong = not np.isfinite(table).all() or (table < -1e-6).any() or (table > 1 + 1e-3).any()
    if wrong or not (several or np.allclose(table.sum(1), 1, atol=1e-3)):
        raise WorkFailedError("The output is not probabilities: they must be finite, from 0 to 1, and sum to 1.")


def _weight(model: Adapted) -> int:
    """The bytes of all files that ``save`` writes."""
    with temporary_folder() as folder:
        place = Path(folder) / "model"
        make_folder(place)
        model.save(place)
        return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def _setting(contender: Contender) -> dict[str, object]:
    """What figures of time depend on."""
    from datetime import date
    from importlib.metadata import version

    import torch

    package = None if contender.package is None else contender.package.replace("_", "-")
    return {
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "date": date.today().isoformat(),
        "torch": version("torch"),
        "package": "nlpmeta" if package is None else package,
        "version": version(package or "nlpmeta"),
    }


def _contender(job: Job, *, max_steps: int | None = None) -> Contender:
    limit = job.entry.max_steps if max_steps is None else max_steps
    if job.entry.contender == OURS:
        contender: Contender = OurMethod(job.encoder, limit, method=job.entry.name)
    else:
        contender = contenders[job.entry.contender](job.encoder, limit)
    contender.max_length, contender.device = job.max_length, job.device
    return contender


def _warm_up(job: Job, episode: Episode | MultiLabelDraw) -> None:
    """Two texts of two classes, so that what is done once in a process (imports, kernels) is not timed in a cell.

    Where texts may have several labels, the whole support: of a few texts some label might have none.
    """
    contender = _contender(job, max_steps=1)
    if isinstance(episode, MultiLabelDraw):
        contender.prepare(0)
        _adapted(contender, episode).probabilities(episode.query.texts[:2])
        return
    few = episode.support.with_classes(episode.support.label_names[:2])
    rows = [i for label in (0, 1) for i in [j for j, each in enumerate(few.labels) if each == label][:2]]
    small: LabeledTexts = few.select(rows)
    contender.prepare(0)
    contender.adapt(small).probabilities(episode.query.texts[:2])


def _results_only() -> IO[str]:
    """Standard output as it was; from now on everyone else who writes there writes to standard error."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return results


if __name__ == "__main__":
    sys.exit(main())
