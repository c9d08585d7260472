"""The options of every command that reads a table."""

from typing import Annotated

import typer

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
