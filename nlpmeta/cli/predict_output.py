"""Where the answers of ``nlpmeta predict`` go: lines to read, or the table that came in with columns added."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nlpmeta.cli.compile import Predicts, loaded
from nlpmeta.cli.console import json_line, printable
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

NONE = "none of these"
"""What is said of a text that none of the labels fits."""
OUTSIDE = 0.5
"""The out-of-scope score from which on a text is taken to belong to no class."""
Answer = dict[str, object]
"""The value of each column for one text; all are ``None`` for a text that is empty."""


@dataclass(frozen=True)
class Columns:
    """Which columns are wanted.

    Args:
        top: the most probable labels to name, ``None`` for the first alone without a list of them.
        coverage: how often a set of labels shall hold the true one, ``None`` for one label.
        nested: several labels as a list (JSON), not as columns of their own.
        out_of_scope: whether out-of-scope texts are detected, with their score.
        threshold: the least probability of a label, times that of being in scope; below it the label is ``NONE``.
        several: whether a text may have several labels, with ``separator`` between them where no list can be.
    """

    top: int | None = None
    coverage: float | None = None
    nested: bool = False
    out_of_scope: bool = False
    threshold: float | None = None
    several: bool = False
    separator: str = ";"

    def names(self, n_way: int) -> tuple[str, ...]:
        """The names of the columns for a classifier of ``n_way`` classes."""
        if self.several:
            return ("labels", "probabilities")
        if self.coverage is not None:
            sets = ("labels", "probabilities") if self.nested else ("label", "probability")
            return (*sets, "unsure", "coverage")
        more = range(2, min(self.top or 1, n_way) + 1)
        scope = ["out_of_scope"] if self.out_of_scope else []
        if self.nested:
            return ("label", "probability", *(["top"] if self.top else []), *scope)
        return ("label", "probability", *(name for k in more for name in (f"label_{k}", f"probability_{k}")), *scope)

    @property
    def is_text(self) -> bool:
        """Whether a label is text, whatever kind the classes are."""
        return self.coverage is not None or self.may_refuse or self.several

    @property
    def may_refuse(self) -> bool:
        """Whether a text may get the label ``NONE``."""
        return self.out_of_scope or self.threshold is not None

    def refuses(self, probability: float, outside: float | None) -> bool:
        """Whether a text gets the label ``NONE``, by the probability of its label and its score, where it has one."""
        if self.threshold is None:
            return outside is not None and outside >= OUTSIDE
        return probability * (1 - (outside or 0.0)) < self.threshold


def answers(classifier: Predicts, texts: Sequence[str], columns: Columns) -> list[Answer]:
    """An answer for each text, in order; an empty text is not asked about."""
    names = columns.names(len(classifier.classes_))
    filled = [text for text in texts if text]
    values = _several if columns.several else _labels if columns.coverage is None else _sets
    found = iter(values(classifier, filled, columns) if filled else ())
    return [dict(zip(names, next(found), strict=True)) if text else dict.fromkeys(names) for text in texts]


def _labels(classifier: Predicts, texts: Sequence[str], columns: Columns) -> list[tuple[object, ...]]:
    probabilities = classifier.predict_proba(texts)
    order = (-probabilities).argsort(axis=1, kind="stable")[:, : columns.top or 1]
    names: list[object] = classifier.classes_.tolist()
    if columns.may_refuse and not columns.nested:
        names = [str(name) for name in names]  # a column has one type
    outside = loaded(classifier).out_of_scope(texts).tolist() if columns.out_of_scope else [None] * len(texts)
    rows = []
    for row, best, score in zip(probabilities, order, outside, strict=True):
        pairs = [(names[label], round(float(row[label]), 6)) for label in best]
        named = [{"label": label, "probability": probability} for label, probability in pairs]
        if columns.refuses(pairs[0][1], score):
            pairs[0] = (NONE, pairs[0][1])
        scope = [] if score is None else [round(score, 6)]
        flat = [value for pair in pairs for value in pair]
        rows.append((*flat, *scope) if not columns.nested else (*pairs[0], *([named] if columns.top else []), *scope))
    return rows


def _several(classifier: Predicts, texts: Sequence[str], columns: Columns) -> list[tuple[object, ...]]:
    from nlpmeta.classifier.several import several_answers

    rows, found = list[tuple[object, ...]](), classifier.predict_proba(texts)
    for pairs in several_answers(loaded(classifier).fitted_, found, top=columns.top, threshold=columns.threshold):
        labels, shares = [label for label, _ in pairs], [round(probability, 6) for _, probability in pairs]
        joined = (columns.separator.join(map(str, labels)), columns.separator.join(f"{each:.3f}" for each in shares))
        rows.append((labels, shares) if columns.nested else joined)
    return rows


def _sets(classifier: Predicts, texts: Sequence[str], columns: Columns) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for found in loaded(classifier).predict(texts, abstain=columns.coverage or 0.0):
        probabilities = [round(each, 6) for each in found.probabilities]
        pair = (list(found.labels), probabilities) if columns.nested else (str(found), probabilities[0])
        rows.append((*pair, found.is_unsure, found.coverage))
    return rows


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
