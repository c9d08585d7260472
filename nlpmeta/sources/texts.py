"""Texts without labels: the lines of a file, or a column of a table."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nlpmeta.errors import DataError, DataWarning, visible
from nlpmeta.sources.tables import FORMATS, LONGEST_LINE, columns_of, rows_of

TEXT_NAMES = ("text", "utterance", "sentence", "message", "content")


def lines_of(stream: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a UTF-8 stream, one at a time; blank lines are passed over.

    Raises:
        DataError: if a line is not UTF-8; the message has its number.
    """
    for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), start=1):
        if len(line) > LONGEST_LINE:
            raise DataError(f"{name}, line {number}: longer than {LONGEST_LINE >> 20} MB; is it a text file?")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{name}, line {number}: byte 0x{line[error.start]:02x} is not UTF-8.") from error
        if text:
            yield text


def texts_of_file(path: Path, text_column: str | None = None) -> Iterator[str]:
    """The texts of a file: its lines, or a column of a table.

    Raises:
        DataError: if the file is missing or not UTF-8, or has no such column.
    """
    if path.suffix.lower() not in FORMATS:
        if not path.is_file():
            raise DataError(f"{path} is not a file.")
        return _lines_of_file(path)
    found = columns_of(path)
    column = text_column or next((name for name in TEXT_NAMES if name in found), None)
    if column not in found:
        raise DataError(
            f"{path} has no text column {text_column or ''}; it has {visible(', '.join(found))}. Use --text-column."
        )
    return _column(path, column)


def _lines_of_file(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        yield from lines_of(file, str(path))


def _column(path: Path, column: str) -> Iterator[str]:
    skipped, first = 0, 0
    for line, row in rows_of(path):
        text = row[column] if column in row else None
        if isinstance(text, str) and text.strip():
            yield text.strip()
        else:
            skipped, first = skipped + 1, first or line
    if skipped:
        what = f"{skipped} rows with an empty or non-text {column!r} (first: line {first})"
        warnings.warn(f"{path}: skipped {what}.", DataWarning, stacklevel=2)
