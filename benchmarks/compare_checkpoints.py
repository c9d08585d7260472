"""Checkpoints compared by prototypes on the datasets used for model selection, with less noise than a training run has.

    python benchmarks/compare_checkpoints.py none multilingual results/wide-300 --data-dir ../shared/data

For every dataset: accuracy, the mean of the classes, of class names alone (0 shots), and of prototypes with and without
names at 1 and 5 shots, the mean of 30 draws. Texts are cut at 64 tokens. Names count as 1.9 texts, as in the shipped
checkpoint. `none` is the frozen encoder. Only train and dev splits of what recipes/wide.yaml holds out are read.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from auto_tasks import Family
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nlpmeta.episodes import generator
from nlpmeta.learners.base import class_means
from nlpmeta.learners.start import starting_learner
from nlpmeta.storage.files import write_json
from nlpmeta.training.recipe_files import load_recipe

RESULTS = Path("results/checkpoints.json")
MOST_TOKENS, NAME_WEIGHT, DRAWS, SHOTS = 64, 1.9, 30, (1, 5)
EARLIER = (("injongo", "hau"), ("massive", "af-ZA"), ("sib200", "luo_Latn"))
COLUMNS = ("0", "1", "1 without names", "5", "5 without names")


@dataclass(frozen=True, eq=False)
class Pool:
    """All texts of a data set that are used: their tokens, classes, and the names of these."""

    name: str
    texts: tuple[str, ...]
    labels: Tensor
    names: tuple[str, ...]

    @property
    def n_way(self) -> int:
        """How many classes there are."""
        return len(self.names)


def pools(data_dir: Path) -> list[Pool]:
    """The datasets that the recipe wide holds out; names as the learner of the shipped checkpoint reads them."""
    reads_names = starting_learner("prototypical")
    wide = dict.fromkeys(part.source for part in load_recipe("wide").heldout if part.source not in dict(EARLIER))
    families = [*(Family(name) for name in wide), *(Family(name, lang, split="dev") for name, lang in EARLIER)]
    found = []
    for family in families:
        pool = family.pools(data_dir).pool
        names = reads_names.names(pool)
        if names is not None:
            found.append(Pool(family.name, pool.texts, torch.tensor(pool.labels), names.texts))
    return found


def class_mean_accuracy(scores: Tensor, pool: Pool, scored: Tensor) -> float:
    """The mean over classes of the share of their scored texts that is right."""
    right = scores.argmax(1) == pool.labels
    each = [right[scored & (pool.labels == label)].float().mean() for label in range(pool.n_way)]
    return float(torch.stack(each).mean())


@torch.no_grad()
def measure(checkpoint: str, pool: Pool) -> dict[str, float]:
    """Accuracy by column, in %; a number of shots is left out where a class has no more texts than that."""
    encoder = starting_learner("prototypical", checkpoint=checkpoint).encoder.merged()
    texts, names = (
        F.normalize(encoder.embed_tokens([ids[:MOST_TOKENS] for ids in encoder.tokenize(list(each))]), dim=1)
        for each in (pool.texts, pool.names)
    )
    found = {"0": class_mean_accuracy(texts @ names.T, pool, torch.ones(len(texts), dtype=torch.bool))}
    smallest = int(torch.bincount(pool.labels).min())
    for n_shot in (n for n in SHOTS if n < smallest):
        each: dict[str, list[float]] = {f"{n_shot}": [], f"{n_shot} without names": []}
        for draw in range(DRAWS):
            order = torch.from_numpy(generator(0, draw, stream=n_shot).permutation(len(texts)))
            support = torch.cat([order[pool.labels[order] == label][:n_shot] for label in range(pool.n_way)])
            scored = torch.ones(len(texts), dtype=torch.bool)
            scored[support] = False
            means = class_means(texts[support], pool.labels[support], pool.n_way)
            named = (n_shot * means + NAME_WEIGHT * names) / (n_shot + NAME_WEIGHT)
            for column, prototypes in zip(each, (named, means), strict=True):
                each[column].append(class_mean_accuracy(texts @ F.normalize(prototypes, dim=1).T, pool, scored))
        found |= {column: float(np.mean(values)) for column, values in each.items()}
    return {column: 100 * value for column, value in found.items()}


def show(rows: dict[str, dict[str, dict[str, float]]], checkpoints: Sequence[str]) -> None:
    """A line for each data set and checkpoint, and the means."""
    table = Table("dataset", "checkpoint", *(f"{column} shots" for column in COLUMNS), box=None)
    for name, row in rows.items():
        for checkpoint in checkpoints:
            cells = [f"{row[checkpoint][column]:.1f}" if column in row[checkpoint] else "" for column in COLUMNS]
            table.add_row(name, checkpoint, *cells)
    for checkpoint in checkpoints:
        means = [[row[checkpoint][column] for row in rows.values() if column in row[checkpoint]] for column in COLUMNS]
        table.add_row("mean", checkpoint, *(f"{np.mean(each):.1f}" for each in means))
    Console(width=140).print(table)


def main() -> None:
    """Measure, print, and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="folders or names, as for nlpmeta adapt --checkpoint")
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for pool in pools(asked.data_dir):
        rows[pool.name] = {each: measure(each, pool) for each in asked.checkpoints}
        print(pool.name, {each: round(row["0"], 1) for each, row in rows[pool.name].items()}, flush=True)
    show(rows, asked.checkpoints)
    write_json(asked.out, {"command": "python benchmarks/compare_checkpoints.py", "rows": rows})


if __name__ == "__main__":
    main()
