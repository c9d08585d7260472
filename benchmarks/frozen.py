"""The baselines on the frozen encoder, first line of every table: writes results/frozen.json.

    python benchmarks/frozen.py --data-dir ../shared/data              # everything
    python benchmarks/frozen.py --data-dir ../shared/data --only spam  # the commands that contain a word
    python benchmarks/frozen.py --dry-run                              # the commands, to run them by hand

Machine, time and figures: docs/evaluation.md. Rows that are there already are replaced, the others stay.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

OUT = Path("results/frozen.json")
METHODS = "logistic,prototypical,ridge,knn"
QUICK = "prototypical,ridge,knn"  # thousands of episodes: choosing a penalty in each would take hours

RUNS = (
    f"{METHODS} --data injongo --lang swa --shots 1,5,10",
    f"{METHODS} --data massive --lang sw --shots 1,5,8",
    f"{METHODS} --data sib200 --lang swh_Latn --shots 1,5,10",
    f"{METHODS} --data banking77 --shots 1,5,10",
    f"{METHODS} --data clinc150 --shots 1,5,10",
    f"{METHODS} --data sms-spam --shots 4,8,16",
    f"{METHODS} --data spamassassin --shots 4,8,16",
    f"{METHODS} --data injongo --lang all --shots 1,5",
    f"{METHODS} --data sib200 --lang all --shots 5",
    f"{METHODS} --data massive --lang all --shots 1,5",
    f"{METHODS} --data clinc150 --protocol clinc-oos",
    "logistic --data massive --lang sw --protocol mteb-8shot --no-prefix",
    "logistic --data massive --lang sw --protocol mteb-8shot",
    "logistic --data banking77 --protocol mteb-8shot --no-prefix",
    f"{QUICK} --data banking77 --protocol protaugment",
    f"{QUICK} --data hwu64 --protocol protaugment",
    f"{QUICK} --data liu --protocol protaugment",
    f"{QUICK} --data oos --protocol protaugment",
)


def main() -> int:
    """Run the commands one after the other; the exit code is that of the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", default="", help="only commands that contain this")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    asked = parser.parse_args()
    for run in (run for run in RUNS if asked.only in run):
        words = ["evaluate", *shlex.split(run), "--data-dir", str(asked.data_dir)]
        print(f"nlpmeta {shlex.join(words)} --out {OUT}", flush=True)
        if asked.dry_run:
            continue
        start = time.perf_counter()
        command = [sys.executable, "-m", "nlpmeta", *words, "--out", str(OUT)]
        if code := subprocess.run(command, check=False).returncode:
            return code
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
