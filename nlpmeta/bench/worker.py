"""The process that a contender has to itself: a job on standard input, a line of JSON for each cell on the output.

    python -m nlpmeta.bench.worker < job.json

Whatever the packages under test print goes to standard error.
"""

import json
import os
import sys
import traceback
from typing import IO

from nlpmeta.bench.contender import OURS, Contender, OurMethod, contenders
from nlpmeta.bench.drawing import Maps
from nlpmeta.bench.plan import Cell, Job
from nlpmeta.bench.store import measure_cell
from nlpmeta.data import Episode, LabeledTexts


def main() -> int:
    """Do every cell of the job; a cell that fails is said and does not keep the others from being done."""
    results = _results_only()
    job = Job.parse(json.load(sys.stdin))
    contender, warm = _contender(job), False
    n_draws = 1 + max(cell.draw for cell in job.cells)
    for n_shot in sorted({cell.n_shot for cell in job.cells}):
        sampler = job.task.tasks(n_shot, n_draws).sampler
        for cell in (cell for cell in job.cells if cell.n_shot == n_shot):
            episode = sampler.episode(cell.draw)
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


def _line(contender: Contender, job: Job, cell: Cell, episode: Episode) -> dict[str, object]:
    measured = measure_cell(contender, episode, seed=job.task.seed + cell.draw)
    task = {"label_names": list(episode.query.label_names), "labels": list(episode.query.labels)}
    found: dict[str, object] = {"measured": measured.json(), "task": task, "setting": _setting(contender)}
    largest = max(each.n_shot for each in job.cells)
    if isinstance(contender, OurMethod) and cell == Cell(largest, 0):  # one map of a task is enough
        maps = Maps.of(contender.learner.encoder, episode)
        found |= {} if maps is None else {"maps": maps.json()}
    return found


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


def _warm_up(job: Job, episode: Episode) -> None:
    """Two texts of two classes, so that what is done once in a process (imports, kernels) is not timed in a cell."""
    few = episode.support.with_classes(episode.support.label_names[:2])
    rows = [i for label in (0, 1) for i in [j for j, each in enumerate(few.labels) if each == label][:2]]
    small: LabeledTexts = few.select(rows)
    contender = _contender(job, max_steps=1)
    contender.prepare(0)
    contender.adapt(small).probabilities(episode.query.texts[:2])


def _results_only() -> IO[str]:
    """Standard output as it was; from now on everyone else who writes there writes to standard error."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return results


if __name__ == "__main__":
    sys.exit(main())
