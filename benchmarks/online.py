"""Meta-training that goes on from the shipped checkpoint, over 60 tasks of all kinds: results/online.json.

    python benchmarks/online.py --change learning_rate=0.0003       # make bench-online
    python benchmarks/online.py --auxiliary --tasks 20 --orders 1   # other tasks, on which settings are chosen
    python benchmarks/online.py --show                              # reprint the tables

A task is one set of the collection wide in one language: at most 20 labelled texts of each class and 400 in all are
learned from, at most 150 others are measured on (the published test split; else dev; else a part of train). Kinds take
turns, within a kind its sets, within a set its languages, in an order drawn with seed 0; the first 60 are measured, the
next 60 are the auxiliary ones. Left out: the sets on which recipes/wide.yaml selects, and its held-out languages.

Each task is measured as it arrives (5 shots), by the leader and by the checkpoint as it was, on the same texts, then
learned from. At the end all are measured once more. Texts are cut at 64 tokens. An order is saved after each task, so
that a run that is stopped goes on from there. Intervals are over tasks, each the mean of its orders.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from nlpmeta import LabeledTexts, OnlineMetaLearner, OnlineTaskSettings, load_source
from nlpmeta.learners.base import Learner
from nlpmeta.learners.checkpoint import load_checkpoint
from nlpmeta.learners.start import checkpoint_folder
from nlpmeta.metrics.scores import Interval
from nlpmeta.sources.catalogue import catalogue_entry, members
from nlpmeta.storage.files import user_cache, write_json
from nlpmeta.training.recipe_files import load_recipe

RESULTS = Path("results/online.json")
N_TASKS, MOST_A_CLASS, MOST_TEXTS, MOST_QUERY, FEWEST, MOST_TOKENS = 60, 20, 400, 150, 7, 64
FEWEST_MEASURED = 20
"""Test texts below which a task is learned from but left out of the tables: one text is worth points there."""
SETTINGS: dict[str, Any] = {"n_query": MOST_QUERY, "versions": 0, "layers": 2, "n_way": 10}


@dataclass(frozen=True, eq=False)
class Task:
    """What arrives: a set in a language; ``test`` is ``None`` where a part of the texts has to do."""

    kind: str
    name: str
    texts: LabeledTexts
    test: LabeledTexts | None
    trained_on: bool


def queue(data_dir: Path) -> Iterator[Task]:
    """All tasks, the kinds in turn; see the head of this file."""
    recipe = load_recipe("wide")
    wide = next(part for part in recipe.data if part.source == "wide")
    selected = {part.source for part in recipe.heldout}
    rng = np.random.default_rng(0)
    by_kind: dict[str, list[Iterator[Task]]] = {}
    for name in members("wide", leave_out=sorted(selected & set(members("wide")))):
        entry = catalogue_entry(name)
        langs = [lang for lang in entry.languages if lang not in wide.leave_out_langs]
        order = [langs[i] for i in rng.permutation(len(langs))]
        trained = name not in wide.leave_out
        by_kind.setdefault(entry.kind, []).append(_tasks(entry.kind, name, order, trained, data_dir))
    turns = {kind: [sets[i] for i in rng.permutation(len(sets))] for kind, sets in sorted(by_kind.items())}
    while any(turns.values()):
        for sets in turns.values():
            while sets:
                of_set = sets.pop(0)
                if (task := next(of_set, None)) is not None:
                    sets.append(of_set)
                    yield task
                    break


def _tasks(kind: str, name: str, langs: list[str], trained: bool, data_dir: Path) -> Iterator[Task]:
    source = load_source(name, data_dir=data_dir)
    for lang in langs:
        splits = source.splits(lang)
        held = next((split for split in ("test", "dev") if split in splits), None)
        texts = _thinned(source.load(lang, "train"), MOST_A_CLASS, MOST_TEXTS)
        rich = [label for label, count in texts.counts().items() if count >= FEWEST]
        if len(rich) < 2:
            continue
        texts = texts.with_classes(rich)
        test = None if held is None else _thinned(source.load(lang, held), None, MOST_QUERY)
        yield Task(kind, f"{name} {lang}", texts, test, trained)


def _thinned(pool: LabeledTexts, most_a_class: int | None, most: int) -> LabeledTexts:
    """Texts drawn with seed 0: at most so many of each class, and in all."""
    taken: dict[int, int] = {}
    rows = []
    for row in np.random.default_rng(0).permutation(len(pool)).tolist():
        label = pool.labels[row]
        taken[label] = taken.get(label, 0) + 1
        if most_a_class is None or taken[label] <= most_a_class:
            rows.append(row)
    return pool.select(sorted(rows[:most])).without_empty_classes()


def shipped() -> Learner:
    return load_checkpoint(checkpoint_folder("default"), max_length=MOST_TOKENS)


def order_of(tasks: list[Task], seed: int) -> list[Task]:
    return [tasks[i] for i in np.random.default_rng([seed, 7]).permutation(len(tasks))]


def learned(tasks: list[Task], changes: dict[str, Any], folder: Path, *, label: str) -> dict[str, Any]:
    """One order: accuracies on arrival, right after and at the end, and of the checkpoint that never learns."""
    settings = OnlineTaskSettings(**{**SETTINGS, **changes})
    still = settings.model_copy(update={"steps": 0, "buffer": 1})
    leader = OnlineMetaLearner.load(folder) if folder.exists() else OnlineMetaLearner(shipped(), settings)
    for task in tasks[len(leader.arrivals) :]:
        arrival = leader.meet(task.texts, name=task.name, test=task.test)
        leader.save(folder)
        print(f"{label} {len(leader.arrivals)} {arrival}", flush=True)
    arrivals = leader.arrivals
    never, end = (
        [each.on_arrival for each in _met(OnlineMetaLearner(learner, still), tasks)]
        for learner in (shipped(), leader.learner)
    )
    return {
        "tasks": [task.name for task in tasks],
        "on_arrival": [round(each.on_arrival, 4) for each in arrivals],
        "after": [round(each.after, 4) for each in arrivals],
        "never": [round(value, 4) for value in never],
        "end": [round(value, 4) for value in end],
    }


def _met(leader: OnlineMetaLearner, tasks: list[Task]) -> Any:
    for task in tasks:
        leader.meet(task.texts, name=task.name, test=task.test)
    return leader.arrivals


def summary(orders: list[dict[str, Any]], names: set[str]) -> dict[str, Any]:
    """Means over tasks of what is first averaged over orders, with 95 % intervals over tasks; of ``names`` alone."""
    by_task: dict[str, list[tuple[float, float]]] = {}
    for order in orders:
        for name, *scores in zip(
            *(order[key] for key in ("tasks", "on_arrival", "never", "after", "end")), strict=True
        ):
            arrival, never, after, end = scores
            if name in names:
                by_task.setdefault(name, []).append((arrival - never, after - end, end - never, never))
    means = np.asarray([np.mean(values, axis=0) for values in by_task.values()])
    gain, forgotten, kept = (Interval.of(means[:, column].tolist()) for column in range(3))
    return {
        "tasks": len(means),
        "never": round(float(means[:, 3].mean()), 4),
        "gain_on_arrival": gain.json(),
        "forgetting": forgotten.json(),
        "gain_at_the_end": kept.json(),
    }


def show(found: dict[str, Any]) -> None:
    table = Table("part", "settings", "orders", "tasks", "never, %", "gain on arrival", "forgetting", "gain at the end")
    for part in ("auxiliary", "measured"):
        for entry in found.get(part, []):
            orders, unseen = entry["orders"], set(entry["not_trained_on"])
            every = set(orders[0]["tasks"]) - set(entry["few_test_texts"])
            for about, names in (("", every), ("not trained on", every & unseen), ("trained on", every - unseen)):
                row = summary(orders, names)
                spans = [
                    f"{100 * row[key]['mean']:+.2f} ± {100 * row[key]['ci95']:.2f}"
                    for key in ("gain_on_arrival", "forgetting", "gain_at_the_end")
                ]
                changed = about or json.dumps(entry["changes"])
                table.add_row(part, changed, str(len(orders)), str(row["tasks"]), f"{100 * row['never']:.1f}", *spans)
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--auxiliary", action="store_true", help="the tasks on which settings are chosen")
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=N_TASKS, help="how many of them")
    parser.add_argument("--change", action="append", default=[], metavar="KEY=VALUE", help="another setting")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="reprint the tables")
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    if asked.show:
        return show(found)
    torch.set_num_threads(1)
    part = "auxiliary" if asked.auxiliary else "measured"
    every = []
    for task in queue(asked.data_dir):
        every.append(task)
        if len(every) == 2 * N_TASKS:
            break
    tasks = (every[N_TASKS:] if asked.auxiliary else every[:N_TASKS])[: asked.tasks]
    changes = {key: json.loads(value) for key, _, value in (each.partition("=") for each in asked.change)}
    entries = found.setdefault(part, [])
    entry = next((each for each in entries if each["changes"] == changes and each["n"] == len(tasks)), None)
    if entry is None:
        unseen = [task.name for task in tasks if not task.trained_on]
        entry = {"changes": changes, "n": len(tasks), "not_trained_on": unseen, "orders": []}
        entries.append(entry)
    few = [task.name for task in tasks if task.test is not None and len(task.test) < FEWEST_MEASURED]
    entry["few_test_texts"] = few
    write_json(asked.out, found)
    for seed in range(len(entry["orders"]), asked.orders):
        words = "-".join([part, str(len(tasks)), *(f"{key}={value}" for key, value in changes.items()), str(seed)])
        entry["orders"].append(
            learned(order_of(tasks, seed), changes, user_cache() / "online-benchmark" / words, label=words)
        )
        write_json(asked.out, found)
    show(found)
    return None


if __name__ == "__main__":
    main()
