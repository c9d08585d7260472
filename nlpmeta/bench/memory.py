"""The most memory that this process had resident, from a moment on where the system can tell."""

import gc
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def start_watching() -> bool:
    """Forget earlier peaks; whether the system lets us (Linux does, elsewhere a peak is that of the whole process)."""
    gc.collect()
    try:
        _CLEAR.write_text("5", encoding="ascii")  # documented in proc(5): resets the peak resident set size
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """The largest resident set size since ``start_watching``."""
    try:
        status = _STATUS.read_text(encoding="ascii", errors="replace")
        return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
