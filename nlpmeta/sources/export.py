"""Write labelled texts as a table that ``FileSource`` reads back unchanged."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nlpmeta.data import COLUMNS, Column, LabeledTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.files import write_bytes
from nlpmeta.sources.columns import OTHER_NAMES

HEADERS: Final[dict[Column, str]] = {column: names[0] for column, names in OTHER_NAMES.items()}


def export(texts: LabeledTexts, path: Path, *, overwrite: bool = False) -> None:
    """Write one row a text: its text, its label name, and the other columns that there are.

    The format follows from the ending of ``path``. The file is there whole or not at all.

    Raises:
        NLPMetaError: if the ending is unknown, or the file exists and ``overwrite`` is off.
        WorkFailedError: if the disk is full or does not allow the write.
    """
    check_target(path, overwrite=overwrite)
    table = _columns(texts)
    write_bytes(path, _WRITERS[path.suffix.lower()](table))


def check_target(path: Path, *, overwrite: bool) -> None:
    """What ``export`` would refuse before it writes, to be asked before the texts are loaded."""
    if path.suffix.lower() not in _WRITERS:
        raise NLPMetaError(f"{path} ends in {path.suffix!r}; tables are written as {', '.join(TABLE_SUFFIXES)}.")
    if path.is_dir():
        raise NLPMetaError(f"{path} is a folder; name a file.")
    if path.exists() and not overwrite:
        raise NLPMetaError(f"{path} exists and was kept as it is. Pass --overwrite to replace it.")


def delimited_line(cells: Sequence[object], delimiter: str, *, quoting: int = csv.QUOTE_MINIMAL) -> str:
    """One row of CSV or TSV with its end; ``None`` is an empty cell."""
    out = io.StringIO(newline="")
    shown = ["" if cell is None else str(cell) for cell in cells]
    if any("\r" in cell for cell in shown):  # which csv would leave unquoted
        quoting = csv.QUOTE_ALL
    csv.writer(out, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerow(shown)  # type: ignore[arg-type]
    return out.getvalue()


def _columns(texts: LabeledTexts) -> dict[str, list[str]]:
    table = {"text": list(texts.texts), "label": texts.names()}
    for name in COLUMNS:
        column = texts.column(name)
        if column is not None and name in HEADERS:
            table[HEADERS[name]] = list(column)
    return table


def _delimited(table: dict[str, list[str]], delimiter: str) -> bytes:
    """A quoted header says that quotes are meant, also where a text with tabs and line breaks looks like rows."""
    rows = [tuple(table), *zip(*table.values(), strict=True)]
    signs = {delimiter, '"', "\r", "\n"}
    quoting = csv.QUOTE_ALL if any(signs & set(cell) for row in rows for cell in row) else csv.QUOTE_MINIMAL
    return "".join(delimited_line(row, delimiter, quoting=quoting) for row in rows).encode()


def _json_lines(table: dict[str, list[str]]) -> bytes:
    rows = (dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _parquet(table: dict[str, list[str]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pyarrow.table(table), out)
    return out.getvalue()


_WRITERS = {
    ".csv": lambda table: _delimited(table, ","),
    ".tsv": lambda table: _delimited(table, "\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}
TABLE_SUFFIXES: Final = tuple(_WRITERS)
