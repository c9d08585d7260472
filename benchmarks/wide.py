"""The shipped checkpoint, and a candidate for the next, on datasets of many kinds that neither was trained on.

    python benchmarks/wide.py --data-dir ../shared/data                    # make bench-wide
    python benchmarks/wide.py --candidate runs/wide --kinds sentiment,hate # a few datasets, with the candidate
    python benchmarks/wide.py --beside none --candidate runs/mine --shots 0,5      # beside the frozen encoder; 0: names

These are the datasets of the collection that recipes/wide.yaml reserves for model selection; support and query come
from their train split, so that their published test splits stay unread. Every method is scored on the same draws.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from nlpmeta.encoder.table import embeddings_folder
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.evaluation.measure import Tables
from nlpmeta.learners.start import starting_learner
from nlpmeta.metrics.scores import score_episode
from nlpmeta.sources.catalogue import catalogue
from nlpmeta.sources.loading import load_source
from nlpmeta.storage.files import write_json
from nlpmeta.training.recipe_files import load_recipe

RESULTS = Path("results/wide.json")
FROZEN = ("logistic", "ridge", "prototypical")
OURS = ("prototypical", "auto")
Row = dict[str, object]


def held_out_sets() -> list[str]:
    """The sets of the collection that the recipe chooses by, in its order."""
    parts = load_recipe("wide").heldout
    return list(dict.fromkeys(part.source for part in parts if catalogue()[part.source].collection == "wide"))


def contenders(candidate: str | None, beside: str = "default") -> dict[str, tuple[str, str]]:
    """Method and checkpoint by the name of a column."""
    found = {f"frozen {name}": (name, "none") for name in FROZEN}
    found |= {f"{name}@{beside}": (name, beside) for name in OURS}
    return found | ({f"{name}@{candidate}": (name, candidate) for name in OURS} if candidate else {})


def measure(
    sets: Sequence[str],
    shots: Sequence[int],
    *,
    draws: int,
    max_query: int,
    candidate: str | None,
    beside: str,
    data_dir: Path,
) -> list[Row]:
    """One row for each set and number of shots, with the accuracies of every method on the same draws.

    With 0 shots the names of the classes are all that ``auto`` has, and no other method is measured.
    """
    every = {
        name: starting_learner(method, checkpoint=checkpoint)
        for name, (method, checkpoint) in contenders(candidate, beside).items()
    }
    rows: list[Row] = []
    for name in sets:
        pool, tables = load_source(name, data_dir=data_dir).load(split="train"), Tables(embeddings_folder())
        for n_shot in shots:
            drawn = KShotSampler(pool, n_shot=max(n_shot, 1), seed=0, rare="drop", max_query=max_query)
            episodes = [drawn.episode(i) for i in range(draws)]
            learners = every
            if n_shot == 0:
                episodes = [replace(each, support=each.support.names_alone()) for each in episodes]
                learners = {each: learner for each, learner in every.items() if each.startswith("auto")}
            texts = list(dict.fromkeys(text for each in episodes for text in each.texts()))
            primed = tables.primed(learners, texts, show_progress=False)
            reached = {
                each: [score_episode(learner, episode, primed[each]).accuracy for episode in episodes]
                for each, learner in learners.items()
            }
            row: Row = {"set": name, "kind": catalogue()[name].kind, "shots": n_shot, "n_way": episodes[0].n_way}
            rows.append(row | {"accuracies": reached})
            said = ", ".join(f"{each} {100 * np.mean(found):.1f}" for each, found in reached.items())
            print(f"{name}, {n_shot} shots: {said}", flush=True)
    return rows


def show(rows: Sequence[Row]) -> None:
    """A line for each set and number of shots, then the mean of each kind and of all; accuracy in %."""
    names = [name for name in rows[-1]["accuracies"] if not name.startswith("frozen")]
    table = Table("set", "kind", "ways", "shots", "best frozen head", *names, box=None)
    sums: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    for row in rows:
        means = {name: 100 * float(np.mean(found)) for name, found in row["accuracies"].items()}
        best = max((each for each in means if each.startswith("frozen")), key=means.__getitem__, default="")
        values = [means.get(best, np.nan), *(means.get(name, np.nan) for name in names)]
        for key in (row["kind"], "all"):
            sums[key, row["shots"]].append(values)
        cells = [f"{said(values[0])} ({best.removeprefix('frozen ')})" if best else "", *map(said, values[1:])]
        table.add_row(row["set"], row["kind"], str(row["n_way"]), str(row["shots"]), *cells)
    for (kind, n_shot), found in sorted(sums.items()):
        table.add_row(f"mean of {len(found)}", kind, "", str(n_shot), *map(said, np.mean(found, axis=0).tolist()))
    Console(width=160).print(table)


def by_kind(rows: Sequence[Row]) -> str:
    """Markdown: the mean over the datasets of a kind, and of all, on the shipped checkpoint; the best is bold."""
    shots = sorted({int(str(row["shots"])) for row in rows} - {0})
    parts = (f"{n} shot{'s' * (n > 1)}: best frozen head | prototypes | nlpmeta" for n in shots)
    lines = [f"| kind | datasets | {' | '.join(parts)} |", "|---" * (2 + 3 * len(shots)) + "|"]
    kinds = sorted({str(row["kind"]) for row in rows})
    for kind, title in (*((kind, kind) for kind in kinds), (None, "mean of {} sets")):
        some = [row for row in rows if kind in (None, row["kind"])]
        n_sets = len({row["set"] for row in some})
        cells = []
        for n_shot in shots:
            found = [_frozen_and_ours(row["accuracies"]) for row in some if row["shots"] == n_shot]
            figures = [said(each) for each in np.mean(found, axis=0).tolist()]
            cells += [f"**{each}**" if each == max(figures, key=float) else each for each in figures]
        lines.append(f"| {title.format(n_sets)} | {n_sets} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _frozen_and_ours(reached: Mapping[str, Sequence[float]]) -> list[float]:
    means = {name: 100 * float(np.mean(found)) for name, found in reached.items()}
    best = max(value for name, value in means.items() if name.startswith("frozen"))
    return [best, *(means[f"{name}@default"] for name in OURS)]


def said(percent: float) -> str:
    """With one decimal, or nothing where a method was not measured."""
    return "" if np.isnan(percent) else f"{percent:.1f}"


def main() -> None:
    """Measure and print, and keep the rows in results/wide.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--candidate", help="a checkpoint folder to compare with the shipped one")
    parser.add_argument("--beside", default="default", help="the checkpoint that it stands beside; none: frozen")
    parser.add_argument("--kinds", help="only datasets of these kinds, comma-separated")
    parser.add_argument("--shots", default="1,5")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--max-query", type=int, default=200, help="query texts per draw")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    kinds = asked.kinds.split(",") if asked.kinds else None
    sets = [name for name in held_out_sets() if kinds is None or catalogue()[name].kind in kinds]
    shots = [int(each) for each in asked.shots.split(",")]
    options = {"draws": asked.draws, "max_query": asked.max_query, "candidate": asked.candidate, "beside": asked.beside}
    rows: list[Row] = []
    for name in sets:
        with torch.no_grad():
            rows += measure([name], shots, data_dir=asked.data_dir, **options)
        write_json(asked.out, {"draws": asked.draws, "max_query": asked.max_query, "rows": rows})
    show(rows)


if __name__ == "__main__":
    main()
