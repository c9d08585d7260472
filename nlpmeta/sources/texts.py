"""Texts without labels: the lines of a file or stream, or a column of a table, one for each line or row."""

import codecs
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import Final

from nlpmeta.errors import DataError, DataWarning
from nlpmeta.sources.arrow_rows import Row
from nlpmeta.sources.columns import TEXT_NAMES, choose
from nlpmeta.sources.form import LONGEST_LINE, RECOGNISED, TableForm, TextFile, recognised
from nlpmeta.sources.tables import columns_of, is_table, refuse_foreign, refuse_nested, rows_of

_AT_ONCE: Final = 1 << 20  # bytes


@dataclass(frozen=True)
class Given:
    """A text as it was given, empty where there is none; the line where it stands, and the row around it."""

    text: str
    line: int
    row: Row = field(default_factory=dict)


def given_of_file(path: Path, text_column: str | None = None, form: TableForm = RECOGNISED) -> Iterator[Given]:
    """Every line of a file of texts, or every row of a table, in order.

    Raises:
        DataError: if the file is missing, damaged or not a file of texts, or has no such column.
    """
    if not is_table(path):
        return _given_lines(path, text_column, form)
    return _given_rows(path, text_column_of(path, text_column, form), form)


def text_column_of(path: Path, asked: str | None, form: TableForm = RECOGNISED) -> str:
    """The column of the texts of a table: the one asked for, else the first that is obvious.

    Raises:
        DataError: if there is none.
    """
    found = columns_of(path, form)
    if asked is None and not form.header and len(found) == 1:
        return found[0]
    try:
        return choose("text", asked, TEXT_NAMES, found, where=str(path))
    except DataError as error:
        if asked is not None or not form.header or len(found) > 1:
            raise
        raise DataError(f"{error} If the first line is a text itself, pass --no-header.") from error


def texts_of_file(path: Path, text_column: str | None = None, form: TableForm = RECOGNISED) -> Iterator[str]:
    """The texts of a file that are not empty; rows of a table without one are counted in a warning.

    Raises:
        DataError: as ``given_of_file``.
    """
    return _filled(given_of_file(path, text_column, form), path)


def arriving(stream: BufferedIOBase, name: str, encoding: str | None = None) -> Iterator[list[Given]]:
    """The lines of a stream as they come: all that are there, as soon as there is one.

    Raises:
        DataError: if a line is too long or not in its encoding.
    """
    rest, line, decoder = "", 0, None
    while True:
        piece = stream.read1(_AT_ONCE)
        decoder = decoder or codecs.getincrementaldecoder(encoding or recognised(piece))()
        try:
            rest += decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            number = line + rest.count("\n") + error.object[: error.start].count(b"\n") + 1
            byte = error.object[error.start]
            raise DataError(
                f"{name}, line {number}: byte 0x{byte:02x} is not UTF-8. Name its encoding with --encoding."
                if encoding is None
                else f"{name}, line {number}: byte 0x{byte:02x} is not {encoding}."
            ) from error
        *whole, rest = rest.split("\n")
        if not piece and rest:
            whole.append(rest)
        if len(rest) > LONGEST_LINE:
            number, most = line + len(whole) + 1, LONGEST_LINE >> 20
            raise DataError(f"{name}, line {number}: longer than {most} million characters; is it a text file?")
        if whole:
            yield [Given(text.strip(), number) for number, text in enumerate(whole, start=line + 1)]
            line += len(whole)
        if not piece:
            return


def _given_lines(path: Path, text_column: str | None, form: TableForm) -> Iterator[Given]:
    if not path.is_file():
        raise DataError(f"{path} is not a file.")
    refuse_foreign(path)
    if text_column is not None or form.delimiter is not None or not form.header:
        raise DataError(f"{path} is read a text a line; give a table an ending such as .csv or .tsv.")
    file = TextFile.of(path, form)
    return (Given(line.strip(), number) for number, line in enumerate(file.lines(), start=1))


def _given_rows(path: Path, column: str, form: TableForm) -> Iterator[Given]:
    for line, row in rows_of(path, form):
        text = row.get(column)
        refuse_nested(text, f"{path}, line {line}", "text", column)
        yield Given(text.strip() if isinstance(text, str) else "", line, row)


def _filled(given: Iterator[Given], path: Path) -> Iterator[str]:
    empty, first = 0, 0
    for each in given:
        if each.text:
            yield each.text
        elif each.row:
            empty, first = empty + 1, first or each.line
    if empty:
        said = f"{path}: skipped {empty} rows with an empty or non-text field (the first: line {first})."
        warnings.warn(said, DataWarning, stacklevel=2)
