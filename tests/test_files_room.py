"""Every place of the package that opens, writes, renames or removes a file goes through the room that checks files.

The scan knows calls by their names, so it also finds what nobody thought of; what it finds outside the room has to be
listed here with the reason why it cannot go through it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "nlpmeta"
ROOM = {f"storage/{name}.py" for name in ("__init__", "files", "folders", "tensors", "manifest")}
CALLS = {
    *("open", "fdopen", "FileIO", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "mkdir", "makedirs"),
    *("unlink", "rmdir", "removedirs", "rmtree", "rename", "renames", "symlink_to", "hardlink_to", "symlink", "link"),
    *("copyfile", "copyfileobj", "copy2", "copytree", "truncate", "chmod", "mkfifo", "mknod"),
    *("mkstemp", "mkdtemp", "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"),
    *("safe_open", "load_file", "save_file", "memmap", "fromfile", "tofile", "savefig", "FileLock", "urlretrieve"),
    *("load_workbook", "ParquetFile", "read_table", "write_table", "memory_map", "OSFile", "load_from_disk"),
    *("save_to_disk", "snapshot_download", "hf_hub_download", "load_dataset", "save_pretrained"),
}
OF_A_MODULE = {
    *("sqlite3.connect", "os.remove", "os.replace", "np.save", "np.savez", "np.load", "torch.save", "torch.load"),
    *("shutil.copy", "shutil.move", "torch.onnx.export", "AutoModel.from_pretrained", "AutoTokenizer.from_pretrained"),
}
MAYBE = CALLS | {name.rpartition(".")[2] for name in OF_A_MODULE} | {"replace"}
SQLITE = "SQLite opens, locks and syncs its files itself"
LIBRARY = "the library reads or writes a folder itself; what it reads was checked before, what it writes is new"
LOCK = "a lock file has no content"
HUB = "the Hub's library writes its own cache"
BUFFER = "into memory"
DATA = "data that the user named, read by the library that knows its format"
KERNEL = "a file of /proc"
STREAMS = "standard input, output and error"
OURS = "our own method, which goes through the room"
OUTSIDE = {
    ("online/files.py", "save_pretrained"): OURS,
    ("users/file.py", "sqlite3.connect"): SQLITE,
    ("serve/store.py", "sqlite3.connect"): SQLITE,
    ("serve/learning.py", "save_pretrained"): OURS,
    ("progress.py", "read_text"): KERNEL,
    ("progress.py", "write_text"): KERNEL,
    ("bench/contender.py", "save_pretrained"): OURS,
    ("bench/peers.py", "save_pretrained"): LIBRARY,
    ("bench/store.py", "FileLock"): LOCK,
    ("bench/store.py", "truncate"): "of a stream that the room opened",
    ("bench/worker.py", "fdopen"): STREAMS,
    ("sharing/card.py", "savefig"): BUFFER,
    ("cli/adapt.py", "save_pretrained"): OURS,
    ("bench/drawing.py", "savefig"): BUFFER,
    ("cli/predict_output.py", "write_table"): "into a stream that the room opened",
    ("cli/process.py", "open"): STREAMS,
    ("cli/teach.py", "save_pretrained"): OURS,
    ("encoder/weights.py", "snapshot_download"): HUB,
    ("encoder/frozen_layers.py", "FileLock"): LOCK,
    ("encoder/frozen_layers.py", "memmap"): "NumPy maps a file of the cache, whose rows have checksums",
    ("encoder/packaged/__init__.py", "FileLock"): LOCK,
    ("encoder/table.py", "sqlite3.connect"): SQLITE,
    ("encoder/graphs.py", "torch.onnx.export"): LIBRARY,
    ("encoder/files.py", "AutoModel.from_pretrained"): LIBRARY,
    ("encoder/files.py", "AutoTokenizer.from_pretrained"): LIBRARY,
    ("export/__init__.py", "save_pretrained"): LIBRARY,
    ("storage/hub_download.py", "snapshot_download"): HUB,
    ("classifier/persistence.py", "save_pretrained"): OURS,
    ("evaluation/results.py", "FileLock"): LOCK,
    ("sources/arrow_rows.py", "ParquetFile"): DATA,
    ("sources/arrow_rows.py", "load_from_disk"): DATA,
    ("sources/arrow_rows.py", "memory_map"): DATA,
    ("sources/tables.py", "write_table"): BUFFER,
    ("sources/form.py", "open"): DATA,
    ("sources/hub.py", "hf_hub_download"): HUB,
    ("sources/hub.py", "load_dataset"): HUB,
    ("sources/hub.py", "snapshot_download"): HUB,
    ("sources/tables.py", "load_workbook"): DATA,
    ("auto/diagnosis.py", "safe_open"): "a file of the package, whose header is needed",
}


def calls_in(source: str) -> Iterator[tuple[str, int]]:
    """Name and line of each call that may touch a file; functions of our own modules are looked at where they are."""
    tree = ast.parse(source)
    ours = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nlpmeta")
        for alias in node.names
    } | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            last = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if last not in MAYBE:
                continue
            full = ast.unparse(node.func)
            is_path_replace = isinstance(node.func, ast.Attribute) and last == "replace" and len(node.args) == 1
            if full in OF_A_MODULE:
                yield full, node.lineno
            elif (last in CALLS or (is_path_replace and not node.keywords)) and full not in ours:
                yield last, node.lineno


def outside_the_room() -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in ROOM:
            for call, line in calls_in(path.read_text(encoding="utf-8")):
                found.setdefault((name, call), []).append(line)
    return found


def test_every_file_is_opened_written_and_removed_in_one_room():
    found = outside_the_room()
    assert {place: lines for place, lines in found.items() if place not in OUTSIDE} == {}
    assert set(OUTSIDE) - set(found) == set(), "no longer there: take it off the list"


def test_the_scan_finds_what_it_is_for():
    source = """
import os, shutil, sqlite3
from pathlib import Path
from safetensors.torch import save_file
from nlpmeta.storage.files import read_text, write_bytes
open("a"); Path("a").open(); Path("a").read_text(); Path("a").write_bytes(b""); save_file({}, "a")
shutil.rmtree("a"); os.replace("a", "b"); Path("a").replace("b"); Path("a").rename("b"); sqlite3.connect("a")
Path("a").unlink(); os.remove("a"); shutil.copyfile("a", "b"); np.save("a", x); os.fdopen(3)
read_text(Path("a")); write_bytes(Path("a"), b""); "a".replace("a", "b"); dataclasses.replace(a, b=1); a.remove(b)
"""
    lines = [line for _, line in calls_in(source)]
    assert [lines.count(line) for line in (6, 7, 8, 9)] == [5, 5, 5, 0]
