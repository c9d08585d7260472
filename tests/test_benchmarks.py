"""Benchmarks stay runnable: whatever they import from the package is there."""

import ast
import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
FILES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_name_that_a_benchmark_imports_exists(path):
    missing = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [(each.name, None) for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [(node.module, each.name) for each in node.names]
        for module, name in names:
            if module.split(".")[0] != "nlpmeta" and not (FOLDER / f"{module}.py").is_file():
                continue
            if module.split(".")[0] != "nlpmeta":
                tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
                there = name is None or any(_defines(each, name) for each in tree.body)
            else:
                there = _is_there(module, name)
            missing += [] if there else [f"{module}.{name}"]
    assert not missing


def _is_there(module: str, name: str | None) -> bool:
    try:
        found = importlib.import_module(module)
        if name is not None and not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")
    except ImportError:
        return False
    return True


def _defines(node: ast.stmt, name: str) -> bool:
    if isinstance(node, ast.Assign):
        return any(isinstance(part, ast.Name) and part.id == name for each in node.targets for part in ast.walk(each))
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name) and node.target.id == name
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((each.asname or each.name) == name for each in node.names)
    return getattr(node, "name", None) == name
