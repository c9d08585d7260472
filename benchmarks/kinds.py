"""What transfers between kinds of tasks: training with and without a kind, measured on datasets of that kind.

    python benchmarks/kinds.py --data-dir ../shared/data     # make bench-kinds; half an hour on one core
    python benchmarks/kinds.py --show                        # reprint the table

Every run continues from the second stage of the shipped checkpoint (runs/multilingual-names), which saw intents and
topics and some spam, for the same 40 steps on the data of recipes/wide-more.yaml: all of them, or all but
those of one kind. Prototypes are scored as in compare_checkpoints.py, on datasets that recipes/wide.yaml holds out.
Checkpoints are kept below runs/kinds: what is trained is not trained again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from compare_checkpoints import measure, pools
from rich.console import Console
from rich.table import Table

from nlpmeta.sources.catalogue import catalogue
from nlpmeta.storage.files import write_json
from nlpmeta.training.recipe_files import load_recipe

RESULTS, RUNS = Path("results/kinds.json"), Path("runs/kinds")
START, ALL = "runs/multilingual-names", "all"
KINDS = {
    "sentiment": ("sentiment", "rating"),
    "emotion": ("emotion",),
    "hate": ("hate", "hate target", "offence"),
    "spam": ("spam",),
}
"""A kind, and those that are left out with it as they ask for much the same."""
SHORT = ("warmup=10", "ema=0", "heldout=[]")
COLUMNS = ("0", "1", "5")


def train(left_out: str, start: str, steps: int, data_dir: Path) -> Path:
    """The folder of a short run on all the data but one kind, or on all; the process ends if the run fails."""
    folder = RUNS / left_out.replace(" ", "-")
    if (folder / "nlpmeta.json").exists():
        return folder
    changes = [f"start={start}", f"steps={steps}", f"out={folder}", *SHORT]
    kinds = KINDS.get(left_out, ())
    for i, part in enumerate(load_recipe("wide-more").data):
        if part.source == "wide":
            gone = [name for name, each in catalogue().items() if each.collection == "wide" and each.kind in kinds]
            names = sorted({*part.leave_out, *gone})
            changes.append(f"data.{i}.leave_out=[{','.join(names)}]")
        elif catalogue()[part.source].kind in kinds:
            changes.append(f"data.{i}.weight=1e-6")
    words = ["train", "wide-more", *changes, "--data-dir", str(data_dir), "--resume"]
    done = subprocess.run([sys.executable, "-m", "nlpmeta", *words], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return folder


def show() -> None:
    """Accuracy by kind and number of examples: frozen, at the start, trained without the kind, trained with it."""
    facts = json.loads(RESULTS.read_text(encoding="utf-8"))
    table = Table("kind", "datasets", "shots", "frozen", "start", "without it", "with it", box=None)
    for kind in KINDS:
        rows = [row for row in facts["rows"] if row["kind"] == kind]
        for column in COLUMNS:
            means = [np.mean([row[each][column] for row in rows]) for each in ("none", "start", "without", "with")]
            table.add_row(kind, str(len(rows)), column, *(f"{mean:.1f}" for mean in means))
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--start", default=START, help="the checkpoint that every run continues from")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--show", action="store_true", help="print the table of the existing results")
    asked = parser.parse_args()
    if not asked.show:
        folders = {each: train(each, asked.start, asked.steps, asked.data_dir) for each in (ALL, *KINDS)}
        rows = []
        for pool in pools(asked.data_dir):
            kind = catalogue()[pool.name].kind if pool.name in catalogue() else ""
            if kind in KINDS:
                places = {"none": "none", "start": asked.start, "without": folders[kind], "with": folders[ALL]}
                found = {name: measure(str(place), pool) for name, place in places.items()}
                rows.append({"set": pool.name, "kind": kind} | found)
        write_json(RESULTS, {"command": "python benchmarks/kinds.py", "steps": asked.steps, "seed": 0, "rows": rows})
    show()


if __name__ == "__main__":
    main()
