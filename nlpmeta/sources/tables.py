"""Rows of a table, each with its line number: the one reader of every command."""

import csv
import io
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

from nlpmeta.data import COLUMNS, Column, LabeledTexts
from nlpmeta.errors import DataError, DataWarning, NLPMetaError, visible
from nlpmeta.sources.arrow_rows import Row, arrow_rows, is_saved_dataset, saved_splits, schema_of
from nlpmeta.sources.columns import OTHER_NAMES
from nlpmeta.sources.delimited import DELIMITERS, Records, json_rows, records_of
from nlpmeta.sources.form import PACKED, RECOGNISED, TableForm, TextFile
from nlpmeta.storage.files import write_bytes

JSON: Final = (".jsonl", ".ndjson", ".json")
ARROW: Final = (".parquet", ".arrow", ".feather")
FORMATS: Final = (*DELIMITERS, *JSON, *ARROW, ".xlsx")
_INSTEAD: Final = {
    ".zip": "unpack it and name the table in it",
    ".tar": "unpack it and name the table in it",
    ".tgz": "unpack it and name the table in it",
    ".zst": "unpack it first: zstd -d",
    ".7z": "unpack it and name the table in it",
    ".xls": "save it as .xlsx or as CSV UTF-8",
    ".xlsb": "save it as .xlsx or as CSV UTF-8",
    ".ods": "save it as CSV",
    ".numbers": "export it as CSV",
    ".orc": "write it as Parquet",
    ".avro": "write it as Parquet",
    ".db": "export the table as CSV",
    ".sqlite": "export the table as CSV",
    ".pkl": "write it as Parquet or CSV: a pickle can run any program",
    ".pickle": "write it as Parquet or CSV: a pickle can run any program",
    ".doc": "save the texts as a CSV file",
    ".docx": "save the texts as a CSV file",
    ".pdf": "save the texts as a CSV file",
}


def kind_of(path: Path) -> str:
    """The ending that says the format: that of ``x.csv.gz`` is ``.csv``, that of a saved data set ``dataset``."""
    if is_saved_dataset(path):
        return "dataset"
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED else suffix


def is_table(path: Path) -> bool:
    """Whether ``path`` is, or by its ending would be, a table."""
    return kind_of(path) in (*FORMATS, "dataset")


def refuse_foreign(path: Path) -> None:
    """Refuse what is neither a table nor a text, by its ending.

    Raises:
        DataError: with what to do instead.
    """
    kind = kind_of(path)
    if kind in _INSTEAD or (path.suffix.lower() in PACKED and kind in (*ARROW, ".xlsx")):
        instead = _INSTEAD.get(kind, f"unpack it first: {kind} files are compressed internally")
        raise DataError(f"{path} ends in {''.join(path.suffixes[-2:])!r}, which is not read here; {instead}.")


def columns_of(path: Path, form: TableForm = RECOGNISED) -> tuple[str, ...]:
    """The column names of a table, in order of first appearance; in JSON a row may lack any of them.

    Raises:
        DataError: if the file is missing, of an unknown format, empty, or damaged, or two columns share a name.
    """
    kind = _checked(path, form)
    if kind in JSON:
        found = dict.fromkeys(name for _, row in json_rows(TextFile.of(path, form)) for name in row)
        return tuple(found) or _no_rows(path)
    if kind in (*ARROW, "dataset"):
        return tuple(schema_of(path).names)
    first = next(iter(_cells(path, kind, form)), None)
    return _no_rows(path) if first is None else _header(path, first[1], form)


def rows_of(path: Path, form: TableForm = RECOGNISED) -> Iterator[tuple[int, Row]]:
    """Each row with the number of its first line (of its record, in Arrow formats), read one at a time.

    Raises:
        DataError: as ``columns_of``, and for a line that cannot be parsed, with its number.
    """
    kind = _checked(path, form)
    if kind in JSON:
        yield from json_rows(TextFile.of(path, form))
    elif kind in (*ARROW, "dataset"):
        schema_of(path)
        yield from arrow_rows(path)
    else:
        yield from _rows_of_cells(path, kind, form)


def refuse_nested(value: object, where: str, kind: str, column: str) -> None:
    """Refuse a text or a label that is a list or an object.

    Raises:
        DataError: with what it is.
    """
    if isinstance(value, list | dict | tuple):
        shown = visible(repr(value))[:60]
        is_by_column = isinstance(value, dict) and "0" in value  # as pandas writes JSON unless told otherwise
        advice = " From pandas, write it with to_json(orient='records')." if is_by_column else ""
        if kind == "label" and isinstance(value, list | tuple):
            advice = (
                " Several labels per text are taken by nlpmeta adapt, teach, score, evaluate, bench and data check."
            )
        raise DataError(f"{where}: the {kind} ({column!r}) is {shown}; it must be one value a row.{advice}")


def _checked(path: Path, form: TableForm) -> str:
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    kind = kind_of(path)
    if splits := saved_splits(path):
        named = ", ".join(str(path / split) for split in splits)
        raise DataError(f"{path} is a DatasetDict; name the folder of one of its splits: {visible(named)}.")
    if path.is_dir() and kind != "dataset":
        raise DataError(f"{path} is a folder; name one file ({', '.join(FORMATS)}).")
    refuse_foreign(path)
    if not is_table(path):
        raise DataError(f"{path} ends in {path.suffix!r}; tables are read from {', '.join(FORMATS)}.")
    if not form.is_plain and kind not in (*DELIMITERS, *JSON, ".xlsx"):
        raise DataError(f"{path} states its own format; leave out --delimiter, --encoding and --no-header.")
    return kind


def _cells(path: Path, kind: str, form: TableForm) -> Iterable[tuple[int, Sequence[object]]]:
    if kind in DELIMITERS:
        return records_of(TextFile.of(path, form), kind, form)

    return sheet_records(path)


def _rows_of_cells(path: Path, kind: str, form: TableForm) -> Iterator[tuple[int, Row]]:
    records = _cells(path, kind, form)
    names: tuple[str, ...] = ()
    for line, cells in records:
        if not names:
            names = _header(path, cells, form)
            if form.header:
                continue
        if len(names) > 1 and list(cells) == [""]:  # an empty line is a row only where a row is one text
            continue
        if any(cell not in ("", None) for cell in cells[len(names) :]):
            raise DataError(
                f"{path}, line {line}: more fields than the {len(names)} columns of the first line; "
                "put a text that holds the delimiter between double quotes, or name another with --delimiter."
            )
        padded = [*cells, *[None] * (len(names) - len(cells))]
        yield line, dict(zip(names, padded, strict=False))
    if isinstance(records, Records):
        records.note()


def _header(path: Path, cells: Sequence[object], form: TableForm) -> tuple[str, ...]:
    """The names of the columns; those without one are numbered from 1."""
    given = ["" if cell is None or not form.header else str(cell).strip() for cell in cells]
    names = [name or str(number) for number, name in enumerate(given, start=1)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(
            f"{path} has {names.count(twice[0])} columns named {visible(repr(twice[0]))}; give each a name of its own."
        )
    return tuple(names)


def _no_rows(path: Path) -> tuple[str, ...]:
    raise DataError(f"{path} is empty: it has no rows.")


def sheet_records(path: Path) -> Iterator[tuple[int, list[object]]]:
    """The cells of each row that is not empty, with its number, the header among them.

    Raises:
        DataError: if ``openpyxl`` is not installed, or the workbook is damaged.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise DataError(
            f"{path} is an Excel workbook, which needs openpyxl: pip install 'nlpmeta[xlsx]'. Or save it as CSV UTF-8."
        ) from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            if len(book.worksheets) > 1:
                others = len(book.worksheets) - 1
                said = f"{path}: the first sheet, {book.worksheets[0].title!r}, is read; {others} more are not."
                warnings.warn(said, DataWarning, stacklevel=2)
            for number, cells in enumerate(book.worksheets[0].iter_rows(values_only=True), start=1):
                if any(cell is not None for cell in cells):
                    yield number, list(cells)
        finally:
            book.close()
    except (BadZipFile, KeyError, IndexError, ValueError, SyntaxError) as error:  # SyntaxError: XML that is broken
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as an Excel workbook ({error}).") from error


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
        raise NLPMetaError(f"{path} already exists and was kept. Pass --overwrite to replace it.")


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
