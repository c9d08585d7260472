"""``nlpmeta report``: pictures and tables of benchmark results."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """Examples:

  nlpmeta report bench

  nlpmeta report results/bench --into README.md
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(report)


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that 'nlpmeta bench' wrote.")],
    *,
    into: Annotated[Path | None, typer.Option(help="Markdown file whose benchmark table is replaced.")] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Benchmark",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make one HTML page of the results in DIR, and pictures as files.

    The page, DIR/report.html, holds everything it shows and asks no server for anything. The pictures are in
    DIR/pictures. With --into the table of the results is put between the two marks of a Markdown file.
    """
    from nlpmeta.bench.store import Store
    from nlpmeta.bench.summary import groups_of
    from nlpmeta.bench.table import check_marks, markdown, put_into
    from nlpmeta.cli.console import out, out_json
    from nlpmeta.report.making import PICTURES_FOLDER, make_report

    table = None
    if into is not None:
        check_marks(into)
        table = markdown(groups_of(Store(folder).lines()))
    page = make_report(folder, title=title)
    pictures = sorted(str(path) for path in (folder / PICTURES_FOLDER).glob("*.png"))
    if into is not None and table is not None:
        put_into(into, table)
    if json:
        out_json({"page": str(page), "pictures": pictures, "table": None if into is None else str(into)})
        return
    out(f"Page: {page}")
    out(f"Pictures: {len(pictures)} in {folder / PICTURES_FOLDER}")
    if into is not None:
        out(f"Table: {into}")
