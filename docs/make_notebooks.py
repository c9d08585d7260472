"""Runs the notebooks of the documentation and writes what their cells print into them.

    python docs/make_notebooks.py               # all, or those that are named
    python docs/make_notebooks.py --out FOLDER  # leaves them alone and writes the executed copies there

The code cells run in order in one namespace, as in Jupyter: the value of a last expression is shown, and a line that
starts with an exclamation mark is a command. Nothing but this package is needed, and nothing is written beside the
notebooks: they work in a temporary folder.
"""

import argparse
import ast
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "notebooks"


def execute(notebook: dict) -> dict:
    """The notebook with the outputs of this run; the error of a cell is raised as it is."""
    namespace = {"__name__": "__main__"}
    executed, count = [], 0
    try:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                count += 1
                outputs = outputs_of("".join(cell["source"]), namespace, count)
                cell = {**cell, "execution_count": count, "outputs": outputs}
            executed.append(cell)
    finally:
        for started in [value for value in namespace.values() if isinstance(value, subprocess.Popen)]:
            started.kill()  # what a cell that failed left running
    return {**notebook, "cells": executed}


def outputs_of(code: str, namespace: dict, count: int) -> list:
    """What the cell prints to standard output, and the value of its last expression."""
    lines = code.splitlines()
    tree = ast.parse("\n".join(f"_command({line[1:]!r})" if line.startswith("!") else line for line in lines))
    is_command = bool(lines) and lines[-1].startswith("!")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) and not is_command else None
    printed = io.StringIO()
    namespace["_command"] = _command
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {count}", "exec"), namespace)  # noqa: S102  # our own notebooks
        value = None if last is None else eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), namespace)  # noqa: S307
    found = []
    if text := printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        found.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data})
    return found


def _command(line: str) -> None:
    words = line.replace("nlpmeta ", f"{sys.executable} -m nlpmeta ", 1)
    run = subprocess.run(words, shell=True, capture_output=True, text=True)  # noqa: S602  # our own notebooks
    if run.returncode:
        raise RuntimeError(f"{line.strip()} ended with {run.returncode}: {run.stderr[-2000:]}")
    print(run.stdout, end="")  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(FOLDER.glob("*.ipynb")))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    for path in [each.resolve() for each in options.notebooks]:
        target = path if options.out is None else options.out.resolve() / path.name
        home = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            done = execute(json.loads(path.read_text(encoding="utf-8")))
            os.chdir(home)
        target.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
