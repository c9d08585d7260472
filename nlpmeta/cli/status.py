"""Something to see at once, for commands that first wait for large libraries and an encoder."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from nlpmeta.progress import clear_status, show_status

P = ParamSpec("P")
R = TypeVar("R")
LOADING = "Loading the encoder …"


def loads_encoder(command: Callable[P, R]) -> Callable[P, R]:
    """The same command with a line on the terminal until it says something itself.

    Nobody sees it who pipes standard error away, or asked for --quiet or --json.
    """

    @wraps(command)
    def shown(*args: P.args, **options: P.kwargs) -> R:
        show_status(LOADING, show=not (options.get("quiet") or options.get("json")))
        try:
            return command(*args, **options)
        finally:
            clear_status()

    return shown
