"""What commands share: signals and streams, options, and the methods that they name."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Annotated, ParamSpec, TypeVar

import typer

from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.errors import NLPMetaError, WorkFailedError, reason_of
from nlpmeta.evaluation.protocols import Protocol
from nlpmeta.learners.base import Learner, learners
from nlpmeta.learners.checkpoint import read_learner, shared_encoder
from nlpmeta.learners.start import check_meta_trained, find_checkpoint, own_checkpoint, starting_learner
from nlpmeta.progress import clear_status, show_status
from nlpmeta.storage.manifest import read_manifest, whole_folder

P = ParamSpec("P")
R = TypeVar("R")
LOADING = "Loading the encoder …"
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(SystemExit):
    """A signal asked the command to end. What is half written is cleared away as after any other exception."""

    def __init__(self, number: int) -> None:
        """The exit code is the one that shells give to a signal: 128 and its number."""
        super().__init__(128 + number)


def stop_at_signals() -> None:
    """From now on Ctrl-C, SIGTERM and a closed terminal raise ``Stopped``; a second Ctrl-C ends at once."""
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):  # as nohup and & want it
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    for name in ENDING:
        other = getattr(signal, name, None)
        if other is not None:
            signal.signal(other, signal.SIG_DFL if name == "SIGINT" else signal.SIG_IGN)
    raise Stopped(number)


def check_streams() -> None:
    """Let missing input be empty and missing notes go nowhere; what cannot be shown in a terminal's code is escaped.

    Raises:
        WorkFailedError: if standard output is closed; the file that is opened next would get its place and its lines.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  # it stays open as long as the process
    closed = sys.stdout is None
    if closed:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if closed:
        raise WorkFailedError("Standard output is closed, so there is no place for results; send it to a file.")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush_results() -> None:
    """See that all of standard output has arrived.

    Raises:
        BrokenPipeError: if its reader went away, which is no mistake of anybody.
        WorkFailedError: if it cannot be written for another reason.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        _discard_results()
        if isinstance(error, BrokenPipeError):
            raise
        raise WorkFailedError(output_refused(error)) from error


def output_refused(error: OSError) -> str:
    """What to say where an error names no file: it is standard output that was being written."""
    return f"Standard output cannot be written: {reason_of(error)}."


def _discard_results() -> None:
    """Send what is still waiting to be written nowhere, so that the end of the process does not try again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


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


Device = Annotated[
    str,
    typer.Option(
        help="Where the encoder runs: auto (CUDA, MPS, XPU, else CPU; or NLPMETA_DEVICE), cpu, cuda, cuda:1 …"
    ),
]
MaxLength = Annotated[
    int | None, typer.Option(help="Tokens that are read of a text, the rest is cut off; 128 if not set.", min=4)
]


def check_device(asked: str) -> None:
    """See that a device that was named is there, before any work; ``auto`` always is.

    Raises:
        NLPMetaError: if it is not.
    """
    import os

    from nlpmeta.encoder.device import VARIABLE, resolve_device

    if asked != "auto" or os.environ.get(VARIABLE):
        resolve_device(asked)


TextColumn = Annotated[str | None, typer.Option(help="Column of the texts, if not obvious.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the labels, if not obvious.")]
LangColumn = Annotated[str | None, typer.Option(help="Column of the languages, if not obvious.")]
Delimiter = Annotated[
    str | None, typer.Option(help="What stands between columns: ';', 'tab', …; recognised by default.")
]
Encoding = Annotated[
    str | None, typer.Option(help="Encoding of text files, such as cp1252; by default UTF-8 or, if it is, UTF-16.")
]
NoHeader = Annotated[
    bool, typer.Option("--no-header", help="The first line is a row; columns are named by number: 1, 2, …")
]


def whole_numbers(asked: str, option: str) -> list[int]:
    """Whole numbers from 1, between commas.

    Raises:
        NLPMetaError: if one is none.
    """
    return [whole_number(part, option) for part in asked.split(",")]


def whole_number(asked: str, option: str) -> int:
    """A whole number from 1.

    Raises:
        NLPMetaError: if it is none.
    """
    from nlpmeta.errors import NLPMetaError

    text = asked.strip()
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise NLPMetaError(f"{option} takes whole numbers from 1, between commas; got {asked!r}.")
    return int(text)


def check_names(names: Sequence[str]) -> None:
    """Make sure that there are names and each is a folder or a method, before anything is loaded.

    Raises:
        NLPMetaError: if there is none.
        UnknownNameError: if one is neither.
    """
    if not names:
        raise NLPMetaError(f"Name a method or a checkpoint folder; methods are: {', '.join(learners)}.")
    for name in names:
        method, _, checkpoint = name.partition("@")
        if checkpoint:
            find_checkpoint(checkpoint, encoder=DEFAULT_ENCODER, method=method)
        if not Path(name).is_dir():
            learners[method]


def is_adapted(name: str) -> bool:
    """Whether ``name`` is the folder of an adapted model, whose task is of no use where tasks are drawn."""
    return Path(name).is_dir() and read_manifest(Path(name)).get("kind") == "adapted"


def learners_of(
    names: Sequence[str],
    protocol: Protocol,
    *,
    encoder: str = DEFAULT_ENCODER,
    prefix: str | None = None,
    max_length: int | None = None,
    device: str = "auto",
) -> dict[str, Learner]:
    """The learners that ``names`` stand for; methods share one encoder, a checkpoint brings its own.

    Args:
        names: names of learners, checkpoint folders, or a method on a checkpoint's encoder: ``auto@default``. A method
            with a checkpoint of its own in the package starts from that.
        protocol: may fix options of a method.
        encoder: a folder or Hub id.
        prefix: what goes before every text; ``None`` for what the encoder was trained with.
        max_length: tokens that are read of a text; ``None`` for what encoder or checkpoint say.
        device: where they run.

    Raises:
        NLPMetaError: if a name is unknown, or an encoder or checkpoint cannot be loaded.
    """
    check_names(names)
    found: dict[str, Learner] = {}
    for name in names:
        method, _, checkpoint = name.partition("@")
        own = own_checkpoint(method) is not None and encoder == DEFAULT_ENCODER and prefix is None
        if checkpoint or (own and not Path(name).is_dir()):
            checkpoint = checkpoint or "default"
            found[name] = starting_learner(method, checkpoint=checkpoint, max_length=max_length, device=device)
            folder = find_checkpoint(checkpoint, encoder=DEFAULT_ENCODER, method=method)
            check_meta_trained(found[name], method, folder)
        elif Path(name).is_dir():
            folder = whole_folder(Path(name))
            learner = read_learner(folder, read_manifest(folder), max_length=max_length, device=device)
            found[name] = learner.requires_grad_(False)
        else:
            options = protocol.options.get(name, {})
            frozen = shared_encoder(encoder, prefix=prefix, max_length=max_length, device=device)
            found[name] = learners[name](frozen, **options)
            check_meta_trained(found[name], name, None)
    return found
