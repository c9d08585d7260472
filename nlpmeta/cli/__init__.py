"""Wires the commands together and turns errors into one line and an exit code: 0 done, 1 failed, 2 bad usage."""

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from nlpmeta.cli import (
    adapt,
    bench,
    classify,
    data,
    doctor,
    evaluate,
    predict,
    push,
    score,
    teach,
    train,
)
from nlpmeta.cli.console import say
from nlpmeta.cli.process import Stopped, check_streams, flush_results, output_refused, stop_at_signals
from nlpmeta.errors import DataWarning, NLPMetaError, reason_of, visible

FAILED, INTERRUPTED = 1, 130
COMMANDS = (adapt, classify, predict, teach, score, push, evaluate, bench, train, data, doctor)


class _Command(TyperCommand):
    """Names the value where typer says only what a value should be."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # typer's own is not public
        """Read the arguments; a value that an option does not take is part of the message.

        Raises:
            typer.BadParameter: as typer's own, with the value.
        """
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            from pydantic import ValidationError

            reason = error.__cause__
            if isinstance(reason, ValidationError):
                error.message += f"; got {visible(repr(reason.errors()[0]['input']))}"
            raise


app = typer.Typer(
    name="nlpmeta",
    epilog="Start with: nlpmeta adapt --lang sw --shots 5. Examples of a command: nlpmeta COMMAND --help",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    _command.register(app)
for _app in (app, *(each.typer_instance for each in app.registered_groups)):
    for _each in _app.registered_commands if _app else ():  # typer would break lines where the source does
        _each.cls = _Command
        _paragraphs = inspect.cleandoc(_each.callback.__doc__ or "" if _each.callback else "").split("\n\n")
        _each.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in _paragraphs)


def _version(asked: bool) -> None:
    if asked:
        from nlpmeta import __version__

        typer.echo(f"nlpmeta {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Adapt a text classifier to a new language, task or user from a handful of labelled examples."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", DataWarning)
        warnings.showwarning = _one_line
        code = _code_of(lambda: app(args=arguments, prog_name="nlpmeta"))
        flushed = _code_of(flush_results)
        return code or flushed


def _code_of(work: Callable[[], None]) -> int:
    """Do ``work`` and say in one sentence what stopped it, if anything did."""
    try:
        work()
    except NLPMetaError as error:
        say(f"Error: {error}")
        return error.exit_code
    except BrokenPipeError:  # the reader of standard output has had enough
        return FAILED
    except OSError as error:
        say(f"Error: {_refused(error)}")
        return FAILED
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop, Stopped) or code == INTERRUPTED:  # typer makes the latter of Ctrl-C
            say("Stopped; nothing half-written was left behind.")
        return code
    return 0


def _refused(error: OSError) -> str:
    name = error.filename if error.filename is not None else error.filename2
    if name is None:
        return f"{reason_of(error)}." if error.errno is None else output_refused(error)
    return f"{visible(os.fsdecode(name) if isinstance(name, str | bytes) else str(name))}: {reason_of(error)}."


def entry() -> None:
    """What the console script calls."""
    stop_at_signals()
    sys.exit(_code_of(check_streams) or main())


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    say(f"Note: {message}")
