"""Every promise of docs/security.md names the tests that hold it, and these are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "security.md"


def promises():
    """The guarantees: title, what it is for, how it is kept, and the tests that hold it."""
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Guarantees\n")[2].partition("\n## ")[0]
    parts = [part.partition("\n") for part in section.split("\n### ")[1:]]
    found = []
    for title, _, content in parts:
        lines = content.partition("`tests/test_security_document.py`")[0].strip().splitlines()
        said = " ".join(line for line in lines if line and not line.startswith("- "))
        subject = re.match(r"\*(.+?)\.\* (.+)", said)
        tests = [line for line in lines if line.startswith("- ")]
        found.append((title, *(subject.groups() if subject else ("", "")), tests))
    return found


def named_in(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_says_for_what_it_is_and_names_a_test():
    assert len(promises()) > 10
    for title, subject, how, tests in promises():
        assert title and subject and how and tests, title
        assert all(re.fullmatch(r"- `tests/\w+\.py::test_\w+`", test) for test in tests), title


def test_every_test_that_is_named_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", DOCUMENT.read_text(encoding="utf-8"))
    missing = [f"{file}::{test}" for file, test in named if test and test not in named_in(file)]
    assert len(named) > 20 and missing == []
    assert all((ROOT / file).is_file() for file, _ in named)
