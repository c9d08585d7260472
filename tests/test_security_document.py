"""Every promise of docs/security.md names the tests that hold it, and these are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "security.md"


def promises():
    """The rows of the table of promises, as their cells."""
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Promises")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def named_in(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_says_for_what_it_is_and_names_a_test():
    assert len(promises()) > 10
    for row in promises():
        assert len(row) == 4 and all(row), row
        assert re.search(r"`tests/\w+\.py::test_\w+`", row[3]), row[1]


def test_every_test_that_is_named_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", DOCUMENT.read_text(encoding="utf-8"))
    missing = [f"{file}::{test}" for file, test in named if test and test not in named_in(file)]
    assert len(named) > 20 and missing == []
    assert all((ROOT / file).is_file() for file, _ in named)
