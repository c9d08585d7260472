"""Two folders change places in one step, where the operating system can do that."""

import ctypes
import os
import sys
from pathlib import Path

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
