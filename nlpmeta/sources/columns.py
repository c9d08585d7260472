"""Which column of a table holds what: the one list of usual names; and from rows to labelled texts."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from nlpmeta.data import Column, LabeledTexts
from nlpmeta.data.inputs import is_missing
from nlpmeta.data.labels import folded, kind_of, label_name
from nlpmeta.errors import DataError, DataWarning, visible
from nlpmeta.sources.arrow_rows import Row

TEXT_NAMES = ("text", "utterance", "utt", "sentence", "message", "sms", "query", "content", "body", "input")
LABEL_NAMES = ("label", "intent", "category", "class", "label_text", "target", "topic", "labels")
OTHER_NAMES: dict[Column, tuple[str, ...]] = {
    "langs": ("lang", "language", "locale"),
    "domains": ("domain", "scenario", "channel"),
    "ids": ("id",),
    "users": ("user", "user_id", "annotator"),
    "times": ("timestamp", "time", "date"),
}


def find(names: Iterable[str], found: Sequence[str], *, where: str) -> str | None:
    """The first of ``names`` that is among the columns ``found``, in any case of letters and outer white space.

    Raises:
        DataError: if several columns read like it and none is spelled like it.
    """
    for name in names:
        if name in found:
            return name
        alike = [column for column in found if _folded(column) == _folded(name)]
        if len(alike) > 1:
            raise DataError(
                f"{where} has {len(alike)} columns that read {name!r}: {_shown(alike)}. Rename all but one."
            )
        if alike:
            return alike[0]
    return None


def choose(kind: str, asked: str | None, usual: Sequence[str], found: Sequence[str], *, where: str) -> str:
    """The column of a ``kind`` (text, label, lang): the one asked for, else the first that is obvious.

    Raises:
        DataError: if there is none; the message lists the columns found.
    """
    chosen = find(usual if asked is None else [asked], found, where=where)
    if chosen is None:
        missing = f"no column that is obviously the {kind}" if asked is None else f"no column {visible(repr(asked))}"
        raise DataError(f"{where} has {missing}; it has {_shown(found)}. Name one with --{kind}-column.")
    return chosen


def others_of(found: Sequence[str], *, where: str, lang_column: str | None = None) -> dict[Column, str]:
    """The columns beside text and label that have a usual name; ``lang_column`` is the one that says the language."""
    named: dict[Column, str | None] = {}
    for kind, names in OTHER_NAMES.items():
        with suppress(DataError):  # of two that read alike neither was requested
            named[kind] = find(names, found, where=where)
    if lang_column is not None:
        named["langs"] = choose("lang", lang_column, (), found, where=where)
    return {kind: column for kind, column in named.items() if column is not None}


def _folded(name: str) -> str:
    return name.strip().casefold()


def _shown(names: Sequence[str]) -> str:
    return visible(", ".join(repr(name) if name != name.strip() else name for name in names))


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds the text, the label and, where there are any, the rest."""

    text: str
    label: str
    others: Mapping[Column, str] = field(default_factory=dict)

    def check(self, found: Iterable[str], *, where: str) -> None:
        """Make sure that a table has all of them.

        Raises:
            DataError: if it does not; the message lists the columns found.
        """
        there = tuple(found)
        missing = [name for name in (self.text, self.label, *self.others.values()) if name not in there]
        if missing:
            raise DataError(f"{where} has no column {_listed(missing)}; it has {', '.join(there)}.")


def labelled(
    rows: Iterable[Row], columns: Columns, *, where: str, label_names: Sequence[str] = (), lang: str | None = None
) -> LabeledTexts:
    """Texts and labels of ``rows``, without outer white space; rows that lack either are skipped with a warning.

    Args:
        rows: the rows of one split and language, in order.
        columns: which column holds what.
        where: what to call the table in messages.
        label_names: the names that integer labels stand for.
        lang: the language of all rows, where no column says it.

    Raises:
        DataError: if a column is missing, a label is neither text nor number, or no row is usable.
    """
    texts: list[str] = []
    names: list[str] = []
    kept: dict[Column, list[str]] = {name: [] for name in columns.others}
    skipped: Counter[str] = Counter()
    for row in rows:
        if not texts and not skipped:
            columns.check(row, where=where)
        text, label = row.get(columns.text), _label(row.get(columns.label), label_names, where)
        if not isinstance(text, str) or not text.strip() or not label:
            skipped["label" if isinstance(text, str) and text.strip() else "text"] += 1
            continue
        texts.append(text.strip())
        names.append(label)
        for name, column in columns.others.items():
            kept[name].append(str(row.get(column, "")))
    if skipped:
        counts = " and ".join(f"{count} without a {what}" for what, count in sorted(skipped.items()))
        warnings.warn(f"{where}: skipped {counts}.", DataWarning, stacklevel=2)
    if not texts:
        raise DataError(f"{where}: no row has both a text and a label.")
    if lang is not None:
        kept.setdefault("langs", [lang] * len(texts))
    return LabeledTexts.from_names(texts, names, **kept)


def _label(value: object, label_names: Sequence[str], where: str) -> str:
    """The name of a label; empty where there is none (the Hub marks hidden labels with -1)."""
    if isinstance(value, str):
        return value.strip()
    if is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and label_names:
        if value >= len(label_names):
            raise DataError(f"{where}: a label is {value}, but only {len(label_names)} label names are known.")
        return label_names[value] if value >= 0 else ""
    return label_name(value, where=where)


def _listed(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)


_SAID = {str: "text", bool: "a boolean", int: "a number"}


@dataclass
class LabelColumn:
    """Turns the labels of a file into names, row by row.

    A name that differs from an earlier one only in white space or Unicode form is that one; ``respelt`` counts them.
    """

    respelt: int = 0
    _first_line: int = 0
    _first: tuple[type, object, int] | None = None
    _spelling: dict[str, str] = field(default_factory=dict)

    def name(self, value: object, *, line: int, where: str) -> str:
        """The name of a label that is there.

        Raises:
            DataError: if it is of another kind than the first one (text, number, boolean), or has a fraction.
        """
        name = label_name(value, where=f"{where}, line {line}")
        kind = int if kind_of(value) is float else kind_of(value)
        if self._first is None:
            self._first = (kind, value, line)
        first_kind, first, first_line = self._first
        if kind is not first_kind:
            raise DataError(
                f"{where} mixes kinds of labels: {first!r} ({_SAID[first_kind]}, line {first_line}) and {value!r} "
                f"({_SAID[kind]}, line {line}). Write all as text, or all as numbers."
            )
        spelt = self._spelling.setdefault(folded(name), name)
        if spelt != name:
            self.respelt, self._first_line = self.respelt + 1, self._first_line or line
        return spelt

    def note(self) -> str:
        """How many names were read as an earlier one, and where the first is."""
        return (
            f"{self.respelt} labels differ from an earlier one only in white space or Unicode form and are read as "
            f"that one (first: line {self._first_line})"
        )
