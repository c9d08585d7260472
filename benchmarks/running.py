"""Runs a list of ``nlpmeta evaluate`` commands that write to one results file."""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def main(runs: Sequence[str], out: Path, description: str | None) -> int:
    """Run the commands one after the other; the exit code is that of the first that fails."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", default="", help="only commands that contain this")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    asked = parser.parse_args()
    for run in (run for run in runs if asked.only in run):
        words = ["evaluate", *shlex.split(run), "--data-dir", str(asked.data_dir)]
        print(f"nlpmeta {shlex.join(words)} --out {out}", flush=True)
        if asked.dry_run:
            continue
        start = time.perf_counter()
        command = [sys.executable, "-m", "nlpmeta", *words, "--out", str(out)]
        if code := subprocess.run(command, check=False).returncode:
            return code
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    return 0
