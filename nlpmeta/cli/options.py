"""Options that several commands have, spelt once."""

from typing import Annotated

import typer

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
