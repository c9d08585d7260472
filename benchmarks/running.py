"""Runs a list of ``nlpmeta evaluate`` commands, or a measurement on auxiliary and held-out tasks, into one file."""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def main(runs: Sequence[str], out: Path, description: str | None) -> int:
    """Run the commands one after the other; the exit code is that of the first that fails."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", default="", help="only commands that contain this word")
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


def in_two_parts(
    measure: Callable[[bool, Path], T], show: Callable[[str, T], None], results: Path, description: str | None
) -> None:
    """Measure on auxiliary tasks, or with ``--held-out`` on those that are reported, and show all that is known.

    Args:
        measure: takes whether tasks are the held-out ones, and the folder of data sets; what it returns fits into JSON.
        show: takes the name of a part, ``auxiliary`` or ``held-out``, and what was measured.
        results: the file that keeps both parts.
        description: what ``--help`` says.
    """
    import torch
    from threadpoolctl import threadpool_limits

    from nlpmeta.storage.files import write_json

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--held-out", action="store_true", help="the tasks that are reported")
    parser.add_argument("--show", action="store_true", help="reprint the tables")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    if not asked.show:
        with threadpool_limits(limits=1), torch.no_grad():
            kept["held-out" if asked.held_out else "auxiliary"] = measure(asked.held_out, asked.data_dir)
        write_json(results, kept)
    for part, found in kept.items():
        show(part, found)
