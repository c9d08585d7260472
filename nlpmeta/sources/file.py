"""A user's own table as a source: CSV, TSV, JSON, Parquet, Excel, or a folder that ``datasets`` saved."""

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nlpmeta.data import COLUMNS, Column, LabeledTexts
from nlpmeta.errors import DataError, DataWarning
from nlpmeta.files import make_folder, write_text
from nlpmeta.inputs import is_missing
from nlpmeta.labels import WRITTEN_MISSING
from nlpmeta.sources.arrow_rows import Row, saved_splits
from nlpmeta.sources.base import Source, SourceFacts, SourceRequest, SplitNames, sources
from nlpmeta.sources.columns import LABEL_NAMES, TEXT_NAMES, LabelColumn, choose, others_of
from nlpmeta.sources.form import RECOGNISED, TableForm
from nlpmeta.sources.tables import columns_of, is_table, refuse_nested, rows_of


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
        self._text = choose("text", text_column, TEXT_NAMES, found, where=where)
        self._label = choose("label", label_column, LABEL_NAMES, found, where=where)
        self._others = others_of(found, where=where, lang_column=lang_column)
        self._data: dict[str, LabeledTexts] = {}

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
        return tuple(sorted({lang for split in self._parts for lang in self._table(split).langs or ()}))

    def splits(self, lang: str | None = None) -> SplitNames:
        return SplitNames(self._parts)

    def read(self, lang: str | None, split: str) -> LabeledTexts:
        table = self._table(self.splits().spelled(split) or split)
        if lang is None or table.langs is None:
            return table
        return table.select([i for i, each in enumerate(table.langs) if each == lang]).without_empty_classes()

    def _table(self, split: str) -> LabeledTexts:
        if split not in self._data:
            self._data[split] = self._parse(self._parts[split])
        return self._data[split]

    def _parse(self, path: Path) -> LabeledTexts:
        rows = _Rows(where=str(path))
        for line, row in rows_of(path, self.form):
            for kind, column in (("text", self._text), ("label", self._label)):
                refuse_nested(row.get(column), f"{path}, line {line}", kind, column)
            rows.add(line, row, self._text, self._label, self._others)
        if not rows.texts and not rows.skipped:
            raise DataError(f"{path} has a header and no rows.")
        if not rows.texts:
            raise DataError(f"{path}: no row has both a text and a label ({rows.skipped_said()}).")
        if rows.skipped:
            warnings.warn(f"{path}: skipped {rows.skipped_said()}.", DataWarning, stacklevel=2)
        if rows.column.respelt:
            warnings.warn(f"{path}: {rows.column.said()}.", DataWarning, stacklevel=2)
        columns = {name: tuple(values) for name, values in rows.others.items() if all(v is not None for v in values)}
        if not _ids_name_sentences(columns):
            columns.pop("ids", None)
        return LabeledTexts.from_names(
            rows.texts,
            rows.names,
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

    def add(self, line: int, row: Row, text: str, label: str, others: Mapping[Column, str]) -> None:
        reason = _unusable(row.get(text), "text") or _unusable(row.get(label), "label")
        if reason:
            self.skipped[reason] += 1
            self.first_line.setdefault(reason, line)
            return
        self.texts.append(str(row[text]).strip())
        self.names.append(self.column.name(row[label], line=line, where=self.where))
        for name, column in others.items():
            self.others[name].append(row.get(column))
        self.others["lines"].append(str(line))

    def skipped_said(self) -> str:
        """``3 rows with an empty text (first: line 7)`` and so on."""
        return ", ".join(
            f"{count} row{'s' * (count > 1)} with {reason} (first: line {self.first_line[reason]})"
            for reason, count in self.skipped.items()
        )


def _ids_name_sentences(columns: Mapping[Column, tuple[object, ...]]) -> bool:
    """Whether no id comes twice in one language (and from one user, where several label the same sentences).

    Ids that do are numbers of something else, not of sentences.
    """
    ids = columns.get("ids", ())
    if not ids:
        return True
    blank = ("",) * len(ids)
    keys = zip(columns.get("langs") or blank, columns.get("users") or blank, ids, strict=True)
    return len(set(keys)) == len(ids)


def _unusable(value: object, kind: str) -> str | None:
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return f"an empty {kind}"
    if kind == "label" and isinstance(value, str) and value in WRITTEN_MISSING:
        return f"the label {value!r}, a missing value written as text"
    if kind == "text" and not isinstance(value, str):
        return "a text that is not a string"
    if kind == "label" and not isinstance(value, str | int | float):
        return "a label that is neither a string nor a number"
    return None
