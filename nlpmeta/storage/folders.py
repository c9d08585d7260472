"""Folders that are written and replaced as a whole: what in them is not ours is never removed."""

import ctypes
import os
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nlpmeta.errors import DataWarning, ModelFolderError, NLPMetaError, visible
from nlpmeta.storage import remove_leftovers, temporary_beside
from nlpmeta.storage.files import (
    disk_errors_said_plainly,
    is_regular,
    read_json,
    remove_folder,
    sha256,
    sync_file,
    sync_folder,
)

_HERE = -100  # AT_FDCWD: paths count from the working folder
_LINUX_EXCHANGE, _MACOS_SWAP = 2, 2


def exchange(one: Path, other: Path) -> bool:
    """Let two existing paths of one file system change places; ``False`` where that cannot be done in one step.

    Linux has ``renameat2`` with RENAME_EXCHANGE , macOS ``renamex_np`` with RENAME_SWAP; Python has neither.
    """
    paths = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            return int(library.renameat2(_HERE, paths[0], _HERE, paths[1], _LINUX_EXCHANGE)) == 0
        if sys.platform == "darwin":
            return int(library.renamex_np(paths[0], paths[1], _MACOS_SWAP)) == 0
    except (OSError, AttributeError, TypeError):  # no such function here
        pass
    return False


MANIFEST = "nlpmeta.json"
CARD_FILE = "README.md"
"""The card of a model; the manifest has its digest as ``card`` and not among the files, as its author may change it."""


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False, also: Collection[str] = ()) -> Iterator[Path]:
    """Fill a temporary folder beside ``path`` and rename it to ``path`` when the block ends without an error.

    With ``overwrite`` an existing folder is replaced only after the new one is complete; a failure leaves it as it was.
    Every file gets the permissions that a new file has under the umask.

    Args:
        path: the folder.
        overwrite: replace it if it holds files of ours and nothing else; see ``check_new_folder``.
        also: names of files that may be replaced although no manifest lists them.

    Raises:
        NLPMetaError: as ``check_new_folder``, before the block and again before the folder is replaced.
        WorkFailedError: if the disk is full or does not allow the write.
    """
    path = check_new_folder(path, overwrite=overwrite, also=also)
    with _folder_beside(path) as temporary:
        yield temporary
        _settle(temporary)
        check_new_folder(path, overwrite=overwrite, also=also)
        _swap(temporary, path, also)


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path``, gone at the end of the block unless it was moved."""
    with disk_errors_said_plainly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary = temporary_beside(path)
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def cached_folder(path: Path, is_sound: Callable[[], bool]) -> Iterator[Path]:
    """Fill a temporary folder beside ``path``, in a cache; it becomes ``path`` when the block ends without an error.

    What is at ``path`` is replaced, whatever it holds, unless ``is_sound`` says then that another process has just
    written it.

    Raises:
        WorkFailedError: if the disk is full or does not allow the write.
    """
    with _folder_beside(path) as temporary:
        yield temporary
        _settle(temporary)
        if not path.exists():
            with suppress(OSError):  # another process was quicker
                temporary.rename(path)
        if temporary.exists() and not is_sound() and not exchange(temporary, path):
            remove_folder(path)
            temporary.rename(path)
        sync_folder(path.parent)


def check_new_folder(path: Path, *, overwrite: bool = False, also: Collection[str] = ()) -> Path:
    """See that a folder may be written at ``path``; to be asked before any work is done for it.

    A folder may be replaced if it is empty, or if ``overwrite`` is on and it holds a manifest of ours, the files that
    the manifest lists, and nothing else.

    Returns:
        The folder itself, where ``path`` is relative or a link to it.

    Raises:
        NLPMetaError: names what is in the way.
        WorkFailedError: if there cannot be such a folder.
    """
    with disk_errors_said_plainly(path):
        real = Path(os.path.realpath(path))
        try:
            os.stat(real)
        except FileNotFoundError:
            above = next(each for each in real.parents if each.exists())
            probe = temporary_beside(above / real.relative_to(above).parts[0])  # only trying tells, as of /proc
            probe.mkdir()
            probe.rmdir()
            return real
        if not real.is_dir():
            raise NLPMetaError(f"{path} is a file; name a folder.")
        if _is_working_folder(real):
            raise NLPMetaError(
                f"{path} is the folder that you are working in; name one that can be made, such as model."
            )
        if not any(real.iterdir()):
            return real
    if not overwrite:
        raise NLPMetaError(f"{path} already exists and was kept. Pass --overwrite (overwrite=True) to replace it.")
    if (name := foreign_entry(real, also)) is not None:
        raise NLPMetaError(
            f"{path} holds {visible(name)}, which is not of a saved model or was changed since; nothing there was "
            "replaced. Move it away, or choose another folder."
        )
    return real


def foreign_entry(folder: Path, also: Collection[str] = ()) -> str | None:
    """The first thing in ``folder`` that is neither listed by its manifest nor in ``also``; ``None`` if there is none.

    A listed file that was changed since, links, and folders without a listed file are not ours.
    """
    listed = _digests(folder)
    ours = {*also, *listed}
    for place, folders, files in os.walk(folder):
        at = Path(place).relative_to(folder)
        for name in sorted(files):
            known = (at / name).as_posix()
            if known not in ours or not is_regular(folder / known):
                return known
            if known not in also and listed[known] not in (None, sha256(folder / known)):
                return known
        for name in sorted(folders):
            known = (at / name).as_posix()
            if (folder / known).is_symlink() or not any(each.startswith(f"{known}/") for each in ours):
                return known
    return None


def listed_files(folder: Path) -> set[str]:
    """The manifest of ours in ``folder`` and the files that it lists; empty if there is none."""
    return set(_digests(folder))


def _digests(folder: Path) -> dict[str, str | None]:
    """The files that the manifest of ours in ``folder`` lists, with their digests, and the manifest itself."""
    try:
        facts = read_json(folder / MANIFEST) if is_regular(folder / MANIFEST) else None
    except ModelFolderError:
        return {}
    files = facts.get("files") if isinstance(facts, dict) else None
    if not isinstance(facts, dict) or not isinstance(files, dict) or type(facts.get("format_version")) is not int:
        return {}
    card = {CARD_FILE: str(facts["card"])} if "card" in facts else {}
    return {MANIFEST: None, **card, **{str(name): str(digest) for name, digest in files.items() if name != MANIFEST}}


def _is_working_folder(path: Path) -> bool:
    try:
        return path.samefile(Path.cwd())
    except OSError:  # the working folder was removed
        return False


def _settle(folder: Path) -> None:
    """Give every file the permissions of a new one (some libraries write for their owner alone) and put it on disk."""
    probe = folder / ".mode"
    with probe.open("xb"):
        mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in folder.rglob("*"):
        if is_regular(file):
            if stat.S_IMODE(file.stat().st_mode) != mode:
                file.chmod(mode)
            sync_file(file)


def _swap(new: Path, path: Path, also: Collection[str]) -> None:
    """Put ``new`` in the place of ``path`` in one step; what was there goes away only after that.

    Where two folders cannot change places, two renames have to do: a kill between them leaves the old folder under a
    hidden name beside its place, and the next save puts it back.
    """
    if not path.exists():
        new.rename(path)
    elif exchange(new, path):
        _remove(new, path, also)
    else:
        old = temporary_beside(path, suffix="old")
        path.rename(old)
        try:
            new.rename(path)
        except OSError:
            old.rename(path)
            raise
        _remove(old, path, also)
    sync_folder(path.parent)


def _remove(old: Path, path: Path, also: Collection[str]) -> None:
    """Remove the files of ours in a folder that was replaced; what somebody put there meanwhile stays."""
    ours = {*also, *listed_files(old)}
    found = [(Path(place), files) for place, _, files in os.walk(old, topdown=False)]  # only what lies in it
    for place, files in found:
        for name in files:
            if (place / name).relative_to(old).as_posix() in ours and is_regular(place / name):
                (place / name).unlink()
        with suppress(OSError):  # something of somebody's is in it
            place.rmdir()
    if old.exists():
        kept = path.with_name(f"{path.name}.kept-{old.name.split('.')[-2][-8:]}")
        old.rename(kept)
        warnings.warn(f"{path} got other files while it was replaced; they are in {kept}.", DataWarning, stacklevel=5)


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold the file ``lock``, with the number of this process in it, for a block.

    That of a process of this machine which is gone is taken over.

    Raises:
        NLPMetaError: if another process holds it.
        WorkFailedError: if it cannot be written.
    """
    from filelock import SoftFileLock, Timeout

    held = SoftFileLock(lock, timeout=0)
    with disk_errors_said_plainly(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire()
        except Timeout as error:
            raise NLPMetaError(
                f"Another process ({held.pid or 'of another machine'}) is {what} there: {lock} belongs to it. "
                "Wait until it finishes, or choose another out=."
            ) from error
    try:
        yield
    finally:
        held.release()
