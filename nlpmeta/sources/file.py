"""A user's own table as a source: CSV, TSV, JSON Lines or Parquet."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nlpmeta.data import COLUMNS, Column, LabeledTexts
from nlpmeta.errors import DataError, DataWarning, visible
from nlpmeta.sources.base import Source, SourceFacts, sources
from nlpmeta.sources.tables import FORMATS, Row, columns_of, rows_of

TEXT_NAMES = ("text", "utterance", "utt", "sentence", "message", "sms", "query", "content", "body", "input")
LABEL_NAMES = ("label", "intent", "category", "class", "label_text", "target", "topic", "labels")
OTHER_NAMES: dict[Column, tuple[str, ...]] = {
    "langs": ("lang", "language", "locale"),
    "domains": ("domain", "scenario", "channel"),
    "ids": ("id",),
    "users": ("user", "user_id", "annotator"),
    "times": ("timestamp", "time", "date"),
}


def looks_like_file(name: str) -> bool:
    """Whether ``name`` can only mean a file: it exists as one, or ends like a table."""
    return Path(name).is_file() or Path(name).suffix.lower() in FORMATS


@sources.register("file")
class FileSource(Source):
    """One table with a text and a label column; obvious column names are found by themselves.

    Empty and non-text rows are skipped with a warning that counts them and names the first line.

    Raises:
        DataError: if the file cannot be read, a column is missing, or no row is usable.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        text_column: str | None = None,
        label_column: str | None = None,
        lang_column: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.facts = SourceFacts(
            name=str(path), title=str(path), licence="unknown: your own file", citation="your own file"
        )
        found = columns_of(self.path)
        self._text = _choose(self.path, "text", text_column, TEXT_NAMES, found)
        self._label = _choose(self.path, "label", label_column, LABEL_NAMES, found)
        self._others = {c: _first(names, found) for c, names in OTHER_NAMES.items()}
        if lang_column is not None:
            self._others["langs"] = _choose(self.path, "lang", lang_column, (), found)
        self._data: LabeledTexts | None = None

    def languages(self) -> tuple[str, ...]:
        return tuple(sorted(set(self._table().langs or ())))

    def splits(self, lang: str | None = None) -> tuple[str, ...]:
        return ("train",)

    def read(self, lang: str | None, split: str) -> LabeledTexts:
        table = self._table()
        if lang is None or table.langs is None:
            return table
        return table.select([i for i, each in enumerate(table.langs) if each == lang]).without_empty_classes()

    def _table(self) -> LabeledTexts:
        if self._data is None:
            self._data = self._parse()
        return self._data

    def _parse(self) -> LabeledTexts:
        rows = _Rows()
        for line, row in rows_of(self.path):
            rows.add(line, row, self._text, self._label, self._others)
        if not rows.texts:
            raise DataError(f"{self.path}: no row has both a text and a label ({rows.skipped_said()}).")
        if rows.skipped:
            warnings.warn(f"{self.path}: skipped {rows.skipped_said()}.", DataWarning, stacklevel=2)
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
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "example.csv"
        path.write_text("text,label,lang\nhello,greet,en\nbye,leave,en\nhabari,greet,sw\nkwaheri,leave,sw\n", "utf-8")
        return cls(path)


@dataclass
class _Rows:
    """The usable rows of a table, and a tally of the others."""

    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    others: dict[Column, list[object]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    skipped: Counter[str] = field(default_factory=Counter)
    first_line: dict[str, int] = field(default_factory=dict)

    def add(self, line: int, row: Row, text: str, label: str, others: dict[Column, str | None]) -> None:
        reason = _unusable(row.get(text), "text") or _unusable(row.get(label), "label")
        if reason:
            self.skipped[reason] += 1
            self.first_line.setdefault(reason, line)
            return
        self.texts.append(str(row[text]).strip())
        self.names.append(_label_name(row[label]))
        for name, column in others.items():
            self.others[name].append(None if column is None else row.get(column))
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
    if value is None or (isinstance(value, str) and not value.strip()):
        return f"an empty {kind}"
    if kind == "text" and not isinstance(value, str):
        return "a text that is not a string"
    if kind == "label" and not isinstance(value, str | int | float):
        return "a label that is neither a string nor a number"
    return None


def _label_name(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole and isinstance(value, float) else str(value).strip()


def _choose(path: Path, kind: str, asked: str | None, usual: Sequence[str], found: Sequence[str]) -> str:
    """The column to read: the one asked for, else the first that is obvious."""
    if asked is not None and asked in found:
        return asked
    chosen = None if asked is not None else _first(usual, found)
    if chosen is None:
        missing = f"no column {asked!r}" if asked is not None else f"no column that is obviously the {kind}"
        raise DataError(f"{path} has {missing}; it has {visible(', '.join(found))}. Name one with --{kind}-column.")
    return chosen


def _first(usual: Sequence[str], found: Sequence[str]) -> str | None:
    by_fold = {column.strip().casefold(): column for column in found}
    return next((by_fold[name] for name in usual if name in by_fold), None)
