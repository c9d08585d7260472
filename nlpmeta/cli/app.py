"""Wires the commands together and turns errors into one line and an exit code: 0 done, 1 failed, 2 bad usage."""

import sys
import warnings
from collections.abc import Sequence

import typer

from nlpmeta.cli import adapt, bench, data, doctor, evaluate, export, info, predict, push, recipes, report, train
from nlpmeta.cli.console import say
from nlpmeta.errors import DataWarning, NLPMetaError

INTERRUPTED = 130
COMMANDS = (adapt, predict, info, push, export, evaluate, bench, report, train, recipes, data, doctor)

app = typer.Typer(
    name="nlpmeta",
    epilog="Start with: nlpmeta adapt --lang sw --shots 5",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    _command.register(app)


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
        try:
            app(args=arguments, prog_name="nlpmeta")
        except NLPMetaError as error:
            say(f"Error: {error}")
            return error.exit_code
        except KeyboardInterrupt:
            say("Stopped; nothing half-written was left behind.")
            return INTERRUPTED
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def entry() -> None:
    """What the console script calls."""
    sys.exit(main())


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    say(f"Note: {message}")
