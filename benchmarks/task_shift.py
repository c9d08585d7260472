"""The gain from robustness to task shift, and from raw text next to labels: results/task_shift.json and its tables.

    python benchmarks/task_shift.py --part augmentation --data-dir ../shared/data   # about an hour on one core
    python benchmarks/task_shift.py --part hybrid --data-dir ../shared/data         # about half an hour on one core
    python benchmarks/task_shift.py --show                                          # reprint the tables

Each variant is a short run from the frozen encoder, with two seeds shared by all variants, evaluated on the same dev
tasks by prototypes with two examples per class: languages without labelled training tasks, and in the first part
training languages as well. Finished runs are not trained again.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

OUT = Path("results/task_shift.json")
SEEDS = (0, 1)
EPISODES = 12
BASE = Path(__file__).with_name("task_shift.yaml")
VARIANTS = {
    "plain": (),
    "worst_group=0.2": ("worst_group=0.2",),
    "merge_share=0.3": ("data.merge_share=0.3",),
    "split_share=0.3": ("data.split_share=0.3",),
    "mix_share=0.3": ("mix_share=0.3",),
    "all four": ("worst_group=0.2", "data.merge_share=0.3", "data.split_share=0.3", "mix_share=0.3"),
}
SHIFT = {
    "new languages": {"injongo": ("hau", "lin"), "massive": ("af-ZA",), "sib200": ("luo_Latn",)},
    "languages of training": {"injongo": ("amh", "ewe", "wol"), "massive": ("hi-IN", "zh-CN"), "sib200": ("wol_Latn",)},
}
WITHOUT_LABELS = {
    "new languages": {
        "injongo": ("hau", "lin", "amh", "wol"),
        "massive": ("af-ZA", "hi-IN"),
        "sib200": ("luo_Latn", "hau_Latn", "wol_Latn", "amh_Ethi"),
    }
}
Sets = Mapping[str, Mapping[str, tuple[str, ...]]]


def recipes_of(part: str, seed: int) -> dict[str, Any]:
    """The recipes of a part by the name of the variant."""
    from nlpmeta.training.recipe_files import load_recipe

    if part == "augmentation":
        return {name: load_recipe(str(BASE), [f"seed={seed}", *changes]) for name, changes in VARIANTS.items()}
    hybrid = load_recipe("hybrid", [f"seed={seed}", "steps=60", "renew_every=60", "heldout=[]", "data.n_texts=1500"])
    labelled = tuple(each for each in hybrid.data if each.reads_labels)
    return {"labelled": hybrid.model_copy(update={"data": labelled}), "hybrid": hybrid}


def measure(learner: Any, sets: Sets, data_dir: Path) -> dict[str, dict[str, list[float]]]:
    """The accuracy of each task, by group of languages and by data set and language."""
    from nlpmeta.encoder.table import EmbeddingTable
    from nlpmeta.episodes.samplers import EpisodeSampler
    from nlpmeta.metrics.scores import score_episode
    from nlpmeta.sources.loading import load_source

    table = EmbeddingTable(learner.encoder)
    found: dict[str, dict[str, list[float]]] = {}
    for group, sources in sets.items():
        found[group] = {}
        for name, langs in sources.items():
            for lang in langs:
                pool = load_source(name, data_dir=data_dir).load(lang, "dev")
                n_way = {"injongo": 20, "massive": 20, "sib200": 7}[name]
                sampler = EpisodeSampler([pool], n_way=n_way, n_shot=2, n_query=2, seed=17)
                episodes = [sampler.episode(i) for i in range(EPISODES)]
                found[group][f"{name} {lang}"] = [score_episode(learner, each, table).accuracy for each in episodes]
    return found


def run(part: str, data_dir: Path) -> None:
    """Train what is not trained yet, and measure it."""
    from nlpmeta.learners.checkpoint import load_checkpoint
    from nlpmeta.learners.prototypical import PrototypicalNetwork
    from nlpmeta.learners.start import starting_learner
    from nlpmeta.training.engine import run_recipe

    sets = SHIFT if part == "augmentation" else WITHOUT_LABELS
    kept = read().get(part, {})
    if "frozen" not in kept:
        frozen = PrototypicalNetwork(starting_learner("prototypical", checkpoint="none").encoder, metric="cosine")
        kept["frozen"] = {str(seed): measure(frozen.eval(), sets, data_dir) for seed in SEEDS[:1]}
        write(part, kept)
    for seed in SEEDS:
        for name, recipe in recipes_of(part, seed).items():
            if str(seed) in kept.get(name, {}):
                continue
            start = time.perf_counter()
            folder = Path("runs/task-shift") / part / f"{name} {seed}".replace(" ", "-")
            done = run_recipe(recipe.model_copy(update={"out": str(folder)}), data_dir=data_dir, resume=folder.exists())
            trained = time.perf_counter() - start
            accuracies = measure(load_checkpoint(folder).requires_grad_(False).eval(), sets, data_dir)
            kept.setdefault(name, {})[str(seed)] = accuracies
            write(part, kept)
            means = {group: f"{100 * mean_of(each):.1f}" for group, each in accuracies.items()}
            print(f"{name}, seed {seed}: {done.result.steps} steps in {trained:.0f} s, {means}", flush=True)


def mean_of(sets: Mapping[str, list[float]]) -> float:
    """The mean over sets of the mean over tasks."""
    return float(np.mean([np.mean(each) for each in sets.values()]))


def read() -> dict[str, Any]:
    return json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}


def write(part: str, rows: Any) -> None:
    from nlpmeta.storage.files import write_json

    write_json(OUT, {**read(), part: rows})


def show() -> None:
    """A table for each part: means over seeds, the worst set, and the difference to the first variant by seed."""
    for part, kept in read().items():
        groups = list(kept["frozen"]["0"])
        table = Table("variant", *groups, "worst set", *(f"difference, {g}, by seed" for g in groups), title=part)
        names = [name for name in kept if name != "frozen"]
        for name in ("frozen", *names):
            seeds = kept[name]
            row = [f"{100 * np.mean([mean_of(each[g]) for each in seeds.values()]):.1f}" for g in groups]
            every = [{k: v for g in groups for k, v in each[g].items()} for each in seeds.values()]
            by_set = {k: np.mean([each[k] for each in every]) for k in every[0]}
            worst = min(by_set, key=lambda k: by_set[k])
            row.append(f"{100 * by_set[worst]:.1f} ({worst})")
            for g in groups if name not in ("frozen", names[0]) else ():
                first = kept[names[0]]
                by_seed = [100 * (mean_of(seeds[s][g]) - mean_of(first[s][g])) for s in seeds if s in first]
                row.append(f"{np.mean(by_seed):+.1f} ({', '.join(f'{each:+.1f}' for each in by_seed)})")
            table.add_row(name, *row)
        Console(width=160).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("augmentation", "hybrid"))
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--show", action="store_true", help="print the tables of the existing results")
    asked = parser.parse_args()
    if asked.part is None and not asked.show:
        parser.error("say --part augmentation, --part hybrid or --show")
    if asked.part is not None:
        run(asked.part, asked.data_dir)
    show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
