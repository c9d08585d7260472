"""How much CPU a piece of work needs, whatever else this process and this machine do at the same time."""

import gc
import time
from collections.abc import Callable


def cpu_seconds(work: Callable[[], object], *, rounds: int = 3) -> float:
    """The CPU seconds of this thread that ``work`` needs: the least of several rounds.

    Other threads are not counted. What earlier tests left behind is kept out of the garbage collector's way: a full
    collection of a long test run's objects costs more than many a measured call.
    """
    taken = []
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            start = time.thread_time()
            work()
            taken.append(time.thread_time() - start)
    finally:
        gc.unfreeze()
    return min(taken)
