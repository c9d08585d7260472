"""What commands share: signals, streams and options."""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar, cast

import typer

from nlpmeta.errors import NLPMetaError, WorkFailedError, reason_of
from nlpmeta.progress import clear_status, show_status

if TYPE_CHECKING:
    from nlpmeta.sources.file import Given
    from nlpmeta.sources.form import TableForm

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

    Nobody sees it who pipes standard error away, or asked for --quiet or --json. A command that takes --encoder also
    takes --pooling and --prefix.
    """
    own = signature(command)
    more = list(_OF_ENCODERS) if "encoder" in own.parameters else []

    @wraps(command)
    def shown(*args: P.args, **options: P.kwargs) -> R:
        show_status(LOADING, show=not (options.get("quiet") or options.get("json")))
        try:
            pooling, prefix = (cast("str | None", options.pop(each.name, None)) for each in _OF_ENCODERS)
            if pooling is not None or prefix is not None:
                from nlpmeta.encoder.weights import DEFAULT_ENCODER, encoder_named

                named = cast("str", options["encoder"] or DEFAULT_ENCODER)
                options["encoder"] = encoder_named(named, pooling=pooling, prefix=prefix)
            return command(*args, **options)
        finally:
            clear_status()

    place = [*own.parameters].index("encoder") + 1 if more else 0
    taken = [*own.parameters.values()]
    shown.__signature__ = own.replace(parameters=[*taken[:place], *more, *taken[place:]])  # type: ignore[attr-defined]
    shown.__annotations__ = {**command.__annotations__, **{each.name: each.annotation for each in more}}
    return shown


_OF_ENCODERS = tuple(
    Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, typer.Option(help=said)])
    for name, said in (
        ("pooling", "Pooling of the encoder's tokens: mean, cls or last; by default its own."),
        ("prefix", "Prefix or instruction before every text; by default the encoder's own."),
    )
)
"""What is said of an encoder beside its name."""


Device = Annotated[
    str,
    typer.Option(help="Device of the encoder: auto (CUDA, MPS, XPU, else CPU; or NLPMETA_DEVICE), cpu, cuda, cuda:1 …"),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        help="Maximum length of a text in tokens; longer texts are truncated. By default 128; adapt reads more if "
        "support texts are longer.",
        min=4,
        max=8192,
    ),
]


def check_device(asked: str) -> None:
    """See that a device that was named is there, before any work; ``auto`` always is.

    Raises:
        NLPMetaError: if it is not.
    """
    if (asked if asked != "auto" else os.environ.get("NLPMETA_DEVICE") or "cpu") != "cpu":
        from nlpmeta.encoder.device import resolve_device

        resolve_device(asked)


TextColumn = Annotated[str | None, typer.Option(help="Text column, if not obvious; two with a comma for pairs.")]
LabelColumn = Annotated[str | None, typer.Option(help="Label column, if not obvious.")]
LangColumn = Annotated[str | None, typer.Option(help="Language column, if not obvious.")]
Delimiter = Annotated[str | None, typer.Option(help="Column delimiter: ';', 'tab', …; detected by default.")]
Encoding = Annotated[
    str | None, typer.Option(help="Encoding of text files, such as cp1252; by default UTF-8 or, if it is, UTF-16.")
]
NoHeader = Annotated[bool, typer.Option("--no-header", help="The table has no header row; columns: 1, 2, …")]
LabelSeparator = Annotated[
    str | None, typer.Option(help="Separator of labels where a text may have several: ';' (lists need none).")
]
DescriptionsFile = Annotated[
    Path | None, typer.Option("--descriptions", help="Table of what classes are: columns label and text, any language.")
]
DataFolder = Annotated[Path | None, typer.Option(help="Folder of public data sets; by default NLPMETA_DATA_DIR.")]
EncoderName = Annotated[str | None, typer.Option(help="Folder or Hub id of an encoder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
EngineName = Annotated[
    str, typer.Option(help="torch, onnx, onnx-int8 (compiled at the first use), or auto: what is compiled, else torch.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")]


def whole_numbers(asked: str, option: str, *, least: int = 1) -> list[int]:
    """Whole numbers from ``least``, between commas.

    Raises:
        NLPMetaError: if one is none.
    """
    return [whole_number(part, option, least=least) for part in asked.split(",")]


def whole_number(asked: str, option: str, *, least: int = 1) -> int:
    """A whole number from ``least``.

    Raises:
        NLPMetaError: if it is none.
    """
    text = asked.strip()
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise NLPMetaError(f"{option} takes whole numbers from {least}, between commas; got {asked!r}.")
    return int(text)


CHUNK = 4096  # texts in memory at a time from a file; long enough to sort by length well


@dataclass(frozen=True)
class GivenTexts:
    """The texts in batches, and the table that they are from, if they are."""

    batches: "Iterator[list[Given]]"
    form: "TableForm"
    table: Path | None = None


@dataclass(frozen=True)
class Wanted:
    """Which texts are to be classified, and where the answers go."""

    texts: tuple[str, ...]
    file: Path | None
    form: "TableForm"
    text_column: str | None
    keep: str | None
    out: Path | None
    overwrite: bool
    json: bool
    quiet: bool


def given_texts(texts: tuple[str, ...], file: Path | None, text_column: str | None, form: "TableForm") -> GivenTexts:
    """The texts of the command line, of a file or, without either, of standard input.

    Raises:
        NLPMetaError: if options of a table are given without a file.
    """
    from nlpmeta.cli.console import says_how_to_type
    from nlpmeta.errors import NLPMetaError
    from nlpmeta.sources.file import Given, arriving, given_of_file
    from nlpmeta.sources.tables import is_table

    if file is not None:
        given = given_of_file(file, text_column, form)
        return GivenTexts(chunks(given), form, file if is_table(file) else None)
    if text_column is not None or form.delimiter is not None or not form.header or (texts and form.encoding):
        raise NLPMetaError("Options of a table go with --file; give the table a name that ends in .csv, .tsv, …")
    if texts:
        return GivenTexts(chunks(Given(text.strip(), number) for number, text in enumerate(texts, start=1)), form)
    says_how_to_type(sys.stdin)
    return GivenTexts(_chunked(arriving(sys.stdin.buffer, "standard input", form.encoding)), form)  # type: ignore[arg-type]


def chunks(given: "Iterable[Given]") -> "Iterator[list[Given]]":
    """What is answered at a time: rows whose texts are sorted by length together, the same in every run."""
    rest = iter(given)
    while batch := list(islice(rest, CHUNK)):
        yield batch


def _chunked(arriving: "Iterator[list[Given]]") -> "Iterator[list[Given]]":
    return (batch for lines in arriving for batch in chunks(lines))


def kept_columns(source: GivenTexts, keep: str | None, *, as_table: bool) -> tuple[str, ...]:
    """The columns of the table that came in to write out again.

    Raises:
        NLPMetaError: if there is no table, or it has no such column.
    """
    from nlpmeta.errors import NLPMetaError, visible
    from nlpmeta.sources.columns import find
    from nlpmeta.sources.tables import columns_of

    if keep is None and not as_table:
        return ()
    if source.table is None:
        if keep is not None:
            raise NLPMetaError("--keep names columns of a table; give one with --file.")
        return ()
    found = columns_of(source.table, source.form)
    if keep is None:
        return found
    kept = []
    for name in filter(None, map(str.strip, keep.split(","))):
        column = find([name], found, where=str(source.table))
        if column is None:
            there = visible(", ".join(found))
            raise NLPMetaError(f"{source.table} has no column {visible(repr(name))} to keep; it has {there}.")
        kept.append(column)
    return tuple(dict.fromkeys(kept))
