"""Partitions: the files that come in, a file that goes out for each, and beside it a record that says what it is of.

Beside ``labels/part.csv`` stand ``labels/_part.csv.json``, the record, and ``labels/_part.csv.failed.jsonl``, the rows
without a label, if there are any. Readers of many files (Arrow, Spark, Dask) pass over names that begin with ``_``.

A record is written before the work, as a claim, and again after it, with the size of what was written. So a partition
is done if its record says so and its file has that size; one that was claimed alone is done again; and a file without
a record is somebody else's.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from nlpmeta import __version__
from nlpmeta.errors import NLPMetaError, WorkFailedError, visible
from nlpmeta.sources.form import PACKED
from nlpmeta.sources.tables import TABLE_SUFFIXES, refuse_foreign
from nlpmeta.storage.files import LARGEST_JSON, Json, read_bytes, remove_file, sha256, temporary_folder, write_bytes
from nlpmeta.storage.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_CHANGES = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""What file systems call the digest, or the time of the last change, of a file."""
Facts = Mapping[str, Json]
"""What decides a result beside the input: the digest of the model, the options, the release."""


@dataclass(frozen=True)
class Answered:
    """What became of the rows of a partition: how many there are, and a line of JSON for each without a label."""

    rows: int
    failed: Sequence[str] = ()


Work = Callable[[Path, Path], Answered]
"""From a table to the same with labels; both are files of this machine."""


@dataclass(frozen=True)
class Partition:
    """One file that comes in and the file that goes out.

    Args:
        source: a path or a URL.
        out: a path or a URL.
        version: the size of ``source``, and its digest or the time of its last change.
    """

    source: str
    out: str
    version: str

    @property
    def record(self) -> str:
        """Where its record is."""
        return self._beside(".json")

    @property
    def failed(self) -> str:
        """Where the rows without a label are."""
        return self._beside(".failed.jsonl")

    def _beside(self, suffix: str) -> str:
        folder, slash, name = self.out.rpartition("/")
        return f"{folder}{slash}_{name}{suffix}"

    def is_done(self, facts: Facts, *, overwrite: bool) -> bool:
        """Whether there is nothing left to do.

        Raises:
            NLPMetaError: if the file that is there is not known to be of this input, model and options, unless it may
                be replaced.
        """
        size, kept = _size(self.out), self._kept()
        if size is None or kept.get("bytes", 0) is None:  # a claim, after which nobody came back
            return False
        asked = {**facts, "input": self.version}
        changed = [name for name in asked if kept.get(name) != asked[name]] if kept else []
        if kept and not changed and kept.get("bytes") == size:
            return True
        if overwrite:
            return False
        what = f"was made with another {' and another '.join(changed)}" if changed else "is there already"
        what = "was changed after it was written" if kept and not changed else what
        raise NLPMetaError(f"{visible(self.out)} {what}, and was kept. Pass --overwrite to replace it.")

    def done_by(self, work: Work, facts: Facts) -> Answered:
        """Do it.

        Raises:
            DataError: if the input cannot be read.
            WorkFailedError: if the output cannot be written.
        """
        record: dict[str, Json] = {"source": self.source, **facts, "input": self.version}
        _write(self.record, json.dumps({**record, "bytes": None}, indent=2).encode())
        with _to_read(self.source) as source, _to_write(self.out) as out:
            found = work(source, out)
        if found.failed:
            _write(self.failed, "".join(found.failed).encode())
        else:
            _remove(self.failed)
        counts = {"bytes": _size(self.out), "rows": found.rows, "failed": len(found.failed)}
        _write(self.record, json.dumps({**record, **counts}, indent=2).encode())
        return found

    def _kept(self) -> Mapping[str, object]:
        """What its record says; nothing if it is damaged or there is none."""
        try:
            value = json.loads(_read(self.record))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}


def facts_of(model: str, revision: str | None, setting: Mapping[str, Json]) -> tuple[Facts, str | None]:
    """What labels depend on beside the input, and the commit of a model of the Hub, which is one for all workers.

    Raises:
        NLPMetaError: as ``FewShotClassifier.from_pretrained``, if there is no such model.
    """
    folder = folder_of(model, revision)
    read_manifest(folder)
    facts: Facts = {"model": sha256(folder / MANIFEST), "setting": setting, "release": __version__}
    return facts, None if folder == Path(model) else folder.name


def folder_of(model: str, revision: str | None) -> Path:
    """The folder of a model, which is downloaded if it is one of the Hub."""
    if revision is None and Path(model).is_dir():
        return Path(model)
    from nlpmeta.sharing import find_model
    from nlpmeta.storage.hub_download import Fetching

    return find_model(model, Fetching(revision))


def is_url(name: str) -> bool:
    """Whether ``name`` is a place such as ``s3://bucket/key``."""
    return re.match(r"[a-z][a-z0-9+.-]*://", name) is not None


def spelled(path: Path) -> str:
    """What was typed: a path that is a URL has lost a slash; ``file://`` is a path of this machine."""
    return re.sub(r"^([a-z][a-z0-9+.-]+):/+", r"\1://", re.sub(r"^file:/+", "/", path.as_posix()))


def is_many(file: Path | None) -> bool:
    """Whether ``file`` means partitions: a pattern that is no file itself, or a URL."""
    return file is not None and (is_url(spelled(file)) or (has_magic(str(file)) and not file.exists()))


def partitions(pattern: str, out: str) -> list[Partition]:
    """A partition for each file, in the order of their names, which they keep below the folder ``out``.

    Args:
        pattern: a path or URL with ``*``, ``?``, ``[…]`` or ``**``; names that begin with ``_`` or ``.`` are not meant.
        out: the folder; what stands before the first such sign in ``pattern`` is not repeated in it.

    Raises:
        NLPMetaError: if nothing matches, a format is not written, or two partitions would be written to one file.
        WorkFailedError: if the place cannot be reached.
    """
    if not is_url(out) and Path(out).exists() and not Path(out).is_dir():
        raise NLPMetaError(f"--out: {visible(out)} is a file; for many partitions name a folder.")
    found = [each for each in _matching(pattern) if PurePosixPath(each.name).name[:1] not in ("_", ".")]
    if not found:
        raise NLPMetaError(f"--file: nothing matches {visible(repr(pattern))}. Put a pattern between quotes.")
    taken: dict[str, str] = {}
    for name, below, _ in found:
        target = f"{out.rstrip('/')}/{_name_out(below, name)}"
        if (other := taken.setdefault(target, name)) != name:
            raise NLPMetaError(f"{visible(other)} and {visible(name)} would both be written to {visible(target)}.")
        if target == name or (not is_url(name) and not is_url(out) and Path(target).resolve() == Path(name).resolve()):
            raise NLPMetaError(f"--out: {visible(name)} would be replaced by its own labels; name another folder.")
    return [Partition(each.name, target, each.version) for target, each in zip(taken, found, strict=True)]


def _name_out(name: str, source: str) -> str:
    """The name of the file that goes out: that of the one that came in, which is written unpacked."""
    path = PurePosixPath(name)
    path = path.with_suffix("") if path.suffix.lower() in PACKED else path
    if path.suffix.lower() not in TABLE_SUFFIXES:
        refuse_foreign(Path(source))
        raise NLPMetaError(
            f"{visible(source)}: partitions are {', '.join(TABLE_SUFFIXES)}, compressed or not; "
            "--file must match only those."
        )
    return path.as_posix()


class _Found(NamedTuple):
    name: str
    below: str  # its name after the fixed part of the pattern
    version: str


def _matching(pattern: str) -> list[_Found]:
    if not is_url(pattern):
        files = [Path(name) for name in sorted(glob(pattern, recursive=True)) if Path(name).is_file()]
        versions = {each.as_posix(): f"{each.stat().st_size} {each.stat().st_mtime_ns}" for each in files}
        return [_Found(name, _below(name, pattern), version) for name, version in versions.items()]
    with _reached(pattern) as (system, path):
        found = []
        for name, about in sorted(system.glob(path, detail=True).items()):
            change = next((about[key] for key in _CHANGES if key in about), "")
            if about["type"] == "file":
                found.append(_Found(system.unstrip_protocol(name), _below(name, path), f"{about['size']} {change}"))
        return found


def _below(name: str, pattern: str) -> str:
    return name[re.split(r"[*?\[]", pattern)[0].rfind("/") + 1 :]


@contextmanager
def _reached(url: str) -> "Iterator[tuple[AbstractFileSystem, str]]":
    """The file system of ``url``, and the path in it.

    Raises:
        WorkFailedError: if its package is missing, or it does not answer or refuses.
    """
    try:
        from fsspec.core import url_to_fs

        yield url_to_fs(url)
    except (NLPMetaError, FileNotFoundError):
        raise
    except Exception as error:  # every store has errors of its own
        said = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise WorkFailedError(f"{visible(url)} cannot be reached: {visible(said)}.") from error


@contextmanager
def _to_read(source: str) -> Iterator[Path]:
    """The file on this machine."""
    if not is_url(source):
        yield Path(source)
        return
    with temporary_folder("nlpmeta-bulk") as folder:
        local = folder / PurePosixPath(source).name
        with _reached(source) as (system, path):
            system.get_file(path, str(local))
        yield local


@contextmanager
def _to_write(out: str) -> Iterator[Path]:
    """A file of this machine that stands in for ``out``, and becomes it when the block ends without an error."""
    if not is_url(out):
        yield Path(out)
        return
    with temporary_folder("nlpmeta-bulk") as folder:
        local = folder / PurePosixPath(out).name
        yield local
        with _reached(out) as (system, path):
            system.put_file(str(local), path)  # of an object store: there whole or not at all


def _size(name: str) -> int | None:
    """In bytes; ``None`` if there is no such file."""
    try:
        if not is_url(name):
            return Path(name).stat().st_size
        with _reached(name) as (system, path):
            system.invalidate_cache()
            return int(system.info(path)["size"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read(name: str) -> bytes:
    if not is_url(name):
        return read_bytes(Path(name), most=LARGEST_JSON)
    with _reached(name) as (system, path):
        return bytes(system.cat_file(path))


def _write(name: str, content: bytes) -> None:
    if not is_url(name):
        write_bytes(Path(name), content)
        return
    with _reached(name) as (system, path):
        system.pipe_file(path, content)


def _remove(name: str) -> None:
    if not is_url(name):
        remove_file(Path(name))
    elif _size(name) is not None:
        with _reached(name) as (system, path):
            system.rm_file(path)
