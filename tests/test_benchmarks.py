"""Benchmarks stay runnable: whatever they import from the package is there."""

import ast
import importlib
from pathlib import Path

import pytest

from nlpmeta import load_source
from nlpmeta.sources.loading import Descriptions

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


@pytest.mark.parametrize("data", ["banking77", "clinc150", "massive"])
def test_there_is_one_sentence_about_each_class(data, shared_data):
    said = Descriptions.of_file(FOLDER / "descriptions" / f"{data}.csv")
    source = load_source(data, data_dir=shared_data)
    found = said.added_to(source.load("en" if data == "massive" else None, "train"))
    assert found.descriptions is not None and {len(each) for each in found.descriptions} == {1}
    assert all(text.endswith(".") for each in found.descriptions for text in each)


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
