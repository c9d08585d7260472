"""A user's own table as a source: CSV, TSV, JSON, Parquet, Excel, or a folder that ``datasets`` saved."""

import codecs
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from typing import Final

from nlpmeta.data import COLUMNS, Column, LabeledTexts
from nlpmeta.data.inputs import Pair, is_missing
from nlpmeta.errors import DataError, DataWarning
from nlpmeta.sources import Source, SourceFacts, SourceRequest, SplitNames, sources
from nlpmeta.sources.arrow_rows import Row, saved_splits
from nlpmeta.sources.columns import (
    LABEL_NAMES,
    LabelColumn,
    choose,
    ids_name_sentences,
    others_of,
    text_columns,
    text_in,
    unusable,
)
from nlpmeta.sources.form import LONGEST_LINE, RECOGNISED, TableForm, TextFile, recognised
from nlpmeta.sources.tables import ARROW, JSON, columns_of, is_table, kind_of, refuse_foreign, refuse_nested, rows_of
from nlpmeta.storage.files import make_folder, write_text


def looks_like_file(name: str) -> bool:
    """Whether ``name`` can only mean a file: it exists as one, or ends like a table."""
    return Path(name).is_file() or is_table(Path(name))


@sources.register("file")
class FileSource(Source):
    """One table with a text and a label column; obvious column names are found by themselves.

    Empty and non-text rows are skipped with a warning that counts them and names the first line.

    Raises:
        DataError: if the file cannot be read, a column is missing, or no row is usable.
    """

    rank, takes_form = 3, True

    def __init__(
        self,
        path: Path | str,
        *,
        text_column: str | None = None,
        label_column: str | None = None,
        lang_column: str | None = None,
        form: TableForm = RECOGNISED,
    ) -> None:
        self.path, self.form = Path(path), form
        self.facts = SourceFacts(
            name=str(path), title=str(path), licence="unknown: your own file", citation="your own file"
        )
        self._parts = {split: self.path / split for split in saved_splits(self.path)} or {"train": self.path}
        found, where = columns_of(next(iter(self._parts.values())), form), str(self.path)
        self._text = text_columns(text_column, found, where=where)
        self._label = choose("label", label_column, LABEL_NAMES, found, where=where)
        self._others = others_of(found, where=where, lang_column=lang_column)
        self._data: dict[tuple[str, bool], LabeledTexts] = {}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ()

    @classmethod
    def opened(cls, asked: SourceRequest) -> "Source | None":
        if not looks_like_file(asked.name):
            return None
        return cls(
            asked.name,
            text_column=asked.text_column,
            label_column=asked.label_column,
            lang_column=asked.lang_column,
            form=asked.form,
        )

    def languages(self) -> tuple[str, ...]:
        tables = [self._table(split, self.several) for split in self._parts]
        return tuple(sorted({lang for table in tables for lang in table.langs or ()}))

    def splits(self, lang: str | None = None) -> SplitNames:
        return SplitNames(self._parts)

    def read(self, lang: str | None, split: str) -> LabeledTexts:
        return self._of_lang(lang, split, several=False)

    @cached_property
    def several(self) -> bool:
        """Whether a separator of labels is named, or the first label that is there is a list."""
        path = next(iter(self._parts.values()))
        if self.form.label_separator is not None or kind_of(path) not in (*JSON, *ARROW, "dataset"):
            return self.form.label_separator is not None
        labels = (row.get(self._label) for _, row in rows_of(path, self.form))
        return isinstance(next((label for label in labels if not is_missing(label)), None), list | tuple)

    def read_sets(self, lang: str | None, split: str) -> LabeledTexts:
        return self._of_lang(lang, split, several=True)

    def _of_lang(self, lang: str | None, split: str, *, several: bool) -> LabeledTexts:
        table = self._table(self.splits().spelled(split) or split, several)
        if lang is None or table.langs is None:
            return table
        return table.select([i for i, each in enumerate(table.langs) if each == lang]).without_empty_classes()

    def _table(self, split: str, several: bool) -> LabeledTexts:
        if (split, several) not in self._data:
            self._data[split, several] = self._parse(self._parts[split], several)
        return self._data[split, several]

    def _parse(self, path: Path, several: bool) -> LabeledTexts:
        rows = _Rows(str(path), LabelColumn(separator=self.form.label_separator), several=several)
        for line, row in rows_of(path, self.form):
            for kind, column in (*(("text", column) for column in self._text), ("label", self._label)):
                if kind == "text" or not (several and isinstance(row.get(column), list | tuple)):
                    refuse_nested(row.get(column), f"{path}, line {line}", kind, column)
            rows.add(line, row, self._text, self._label, self._others)
        if not rows.texts and not rows.skipped:
            raise DataError(f"{path} has a header and no rows.")
        if not rows.texts:
            raise DataError(f"{path}: no row has both a text and a label ({rows.skipped_said()}).")
        if rows.skipped:
            warnings.warn(f"{path}: skipped {rows.skipped_said()}.", DataWarning, stacklevel=2)
        if rows.column.respelt:
            warnings.warn(f"{path}: {rows.column.note()}.", DataWarning, stacklevel=2)
        columns = {name: tuple(values) for name, values in rows.others.items() if all(v is not None for v in values)}
        if not ids_name_sentences(columns):
            columns.pop("ids", None)
        return LabeledTexts.from_names(
            rows.texts,
            rows.names,
            several=several,
            **{name: tuple(str(v) for v in values) for name, values in columns.items() if values},
        )

    @classmethod
    def example(cls, folder: Path) -> "Source":
        make_folder(folder)
        path = folder / "example.csv"
        write_text(path, "text,label,lang\nhello,greet,en\nbye,leave,en\nhabari,greet,sw\nkwaheri,leave,sw\n")
        return cls(path)


@dataclass
class _Rows:
    """The usable rows of a table, and a tally of the others."""

    where: str = ""
    column: LabelColumn = field(default_factory=LabelColumn)
    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    others: dict[Column, list[object]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    skipped: Counter[str] = field(default_factory=Counter)
    first_line: dict[str, int] = field(default_factory=dict)
    several: bool = False

    def add(self, line: int, row: Row, columns: Sequence[str], label: str, others: Mapping[Column, str]) -> None:
        text, given, spread = text_in(row, columns), row.get(label), self.several and self.column.separator is not None
        takes = spread or (self.several and not is_missing(given))
        reason = unusable(text, "text") or (None if takes else unusable(given, "label"))
        if reason:
            self.skipped[reason] += 1
            self.first_line.setdefault(reason, line)
            return
        self.texts.append(text if isinstance(text, Pair) else str(text).strip())
        named = self.column.set_name if self.several else self.column.name
        self.names.append(named("" if spread and is_missing(given) else given, line=line, where=self.where))
        for name, column in others.items():
            self.others[name].append(row.get(column))
        self.others["lines"].append(str(line))

    def skipped_said(self) -> str:
        """``3 rows with an empty text (first: line 7)`` and so on."""
        return ", ".join(
            f"{count} row{'s' * (count > 1)} with {reason} (first: line {self.first_line[reason]})"
            for reason, count in self.skipped.items()
        )


_AT_ONCE: Final = 1 << 20  # bytes


@dataclass(frozen=True)
class Given:
    """A text as it was given, empty where there is none; its line, the row around it, and what is wrong with it."""

    text: str
    line: int
    row: Row = field(default_factory=dict)
    fault: str = ""


def given_of_file(
    path: Path, text_column: str | None = None, form: TableForm = RECOGNISED, *, faults: bool = False
) -> Iterator[Given]:
    """Every line of a file of texts, or row of a table, in order; with ``faults`` also those that are no text.

    Raises:
        DataError: if the file is missing, damaged or not a file of texts, or has no such column.
    """
    if not is_table(path):
        return _given_lines(path, text_column, form)
    return _given_rows(path, _columns_of_texts(path, text_column, form), form, faults)


def _columns_of_texts(path: Path, asked: str | None, form: TableForm) -> tuple[str, ...]:
    """The columns of the texts of a table: those requested, else the first that are obvious."""
    found = columns_of(path, form)
    if asked is None and not form.header and len(found) == 1:
        return (found[0],)
    try:
        return text_columns(asked, found, where=str(path))
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


def _given_rows(path: Path, columns: Sequence[str], form: TableForm, faults: bool) -> Iterator[Given]:
    for line, row in rows_of(path, form):
        if faults and any(isinstance(row.get(column), list | dict | tuple) for column in columns):
            yield Given("", line, row, "a list or an object in the place of the text")
            continue
        for column in columns:
            refuse_nested(row.get(column), f"{path}, line {line}", "text", column)
        text = text_in(row, columns)
        whole = text if isinstance(text, Pair) else text.strip() if isinstance(text, str) else ""
        yield Given(whole, line, row)


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
