"""What commands print: results to standard output, everything else to standard error."""

import json
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from nlpmeta.errors import escaped
from nlpmeta.progress import clear_status

if TYPE_CHECKING:
    from rich.table import Table

_WIDEST = 1000  # characters


def say(message: str) -> None:
    """One line to standard error, where progress, notes and errors go."""
    clear_status()
    sys.stderr.write(f"{printable(message)}\n")


def out(line: str = "") -> None:
    """One line of result to standard output."""
    clear_status()
    sys.stdout.write(f"{line}\n")


def out_json(value: object) -> None:
    """One JSON document on one line of standard output."""
    clear_status()
    sys.stdout.write(json_line(value))


def out_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """A table to standard output; columns after the first are numbers and stand to the right."""
    from rich.console import Console

    clear_status()
    table = _table(headers, rows, title)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    natural = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
    console.width = max(console.width, natural)  # a line that the terminal wraps loses nothing, a cut one does
    console.print(table)


def says_how_to_type(stream: IO[str]) -> None:
    """Tell a person at a terminal that texts can be typed."""
    if stream.isatty():
        say("Type a text and press Enter; end with Ctrl-D.")


def json_line(value: object) -> str:
    """``value`` as JSON on one line; characters that could drive a terminal are escaped as JSON escapes them."""
    line = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line) + "\n"


def printable(text: str) -> str:
    """``text`` with control characters and terminal escapes made visible, so that data cannot drive the terminal."""
    return "\n".join(map(escaped, text.split("\n")))


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for i, header in enumerate(headers):
        table.add_column(header, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
