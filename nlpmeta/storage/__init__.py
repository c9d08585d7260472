"""Names for what is half written, and clearing away what killed processes left under such names."""

import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_OLD = 3600  # seconds
_LEFTOVER = re.compile(r"(?:(?P<place>[0-9a-f]{8})-(?P<pid>\d{1,10})-[0-9a-f]{8}|[0-9a-f]{12})\.(?P<suffix>tmp|old)")


def temporary_beside(path: Path, *, suffix: str = "tmp") -> Path:
    """A hidden name beside ``path`` for what will take its place; it says which process of which machine made it."""
    return path.with_name(f".{path.name}.{_here()}-{os.getpid()}-{secrets.token_hex(4)}.{suffix}")


def remove_leftovers(path: Path) -> None:
    """Clear away what processes that were killed left beside ``path``, and put back what they had moved aside.

    Processes of another machine that shares the folder are taken for dead after an hour.
    """
    try:
        found = [entry for entry in os.scandir(path.parent) if entry.name.startswith(f".{path.name}.")]
    except OSError:
        return
    for entry in found:
        match = _LEFTOVER.fullmatch(entry.name[len(path.name) + 2 :])
        with suppress(OSError):  # another process was faster
            if match is not None and not entry.is_symlink() and _is_dead(match, entry):
                _clear(Path(entry.path), path, match["suffix"])


def _clear(leftover: Path, path: Path, suffix: str) -> None:
    if suffix == "old" and not path.exists():
        leftover.rename(path)
    elif suffix == "tmp":
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _is_dead(match: "re.Match[str]", entry: "os.DirEntry[str]") -> bool:
    """Whether the process that made a leftover is gone."""
    if match["place"] == _here() and os.name == "posix":
        try:
            os.kill(int(match["pid"]), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass
        return False
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD


@cache
def _here() -> str:
    """Eight digits for this machine, or this container of it: process numbers mean something only here."""
    try:
        inside = os.readlink("/proc/self/ns/pid")
    except OSError:
        inside = ""
    return hashlib.sha256(f"{socket.gethostname()} {inside}".encode()).hexdigest()[:8]
