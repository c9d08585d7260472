"""ProtAugment's folds, meta-trained only on the training classes of each: results/protaugment.json and its table.

    python benchmarks/protaugment.py --data-dir ../shared/data                    # two to three hours on one core
    python benchmarks/protaugment.py --data-dir ../shared/data --sets liu         # a quarter of that
    python benchmarks/protaugment.py --show                                       # reprint the table

Folds that have already been measured are skipped. The frozen encoder is evaluated on the same episodes.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

OUT = Path("results/protaugment.json")
SETS, FOLDS = ("banking77", "hwu64", "liu", "oos"), range(5)


def command(*words: str) -> None:
    """Run nlpmeta; the process ends with its exit code if that is not 0."""
    done = subprocess.run([sys.executable, "-m", "nlpmeta", *words], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def measure(name: str, fold: int, data_dir: Path) -> None:
    """Train on one fold and score its test classes, beside the frozen encoder."""
    start = time.perf_counter()
    folder = Path("runs/protaugment") / f"{name}-{fold}"
    where = [f"{part}.{key}" for part in ("data", "heldout") for key in ("source", "fold")]
    changes = [f"{key}={fold if key.endswith('fold') else name}" for key in where]
    if not (folder / "nlpmeta.json").exists():
        command("train", "protaugment", *changes, f"out={folder}", "--data-dir", str(data_dir))
    methods = f"prototypical,prototypical@{folder}"
    words = ["--protocol", "protaugment", "--data", name, "--fold", str(fold), "--data-dir", str(data_dir)]
    command("evaluate", methods, *words, "--out", str(folder / "results.json"))
    rows = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    kept = read()
    kept[f"{name}/{fold}"] = [
        {
            "trained": row["method"] != "prototypical",
            "n_way": row["n_way"],
            "n_shot": row["n_shot"],
            "accuracy": row["accuracy"]["mean"],
        }
        for row in rows
    ]
    OUT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(f"{name}, fold {fold}: {time.perf_counter() - start:.0f} s", flush=True)


def read() -> dict[str, Any]:
    return json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}


def show() -> None:
    """The mean over the folds of each set, frozen and trained."""
    kept, table = read(), Table("set", "folds", "task", "frozen", "meta-trained", "difference, by fold")
    for name in SETS:
        folds = [rows for key, rows in kept.items() if key.startswith(f"{name}/")]
        if not folds:
            continue
        for five, shot in ((True, 1), (True, 5), (False, 1), (False, 5)):
            pairs = np.array(
                [
                    [
                        next(
                            100 * row["accuracy"]
                            for row in rows
                            if row["trained"] == trained and (row["n_way"] == 5) == five and row["n_shot"] == shot
                        )
                        for trained in (False, True)
                    ]
                    for rows in folds
                ]
            )
            gains = pairs[:, 1] - pairs[:, 0]
            table.add_row(
                name,
                str(len(folds)),
                f"{'5-way' if five else 'all'} {shot}-shot",
                *(f"{each:.1f}" for each in pairs.mean(0)),
                f"{gains.mean():+.1f} ({', '.join(f'{each:+.1f}' for each in gains)})",
            )
    Console(width=140).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", default=",".join(SETS), help="datasets, comma-separated")
    parser.add_argument("--show", action="store_true", help="print the table of the existing results")
    asked = parser.parse_args()
    for name in () if asked.show else asked.sets.split(","):
        for fold in FOLDS:
            if f"{name}/{fold}" not in read():
                measure(name, fold, asked.data_dir)
    show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
