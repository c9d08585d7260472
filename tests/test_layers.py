"""Imports go one way: a module may import only from rows above its own, or from its own room."""

import ast
from pathlib import Path

ROWS = [
    {"errors", "_version"},
    {
        "data",
        "languages",
        "registry",
        "exchange",
        "inputs",
        "labels",
        "files",
        "folders",
        "leftovers",
        "tensors",
        "manifest",
        "progress",
        "settings",
        "hub",
        "card",
    },
    {"sources", "sampling", "encoder"},
    {"learners"},
    {
        "training",
        "recipes",
        "evaluation",
        "metrics",
        "metric_modules",
        "protocols",
        "materials",
        "harness",
        "checkpoint",
        "starting",
        "comparison",
        "trust",
    },
    {
        "classifier",
        "kept_classifier",
        "fitted",
        "adaptation",
        "saved_task",
        "sharing",
        "export",
        "streaming",
    },
    {"bench", "report", "doctor"},
    {"cli", "__main__"},
]
# Within a row, these rooms may use those: a source draws from templates, an evaluation needs a metric.
WITHIN = {
    "data": {"errors"},
    "languages": {"data"},
    "labels": {"inputs"},
    "sources": {"sampling"},
    "training": {"evaluation", "checkpoint", "metrics", "recipes"},
    "recipes": {"training", "evaluation", "metrics", "protocols", "checkpoint", "starting"},
    "evaluation": {"metrics"},
    "protocols": {"evaluation", "metrics", "checkpoint"},
    "starting": {"checkpoint"},
    "comparison": {"evaluation"},
    "hub": {"files"},
    "card": {"files"},
    "files": {"leftovers"},
    "folders": {"exchange", "files", "leftovers"},
    "tensors": {"files"},
    "saved_task": {"fitted"},
    "manifest": {"files", "folders", "tensors"},
    "streaming": {"fitted"},
    "kept_classifier": {"fitted", "saved_task", "sharing"},
    "classifier": {"kept_classifier", "fitted", "streaming"},
    "export": {"classifier", "saved_task"},
    "adaptation": {"classifier", "kept_classifier", "fitted", "saved_task"},
    "report": {"bench"},
    "trust": {"checkpoint"},
    "__main__": {"cli"},
}
PACKAGE = Path(__file__).parent.parent / "nlpmeta"


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield path, parts[0]


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "nlpmeta":
            if node.module == "nlpmeta":
                yield from (alias.name for alias in node.names if not alias.name.startswith("_"))
            else:
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("nlpmeta."))


def test_every_module_has_a_row():
    known = set().union(*ROWS)
    assert {room for _, room in modules()} <= known


def test_no_module_imports_from_a_row_below_or_beside_its_own():
    row = {name: i for i, names in enumerate(ROWS) for name in names}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {target}"
        for path, room in modules()
        for target in imported_rooms(path)
        if target != room and row[target] >= row[room] and target not in WITHIN.get(room, set())
    ]
    assert not wrong, wrong


def test_no_module_uses_relative_imports():
    wrong = [
        str(path)
        for path, _ in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not wrong, wrong


def imports():
    """Each module with the modules that it imports, at its top or inside a function, for types too."""
    known = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("nlpmeta", *path.relative_to(PACKAGE).with_suffix("").parts)
        known[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    for name, path in known.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in known:
                each = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {one if one in known else node.module for one in each}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names} & set(known)
        yield name, found - {name}


def test_no_module_imports_itself_by_way_of_others():
    left = dict(imports())
    while free := [name for name, found in left.items() if not found & set(left)]:
        for name in free:
            del left[name]
    while ends := [name for name in left if not any(name in found for found in left.values())]:
        for name in ends:
            del left[name]
    assert not left, f"these import one another in a circle: {sorted(left)}"
