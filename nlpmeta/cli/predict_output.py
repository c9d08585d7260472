"""Where the answers of ``nlpmeta predict`` go: lines to read, or the table that came in with columns added."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nlpmeta.cli.answering import Answer, Columns, Predicts, answers, as_pairs, reads
from nlpmeta.cli.console import json_line, printable, say
from nlpmeta.cli.process import GivenTexts
from nlpmeta.data.inputs import shown
from nlpmeta.errors import DataError, NLPMetaError, visible
from nlpmeta.sources.arrow_rows import schema_of
from nlpmeta.sources.file import Given
from nlpmeta.sources.form import TableForm
from nlpmeta.sources.tables import (
    ARROW,
    JSON,
    delimited_line,
    kind_of,
    rows_of,
)

if TYPE_CHECKING:
    from pyarrow import DataType, Schema

Rows = Sequence[tuple[Given, Answer]]
Writer = Callable[[Rows], None]
_ROWS = 4096  # looked at together for the types of their columns


@dataclass(frozen=True)
class Layout:
    """What stands in a row of the output.

    Args:
        kept: the columns of the table that came in.
        added: the name that each column of an answer gets.
        text: whether the text stands in a column of its own.
        delimiter: of CSV and TSV.
        header: whether CSV and TSV begin with the names of the columns.
    """

    kept: tuple[str, ...]
    added: Mapping[str, str]
    text: bool
    header: bool = True

    @classmethod
    def of(cls, kept: Sequence[str], answers: Sequence[str], *, text: bool, header: bool = True) -> "Layout":
        """Name the added columns so that none has the name of one that is kept.

        Raises:
            NLPMetaError: if both their usual and their longer names are taken.
        """
        taken = {name.casefold() for name in kept} | ({"text"} if text else set())
        for prefix in ("", "predicted_"):
            added = {name: f"{prefix}{name}" for name in answers}
            clash = [name for name in added.values() if name in taken]
            if not clash:
                return cls(tuple(kept), added, text, header)
        raise NLPMetaError(
            f"The table has the columns {visible(', '.join(clash))} already. Name the columns to keep with --keep."
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in order."""
        return (*(["text"] if self.text else []), *self.kept, *self.added.values())

    def row(self, given: Given, answer: Answer) -> dict[str, object]:
        """One row by the names of its columns."""
        row: dict[str, object] = {"text": shown(given.text)} if self.text else {}
        row |= {name: given.row.get(name) for name in self.kept}
        return row | {self.added[name]: value for name, value in answer.items()}


def check_columns(columns: Columns, out: Path | None, *, overwrite: bool) -> None:
    """Refuse options that exclude one another, and a file that is there already.

    Raises:
        NLPMetaError: if there are such.
    """
    if columns.top is not None and columns.coverage is not None:
        raise NLPMetaError("Give --top or --abstain, not both.")
    if columns.coverage is not None and (columns.out_of_scope or columns.threshold is not None):
        raise NLPMetaError("--abstain names several labels; give it without --out-of-scope and --threshold.")
    if out is not None and out.exists() and not overwrite:
        raise NLPMetaError(f"{out} already exists and was kept. Pass --overwrite to replace it.")


def writes_table(out: Path | None, *, from_table: bool) -> bool:
    """Whether ``--out`` is a table; texts without a table go to a .tsv file as the lines that are printed.

    Raises:
        NLPMetaError: if it ends like a table that is not written.
    """
    from nlpmeta.sources.tables import TABLE_SUFFIXES, is_table, refuse_foreign

    if out is None:
        return False
    suffix = out.suffix.lower()
    refuse_foreign(out)
    if (is_table(out) and suffix not in TABLE_SUFFIXES) or suffix == ".json":
        raise NLPMetaError(
            f"{out}: tables are written as {', '.join(TABLE_SUFFIXES)}; with another ending such as .txt, lines are."
        )
    return suffix in TABLE_SUFFIXES and (from_table or suffix != ".tsv")


def settled(columns: Columns, classifier: Predicts, *, nested: bool) -> Columns:
    """The columns that this model can fill: a threshold takes the out-of-scope score in where the model has one.

    Raises:
        NLPMetaError: if the model gives several labels per text and what goes with one was requested.
    """
    from nlpmeta.classifier.light import LightClassifier

    if isinstance(classifier, LightClassifier):  # nothing but probabilities was requested
        return replace(columns, nested=nested)
    from nlpmeta.auto.answers import knows_scope

    if classifier.fitted_.gives_sets:
        if columns.coverage is not None or columns.out_of_scope:
            raise NLPMetaError("This model gives several labels per text; --abstain and --out-of-scope require one.")
        return replace(columns, nested=nested, several=True)
    scored = columns.out_of_scope or (columns.threshold is not None and knows_scope(classifier.fitted_.predictor))
    return replace(columns, nested=nested, out_of_scope=scored)


@contextmanager
def line_writer(out: Path | None, layout: Layout, *, as_json: bool) -> Iterator[Writer]:
    """A line a text, to standard output or to a file that appears only when everything is written."""
    from nlpmeta.storage.files import new_file

    form: Callable[[Given, Answer], str] = (
        (lambda given, answer: json_line(layout.row(given, answer))) if as_json else _tabbed(layout)
    )

    def write(rows: Rows) -> None:
        stream.writelines(form(given, answer) for given, answer in rows)
        stream.flush()

    if out is None:
        stream: IO[str] = sys.stdout
        yield write
    else:
        with new_file(out) as stream:
            yield write


@contextmanager
def table_writer(out: Path, layout: Layout, schema: "Callable[[], Schema]") -> Iterator[Writer]:
    """A table of the kind that ``out`` ends in, there only when everything is written.

    Args:
        out: the file.
        layout: its columns.
        schema: the Arrow types of its columns, asked for if it is Parquet.
    """
    from nlpmeta.storage.files import new_file

    suffix = out.suffix.lower()
    if suffix == ".parquet":
        from pyarrow import Table, parquet

        types = schema()
        with new_file(out) as stream, parquet.ParquetWriter(stream.buffer, types) as file:  # type: ignore[attr-defined]
            yield lambda rows: file.write_table(Table.from_pylist([layout.row(*each) for each in rows], schema=types))
        return
    with new_file(out) as stream:
        if suffix in (".jsonl", ".ndjson"):
            yield lambda rows: stream.writelines(json_line(layout.row(*each)) for each in rows)
            return
        delimiter = "\t" if suffix == ".tsv" else ","
        if layout.header:
            stream.write(delimited_line(layout.columns, delimiter))
        yield lambda rows: stream.writelines(
            delimited_line(list(layout.row(*each).values()), delimiter) for each in rows
        )


def _tabbed(layout: Layout) -> Callable[[Given, Answer], str]:
    """Label and probability (of each label asked for), the text, and what is kept of its row, between tabs."""

    def line(given: Given, answer: Answer) -> str:
        cells = [_cell(value) for name, value in answer.items() if name not in ("unsure", "coverage")]
        cells += [shown(given.text), *(_cell(given.row.get(name)) for name in layout.kept)]
        return "\t".join(printable(cell).replace("\n", "\\n") for cell in cells) + "\n"

    return line


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def schema_for(layout: Layout, table: Path | None, form: TableForm, classes: "Sequence[object]") -> "Schema":
    """The types of all columns: those of the table that came in, of the labels, and of probabilities.

    Raises:
        DataError: if a column of JSON or Excel holds values that no one type has room for.
    """
    import pyarrow

    kinds: dict[str, DataType] = {"text": pyarrow.string()} if layout.text else {}
    if table is not None:
        kinds |= _types_of(table, form, layout.kept)
    for name, title in layout.added.items():
        kinds[title] = _type_of_answer(name, classes)
    return pyarrow.schema([(name, kinds[name]) for name in layout.columns])


def _type_of_answer(name: str, classes: "Sequence[object]") -> "DataType":
    import pyarrow

    if name == "probabilities":
        return pyarrow.string()
    if name.startswith("label"):
        return pyarrow.array(classes).type
    return pyarrow.bool_() if name == "unsure" else pyarrow.float64()


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
        for batch in iter(lambda: list(islice(rows, _ROWS)), []):
            found = pyarrow.Table.from_pylist(batch).schema
            schema = pyarrow.unify_schemas([schema, found], promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{table}: a column holds values of several kinds, which Parquet has no type for ({error}). "
            "Write .jsonl or .csv, or name other columns with --keep."
        ) from error
    return {name: schema.field(name).type for name in kept}


def writer_for(
    out: Path | None,
    classifier: Predicts,
    columns: Columns,
    source: GivenTexts,
    kept: tuple[str, ...],
    *,
    as_table: bool,
    as_json: bool,
) -> AbstractContextManager[Writer]:
    """What writes the answers of ``classifier`` to ``out``, or to standard output."""
    names = columns.names(len(classifier.classes_))
    has_text = not as_table or source.table is None
    layout = Layout.of(kept, names, text=has_text, header=source.form.header)
    if not as_table or out is None:
        return line_writer(out, layout, as_json=as_json)
    classes = ["as text"] if columns.is_text else classifier.classes_.tolist()
    return table_writer(out, layout, lambda: schema_for(layout, source.table, source.form, classes))


def answer_all(
    classifier: Predicts,
    batches: Iterator[list[Given]],
    write: Writer,
    columns: Columns,
    *,
    quiet: bool,
) -> int:
    """Answer batch after batch, and return how many texts there were."""
    from nlpmeta.encoder.tokenizing import Cut, cut_texts
    from nlpmeta.progress import track

    done, empty, first, n_cut = 0, 0, 0, 0
    with track("Predicting", None, show=not quiet) as advance:
        for batch in batches:
            with cut_texts() as cut:
                batch = as_pairs(classifier, batch)
                write(list(zip(batch, answers(classifier, [each.text for each in batch], columns), strict=True)))
            n_cut += sum(each.text in cut for each in batch)
            blank = [each.line for each in batch if not each.text]
            empty, first = empty + len(blank), first or (blank[0] if blank else 0)
            done += len(batch)
            advance(len(batch))
    if empty and not quiet:
        what = "text is" if empty == 1 else "texts are"
        say(f"Note: {empty} {what} empty and got no label (the first: line {first}).")
    if n_cut and not quiet:
        cut_off = Cut(n_cut, done, *reads(classifier))
        say(f"Note: {cut_off.message('nlpmeta adapt --max-length')}")
    return done
