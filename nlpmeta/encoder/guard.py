"""A lock that may sit in any object: a copy of the object gets a lock of its own, and so does a forked process."""

import os
import threading
from types import TracebackType
from weakref import WeakSet


class Guard:
    """A re-entrant lock, for ``with``; it can be copied and pickled, and is free in a process that was forked."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _every.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> "tuple[type[Guard], tuple[()]]":
        return Guard, ()

    def renew(self) -> None:
        """A free lock in the place of one that a thread of the parent process held while it forked."""
        self._lock = threading.RLock()


_every: WeakSet[Guard] = WeakSet()


def _after_fork() -> None:
    for guard in list(_every):
        guard.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
