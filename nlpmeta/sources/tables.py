"""Rows of a CSV, TSV, JSON Lines or Parquet file, each with its line number."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nlpmeta.errors import DataError

Row = dict[str, object]

LONGEST_LINE = 16 << 20  # bytes, or characters where the line is decoded already
FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def columns_of(path: Path) -> tuple[str, ...]:
    """The column names of a table, in order of first appearance.

    Raises:
        DataError: if the file is missing, of an unknown format, empty, or not UTF-8.
    """
    _, first = next(rows_of(path), (0, None))
    if first is None:
        raise DataError(f"{path} has no rows.")
    return tuple(first)


def rows_of(path: Path) -> Iterator[tuple[int, Row]]:
    """Each row with the number of its line (of its record, in Parquet), read one at a time.

    Raises:
        DataError: as ``columns_of``, and for a line that cannot be parsed, with its number.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    if path.is_dir():
        raise DataError(f"{path} is a folder; name one file ({', '.join(FORMATS)}).")
    readers = {".csv": _delimited, ".tsv": _delimited, ".jsonl": _json_lines, ".ndjson": _json_lines}
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet(path)
    elif suffix in readers:
        try:
            yield from readers[suffix](path)
        except UnicodeDecodeError as error:
            raise DataError(_not_utf8(path, error)) from error
    else:
        raise DataError(f"{path} ends in {path.suffix!r}; tables are read from {', '.join(FORMATS)}.")


def _delimited(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(
            _lines(path, file), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True
        )
        try:
            for row in reader:
                if None in row:
                    raise DataError(
                        f"{path}, line {reader.line_num}: more fields than the {len(reader.fieldnames or ())} columns "
                        "of the first line; put a text that holds the delimiter between double quotes."
                    )
                yield reader.line_num, dict(row)
        except csv.Error as error:
            raise DataError(f"{path}, near line {reader.line_num}: {error}.") from error


def _json_lines(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(_lines(path, file), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                line.encode() if "\\u" not in line else json.dumps(row, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({error}).") from error
            if not isinstance(row, dict):
                raise DataError(f'{path}, line {number}: expected an object like {{"text": …}}, not {line[:40]!r}.')
            yield number, row


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    """The lines of ``file``, of which none takes more memory than a line of a table can need.

    Raises:
        DataError: if one is longer.
    """
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), ""), start=1):
        if len(line) > LONGEST_LINE:
            raise DataError(f"{path}, line {number}: longer than {LONGEST_LINE >> 20} million characters.")
        yield line


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    from pyarrow import ArrowException, parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}.") from error


def _not_utf8(path: Path, error: UnicodeDecodeError) -> str:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as wrong:
                byte = line[wrong.start]
                return (
                    f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8. "
                    f"Convert it, for example: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8{path.suffix}"
                )
    return f"{path} is not UTF-8 ({error.reason})."
