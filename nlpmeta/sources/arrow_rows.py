"""Parquet, Feather and Arrow files, and folders that ``datasets`` saved: rows with the names of their classes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nlpmeta.errors import DataError, visible
from nlpmeta.storage.files import read_text

if TYPE_CHECKING:
    from pyarrow import RecordBatch, RecordBatchReader, Schema, Table

Row = dict[str, object]

_ROWS: Final = 4096  # in memory at a time
_DATASET, _DICT = ("dataset_info.json", "state.json"), "dataset_dict.json"


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder is what ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote."""
    return path.is_dir() and (all((path / name).is_file() for name in _DATASET) or (path / _DICT).is_file())


def saved_splits(path: Path) -> tuple[str, ...]:
    """The splits of a saved ``DatasetDict``, each a folder; none of anything else.

    Raises:
        DataError: if the list of them is damaged.
    """
    if not (path / _DICT).is_file():
        return ()
    try:
        splits = json.loads(read_text(path / _DICT))["splits"]
        return tuple(str(name) for name in splits if is_saved_dataset(path / str(name)))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path / _DICT} is damaged ({error}).") from error


def schema_of(path: Path) -> "Schema":
    """The Arrow schema of what is read: a column of class numbers with names is one of text.

    Raises:
        DataError: if ``path`` cannot be read, or two columns share a name.
    """
    import pyarrow

    schema = _schema(path)
    twice = [name for name in dict.fromkeys(schema.names) if schema.names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has several columns named {twice[0]!r}; give each a name of its own.")
    named = _class_names(schema)
    return pyarrow.schema(
        [pyarrow.field(each.name, pyarrow.string()) if each.name in named else each for each in schema]
    )


def arrow_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Each row with its number.

    Raises:
        DataError: if ``path`` cannot be read, or a class has no name.
    """
    from pyarrow import ArrowException

    number, names = 0, _class_names(_schema(path))
    try:
        for batch in _batches(path):
            for row in batch.to_pylist():
                number += 1
                for column, known in names.items():
                    row[column] = _name(row[column], known, f"{path}, row {number}")
                yield number, row
    except (ArrowException, OSError) as error:
        raise DataError(_damaged(path, error)) from error


def _batches(path: Path) -> "Iterator[RecordBatch | Table]":
    from pyarrow import parquet

    if path.is_dir():
        from datasets import load_from_disk

        yield from load_from_disk(str(path)).with_format("arrow").iter(_ROWS)
    elif path.suffix.lower() == ".parquet":
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(_ROWS)
    else:
        with _reader(path) as reader:
            for batch in reader:
                yield from (batch.slice(start, _ROWS) for start in range(0, batch.num_rows, _ROWS))


def _schema(path: Path) -> "Schema":
    from pyarrow import ArrowException, parquet

    try:
        if path.is_dir():
            from datasets import load_from_disk

            return load_from_disk(str(path)).features.arrow_schema
        if path.suffix.lower() == ".parquet":
            return parquet.read_schema(path)
        with _reader(path) as reader:
            return reader.schema
    except (ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(_damaged(path, error)) from error


def _reader(path: Path) -> "RecordBatchReader":
    """An Arrow file or an Arrow stream; both go by the same endings."""
    from pyarrow import ArrowInvalid, RecordBatchReader, ipc, memory_map

    source = memory_map(str(path))
    try:
        file = ipc.open_file(source)
    except ArrowInvalid:
        source.seek(0)
        return ipc.open_stream(source)
    return RecordBatchReader.from_batches(file.schema, (file.get_batch(i) for i in range(file.num_record_batches)))


def _class_names(schema: "Schema") -> Mapping[str, Sequence[str]]:
    """The names that ``datasets`` wrote for the integers of its columns of classes."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    from datasets import ClassLabel, Features

    try:
        features = Features.from_arrow_schema(schema)
    except (ValueError, KeyError, TypeError):  # written by a newer or a foreign library: the numbers stay
        return {}
    return {name: each.names for name, each in features.items() if isinstance(each, ClassLabel)}


def _name(value: object, names: Sequence[str], where: str) -> str | None:
    if value is None or not isinstance(value, int) or value < 0:  # -1 marks a label that is kept secret
        return None
    if value >= len(names):
        raise DataError(f"{where}: the class is {value}, but only {len(names)} classes have names.")
    return names[value]


def _damaged(path: Path, error: Exception) -> str:
    kind = "a saved data set" if path.is_dir() else {".parquet": "Parquet"}.get(path.suffix.lower(), "Arrow")
    return f"{path} cannot be read as {kind}: {visible(str(error)).rstrip('.')}."
