"""The Arrow types of the table that ``nlpmeta predict --out`` writes."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.cli.predict_output import Layout
from nlpmeta.errors import DataError
from nlpmeta.sources.arrow_rows import schema_of
from nlpmeta.sources.form import TableForm
from nlpmeta.sources.tables import ARROW, JSON, kind_of, rows_of

if TYPE_CHECKING:
    from pyarrow import DataType, Schema

_ROWS = 4096


def schema_for(layout: Layout, table: Path | None, form: TableForm, classes: "Sequence[object]") -> "Schema":
    """The types of all columns: those of the table that came in, of the labels, and of probabilities.

    Raises:
        DataError: if a column of JSON or Excel holds values that no one type has room for.
    """
    import pyarrow

    kinds: dict[str, DataType] = {"text": pyarrow.string()} if layout.text else {}
    if table is not None:
        kinds |= _types_of(table, form, layout.kept)
    for name, shown in layout.added.items():
        kinds[shown] = _type_of_answer(name, classes)
    return pyarrow.schema([(name, kinds[name]) for name in layout.columns])


def _type_of_answer(name: str, classes: "Sequence[object]") -> "DataType":
    import pyarrow

    if name == "unsure":
        return pyarrow.bool_()
    if name.startswith("label"):
        return pyarrow.array(classes).type
    return pyarrow.float64()


def _types_of(table: Path, form: TableForm, kept: Sequence[str]) -> "dict[str, DataType]":
    import pyarrow

    kind = kind_of(table)
    if kind in (*ARROW, "dataset"):
        schema = schema_of(table)
        return {name: schema.field(name).type for name in kept}
    if kind not in (*JSON, ".xlsx"):
        return dict.fromkeys(kept, pyarrow.string())
    schema = pyarrow.schema([(name, pyarrow.null()) for name in kept])
    rows = (({name: row.get(name) for name in kept}) for _, row in rows_of(table, form))
    try:
        for batch in _batches(rows):
            found = pyarrow.Table.from_pylist(batch).schema
            schema = pyarrow.unify_schemas([schema, found], promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{table}: a column holds values of several kinds, which Parquet has no type for ({error}). "
            "Write .jsonl or .csv, or name other columns with --keep."
        ) from error
    return {name: schema.field(name).type for name in kept}


def _batches(rows: "Iterator[dict[str, object]]") -> "Iterator[list[dict[str, object]]]":
    while batch := list(islice(rows, _ROWS)):
        yield batch
