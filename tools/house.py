"""Print the structure of the code base, from the code itself: its size, its rooms, its imports, the path of a text.

python tools/house.py           a table
python tools/house.py --json    the same as JSON
python tools/house.py --path    the files and functions that a warm fit and a warm predict pass through
python tools/house.py --root F  another checkout of the project
python tools/house.py --picture the rooms and their imports, as docs/ARCHITECTURE.md draws them
"""

import argparse
import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_FILE_LINES, MOST_FUNCTION_LINES = 300, 60
ROWS = (
    ("errors",),
    ("progress", "settings"),
    ("data", "storage"),
    ("episodes", "encoder"),
    ("sources", "learners"),
    ("metrics", "auto"),
    ("training", "sharing"),
    ("classifier",),
    ("evaluation",),
    ("online", "users", "export", "bench"),
    ("serve", "bulk"),
    ("cli",),
    ("__main__",),
)
"""The rows of the plan: a module may import from rows above its own, and from its own room."""
WAY = """
import json, sys
from pathlib import Path
import nlpmeta
from nlpmeta import FewShotClassifier
from nlpmeta.data import LabeledTexts
home = str(Path(nlpmeta.__file__).parent)
loaded = sorted(name for name in sys.modules if name.split(".")[0] == "nlpmeta")
def passed(work):
    seen = {}
    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(home):
            names = seen.setdefault(frame.f_code.co_filename[len(home) + 1:], {})
            names[frame.f_code.co_qualname] = names.get(frame.f_code.co_qualname, 0) + 1
    work()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    every = [times for names in seen.values() for times in names.values()]
    return {"calls": sum(every), "functions": len(every), "files": dict(sorted(seen.items()))}
found = {"loaded": loaded}
if sys.argv[1:]:
    from nlpmeta.encoder.text_encoder import TextEncoder
    encoder = {} if sys.argv[1] == "default" else {"encoder": TextEncoder.from_pretrained(sys.argv[1])}
    classes = {"sport": ["ball goal", "match team", "goal team"], "food": ["rice soup", "bread salt", "soup salt"]}
    pairs = [(text, name) for name, texts in classes.items() for text in texts]
    texts, labels = [text for text, _ in pairs], [name for _, name in pairs]
    model = FewShotClassifier(**encoder)
    found["fit"] = passed(lambda: model.fit(texts, labels))
    found["predict"] = passed(lambda: model.predict(["ball team", "rice bread"]))
print(json.dumps(found))
"""
"""What the way of a text is measured with, in a process of its own: the second call of each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to look at")
    parser.add_argument("--encoder", default="default", help="a folder or Hub id; by default the packaged encoder")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with the lists behind the numbers")
    parser.add_argument(
        "--picture", action="store_true", help="print the rooms as a Mermaid flow chart and nothing else"
    )
    parser.add_argument(
        "--path", action="store_true", help="print what fit and predict call, file by file, and no more"
    )
    asked = parser.parse_args()
    if asked.picture:
        print(picture(asked.root))
        return
    found = way(asked.root, asked.encoder) if asked.path else figures(asked.root) | way(asked.root, asked.encoder)
    shown = steps(found) if asked.path else lines(found)
    print(json.dumps(found, indent=2) if asked.json else "\n".join(shown))


def figures(root: Path) -> dict[str, object]:
    """What the text of the modules says."""
    modules = {module_name(path, root): path for path in sorted((root / "nlpmeta").rglob("*.py"))}
    arrows = {name: sorted(imported(path, modules, at_top=True) - {name}) for name, path in modules.items()}
    every = {name: sorted(imported(path, modules, at_top=False) - {name}) for name, path in modules.items()}
    row = {room: number for number, rooms in enumerate(ROWS) for room in rooms}
    rooms = sorted({room_of(name) for name in modules} - {"", "__main__"})
    back_up = [
        f"{name} -> {target}"
        for name, targets in every.items()
        for target in targets
        if room_of(name) != room_of(target) and row.get(room_of(target), -1) >= row.get(room_of(name), len(ROWS))
    ]
    return {
        "files": len(modules),
        "lines": sum(n_lines(path) for path in modules.values()),
        "rooms": rooms,
        "rooms_not_in_the_plan": [room for room in rooms if room not in row],
        "circles": circles(arrows),
        "circles_by_late_imports": circles(every),
        "arrows_back_up": back_up,
        "isinstance_of_a_learner": learner_tests(modules),
        "long_files": {name: n_lines(path) for name, path in modules.items() if n_lines(path) > MOST_FILE_LINES},
        "long_functions": {
            f"{name}.{function.name}": length
            for name, path in modules.items()
            for function, length in functions(path)
            if length > MOST_FUNCTION_LINES
        },
    }


def picture(root: Path) -> str:
    """The rooms as a Mermaid flow chart, a box a row of the plan; an arrow says "imports from".

    Arrows that follow from others (a room imports from what its own imports import from) are left out.
    """
    modules = {module_name(path, root): path for path in sorted((root / "nlpmeta").rglob("*.py"))}
    below: dict[str, set[str]] = {room_of(name): set() for name in modules if room_of(name) not in ("", "__main__")}
    for name, path in modules.items():
        if room_of(name) in below:
            targets = {room_of(target) for target in imported(path, modules, at_top=False)}
            below[room_of(name)] |= targets & set(below) - {room_of(name)}
    reached: dict[str, set[str]] = {}
    for row in ROWS:
        for room in row:
            reached[room] = set().union(*({each} | reached.get(each, set()) for each in below.get(room, ())))
    drawn = ["```mermaid", "flowchart BT"]
    for number, row in enumerate(ROWS):
        there = [room for room in row if room in below]
        if there:
            drawn += [f'  subgraph row{number}["row {number}"]', *(f"    {room}" for room in there), "  end"]
    for room in (room for row in ROWS for room in row if room in below):
        shown = {each for each in below[room] if not any(each in reached[other] for other in below[room] - {each})}
        drawn += [f"  {room} --> {each}" for each in sorted(shown) if each not in ROWS[0] + ROWS[1]]
    return "\n".join([*drawn, "```"])


def way(root: Path, encoder: str | None) -> dict[str, object]:
    """What a process loads for ``from nlpmeta import FewShotClassifier``, and what a warm fit and predict pass through.

    Args:
        root: the checkout.
        encoder: a folder, a Hub id or ``default``; without it nothing is run.
    """
    settings = os.environ | {"PYTHONPATH": str(root.resolve())}
    command = [sys.executable, "-c", WAY, *([] if encoder is None else [encoder])]
    done = subprocess.run(command, env=settings, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def lines(found: dict[str, object]) -> Iterator[str]:
    """The table for people: a number a line, and what is to be put right below it."""
    for name, value in found.items():
        if isinstance(value, dict) and "files" in value:
            files = value["files"]
            outside = sum(not file.startswith("encoder/") for file in files)
            passed = f"{len(files)} files ({outside} outside the encoder), {value['functions']} functions"
            yield f"{'a warm ' + name:<18}{passed:>50}, {value['calls']} calls"
            continue
        yield f"{name.replace('_', ' '):<26}{value if isinstance(value, int) else len(value):>42}"
        if name not in ("rooms", "loaded") and not isinstance(value, int):
            shown = [f"{key} {size}" for key, size in value.items()] if isinstance(value, dict) else map(str, value)
            yield from (f"    {each}" for each in shown)


def steps(found: dict[str, object]) -> Iterator[str]:
    """What a warm fit and a warm predict call: a file, and below it each function and how often."""
    for name, value in found.items():
        if isinstance(value, dict) and "files" in value:
            yield f"a warm {name}: {len(value['files'])} files, {value['functions']} functions, {value['calls']} calls"
            for file, names in value["files"].items():
                yield f"  {file}"
                yield from (f"    {function:<60}{times:>6}" for function, times in names.items())


def module_name(path: Path, root: Path) -> str:
    """``a.b`` for ``nlpmeta/a/b.py``, ``a`` for ``nlpmeta/a/__init__.py``, and nothing for the package itself."""
    parts = path.relative_to(root / "nlpmeta").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return module.split(".")[0]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def n_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def imported(path: Path, modules: Iterable[str], *, at_top: bool) -> set[str]:
    """The modules of ours that a file imports; ``at_top`` those alone that it imports when it is loaded."""
    found: set[str] = set()
    for node in _loaded_at_once(tree_of(path)) if at_top else ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[2] for each in node.names if each.name.split(".")[0] == "nlpmeta"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nlpmeta":
            home = node.module.partition(".")[2]  # type: ignore[union-attr]  # it was looked at above
            inner = {f"{home}.{each.name}".strip(".") for each in node.names}
            known = inner & set(modules)
            found |= known | (set() if known == inner else {home})
    return found & set(modules)


def _loaded_at_once(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is loaded: no bodies of functions, nothing for the type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _loaded_at_once(node)


def circles(arrows: dict[str, list[str]]) -> list[list[str]]:
    """Groups of modules that import one another, directly or on the way over others (Tarjan's components)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for target in arrows[name]:
            if target not in order:
                visit(target)
            if target in stack:
                lowest[name] = min(lowest[name], lowest[target])
        if lowest[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in arrows:
        if name not in order:
            visit(name)
    return sorted(found)


def learner_tests(modules: dict[str, Path]) -> list[str]:
    """Where ``isinstance`` asks for a concrete learner outside ``learners`` and ``auto``."""
    bases = {
        node.name: {ast.unparse(base).split("[")[0] for base in node.bases}
        for name, path in modules.items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and room_of(name) in ("learners", "auto")
    }
    kinds = {"Learner"}
    while more := {name for name, of in bases.items() if of & kinds} - kinds:
        kinds |= more
    kinds -= {"Learner"}
    return [
        f"{name}:{node.lineno} {kind}"
        for name, path in modules.items()
        if room_of(name) not in ("learners", "auto")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass")
        for kind in sorted({each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)} & kinds)
    ]


def functions(path: Path) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Every function of a file and its lines, docstring and signature included."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, (node.end_lineno or node.lineno) - node.lineno + 1


if __name__ == "__main__":
    main()
