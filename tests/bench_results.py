"""Folders of benchmark results in every shape that a report must show, made without running a benchmark."""

import numpy as np

from nlpmeta.bench.plan import BenchTask, Cell, Entry, Job
from nlpmeta.bench.store import Store
from nlpmeta.metrics import accuracy, calibration_bins, calibration_error, macro_f1

OURS = Entry(name="auto@default", contender="nlpmeta", digest="abc")
SETFIT = Entry(name="setfit", contender="setfit", max_steps=25)
SETTING = {"threads": 2, "cores": 2, "torch": "2.13.0", "package": "nlpmeta", "version": "0.2.0"}


def make_job(entry, *, data="topics", lang="sw", n_way=None, cells=()):
    task = BenchTask(data=data, lang=lang, n_way=n_way)
    return Job(task=task, entry=entry, encoder="e5", encoder_digest="0" * 64, cells=tuple(cells))


def add_cell(store, job, cell, *, names, right=0.7, seconds=1.0, facts=None, maps=None):
    """Random answers, a share of them right, with what measuring makes of them."""
    rng = np.random.default_rng([cell.n_shot, cell.draw, len(names), round(100 * right)])
    labels = np.arange(60 + len(names)) % len(names)
    table = rng.dirichlet(np.ones(len(names)), len(labels))
    table[rng.random(len(labels)) < right, :] *= 0.2
    table[np.arange(len(labels)), labels] += (rng.random(len(labels)) < right) * 1.0
    table /= table.sum(1, keepdims=True)
    predicted = table.argmax(1).tolist()
    measured = {
        "n_way": len(names),
        "n_support": cell.n_shot * len(names),
        "n_query": len(labels),
        "support": f"{cell.n_shot}-{cell.draw}",
        "accuracy": accuracy(labels.tolist(), predicted),
        "macro_f1": macro_f1(labels.tolist(), predicted),
        "calibration_error": calibration_error(labels, table),
        "adapt_seconds": seconds,
        "predictions_per_second": 150.0,
        "peak_bytes": 1_200_000_000,
        "artefact_bytes": 2_700_000,
        "bins": calibration_bins(labels, table).tolist(),
        "predicted": predicted,
        "facts": facts or {},
    }
    found = {"measured": measured, "task": {"label_names": list(names), "labels": labels.tolist()}, "setting": SETTING}
    if maps is not None:
        found["maps"] = maps
    store.add(job, cell, found)


def a_map(names, n=6):
    points = [[float(i), float(i % 5)] for i in range(n * len(names))]
    labels = [i % len(names) for i in range(n * len(names))]
    one = {"label_names": list(names), "labels": labels, "n_support": len(names), "points": points, "explained": 0.4}
    return {"frozen": one, "adapted": one}


def full_folder(folder):
    """Two sets, one of them in two languages and one with 77 classes of awkward names; two methods; scaling."""
    store = Store(folder)
    folder.mkdir(parents=True)
    banking = [f"class_{i}_with_a_rather_long_name" for i in range(74)]
    banking += ["<script>alert(1)</script>", "$price_{x}$", "ማንቂያ"]
    sets = {("injongo", "swa"): list("abcdefgh"), ("injongo", "kin"): list("abcdefgh"), ("banking77", None): banking}
    for (data, lang), names in sets.items():
        for entry, right, seconds in ((OURS, 0.7, 2.0), (SETFIT, 0.5, 40.0)):
            for n_shot in (1, 5, 10):
                for draw in range(3):
                    job = make_job(entry, data=data, lang=lang)
                    maps = a_map(names[:8]) if entry is OURS and (n_shot, draw) == (10, 0) else None
                    facts = {"steps": 25, "wanted_steps": 250} if entry is SETFIT else {"chosen": "logistic"}
                    add_cell(
                        *(store, job, Cell(n_shot, draw)),
                        names=names,
                        right=min(0.95, right + n_shot / 50 + draw / 50),
                        seconds=seconds * n_shot,
                        facts=facts,
                        maps=maps,
                    )
    for entry, factor in ((OURS, 1), (SETFIT, 60)):
        for n_way in (5, 10, 20, 40):
            job = make_job(entry, data="clinc150", lang="en", n_way=n_way)
            add_cell(store, job, Cell(5, 0), names=[str(i) for i in range(n_way)], seconds=factor * n_way / 10)
        for n_shot in (1, 2, 10, 50):
            job = make_job(entry, data="clinc150", lang="en", n_way=10)
            add_cell(store, job, Cell(n_shot, 0), names=[str(i) for i in range(10)], seconds=factor * n_shot / 10)
    return store
