"""Files that are either whole or not there: atomic writes, digests, and paths that stay inside their folder."""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

from nlpmeta.errors import ModelFolderError, NLPMetaError, WorkFailedError, reason_of
from nlpmeta.storage import remove_leftovers, temporary_beside

_CHUNK = 1 << 20  # bytes
Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""A value that a JSON file can hold."""
LARGEST_JSON = 64 << 20  # bytes; examples of a million words


def user_cache() -> Path:
    """The folder for things that can be made again: ``NLPMETA_CACHE``, or the platform's cache folder."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("NLPMETA_CACHE")
    return Path(chosen) if chosen else user_cache_path("nlpmeta")


@contextmanager
def disk_errors_said_plainly(path: Path) -> Iterator[None]:
    """Turn every refusal of the operating system to write ``path`` into one clear sentence.

    What concerns another file (an input that is read meanwhile) or a connection passes through.

    Raises:
        WorkFailedError: if the disk is full, read-only, permission is denied, or whatever else the system says.
    """
    try:
        yield
    except (BrokenPipeError, ConnectionError, TimeoutError):
        raise
    except OSError as error:
        if error.errno is None or not _concerns(path, error.filename):
            raise
        raise WorkFailedError(f"Cannot write {path}: {reason_of(error)}. Nothing was changed.") from error


def _concerns(path: Path, name: object) -> bool:
    """Whether an error about ``name`` is about ``path``: it, what lies in it or beside it, or a folder above it."""
    if not isinstance(name, str | bytes):
        return True
    one, other = Path(os.path.abspath(path)), Path(os.path.abspath(os.fsdecode(name)))
    return other.is_relative_to(one.parent) or one.is_relative_to(other)


@contextmanager
def new_file(path: Path) -> Iterator[IO[str]]:
    """A UTF-8 stream whose content becomes ``path`` when the block ends without an error, and else leaves no trace.

    Raises:
        WorkFailedError: if the disk is full or does not allow the write.
    """
    with _replacement(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    """A place beside ``path`` whose file becomes ``path`` when the block ends without an error."""
    with disk_errors_said_plainly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary = temporary_beside(path)
        try:
            yield temporary
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader, or a crash, sees the old file or the new one and no other.

    Raises:
        WorkFailedError: if the disk is full or does not allow the write.
    """
    with _replacement(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, content: str) -> None:
    """``write_bytes`` for UTF-8 text."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """``write_bytes`` for a JSON document, indented, with real characters and a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, *, most: int = LARGEST_JSON) -> object:
    """The JSON value in ``path``, which somebody else may have written.

    Raises:
        ModelFolderError: if the file is missing, larger than ``most`` bytes, not UTF-8, or not JSON.
    """
    try:
        if (size := path.stat().st_size) > most:
            raise ModelFolderError(f"{path} has {size} bytes, and {most} is the limit.")
        source = read_bytes(path, most=most).decode("utf-8")
        value: object = json.loads(source)
        if "\\u" in source:
            json.dumps(value, ensure_ascii=False).encode()  # fails at a lone surrogate, which nobody can write again
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, NLPMetaError):
            raise
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise ModelFolderError(f"{path} is damaged ({reason}). Save the model again.") from error
    return value


def sha256(path: Path) -> str:
    """The SHA-256 digest of a regular file, in hexadecimal.

    Raises:
        OSError: if it is missing, cannot be read, or is something else, such as a device.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading that has to be a regular one: what waits for ever, or never ends, is not opened.

    Raises:
        OSError: if it is missing, cannot be read, or is something else, such as a device.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, *, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        OSError: if it is missing, cannot be read, is larger, or is no regular file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, most) + 1)  # a buffer of that size is taken before anything is read
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes, the limit", str(path))
    return content


def read_text(path: Path, *, most: int = LARGEST_JSON) -> str:
    """The UTF-8 text of a regular file of at most ``most`` bytes.

    Raises:
        OSError: as ``read_bytes``.
        UnicodeDecodeError: if it is not UTF-8.
    """
    return read_bytes(path, most=most).decode("utf-8")


def open_data(path: Path) -> IO[bytes]:
    """Open what a user named as data, which may be a pipe, such as ``/dev/stdin``."""
    return path.open("rb")


def open_to_write(path: Path) -> IO[bytes]:
    """A new file of a folder that nobody reads yet, to be filled piece by piece; see ``folders.new_folder``."""
    return path.open("wb")


def open_to_append(path: Path) -> IO[bytes]:
    """A file that only grows, such as a log; made if absent."""
    return path.open("ab+")


def reserve(path: Path, start: int, length: int) -> None:
    """Have the disk set aside a part of a file, in bytes, that is written through memory afterwards.

    Where it is full, that write would end the process by a signal (SIGBUS) instead of an error.

    Raises:
        OSError: if there is no room.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), start, length)


def copy_file(source: Path, target: Path) -> None:
    """Copy a regular file piece by piece.

    Raises:
        OSError: if it cannot be read.
        WorkFailedError: if the copy cannot be written.
    """
    with open_regular(source) as content, disk_errors_said_plainly(target), open_to_write(target) as copy:
        shutil.copyfileobj(content, copy, _CHUNK)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are not there."""
    path.mkdir(parents=True, exist_ok=True)


@contextmanager
def temporary_folder(name: str = "nlpmeta") -> Iterator[Path]:
    """A folder of this process and user alone that goes away with the block; those of killed processes go too.

    Raises:
        WorkFailedError: if the disk is full or does not allow it.
    """
    place = Path(tempfile.gettempdir()) / name
    remove_leftovers(place)
    temporary = temporary_beside(place)
    with disk_errors_said_plainly(temporary):
        temporary.mkdir(mode=0o700)
    try:
        yield temporary
    finally:
        remove_folder(temporary)


def remove_file(path: Path) -> None:
    """Remove a file of ours, if it is there."""
    path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder of ours with all that is in it, as far as the system allows."""
    shutil.rmtree(path, ignore_errors=True)


def is_regular(path: Path) -> bool:
    """Whether ``path`` is a file and no link, folder, pipe or device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def inside(folder: Path, name: str) -> Path:
    """``folder / name``, provided that it stays inside ``folder``.

    A snapshot in the Hub's cache consists of links to the contents beside it; these are inside too.

    Raises:
        NLPMetaError: if ``name`` is absolute, climbs out, or leads out through a symbolic link.
    """
    try:
        root = folder.resolve()
        target = (root / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a name that is too long or has a NUL
        raise NLPMetaError(f"The file name {name[:80]!r} in {folder} leads nowhere; it was not touched.") from error
    is_cached = root.parent.name == "snapshots" and target.is_relative_to(root.parents[1] / "blobs")
    if not (target.is_relative_to(root) or is_cached) or target == root:
        raise NLPMetaError(f"The file name {name!r} leads out of {folder}; it was not touched.")
    return target


def sync_file(path: Path) -> None:
    """See that a file is on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """See that the names in a folder are on disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # not every platform opens a folder
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
