"""Which column of a table holds what: the one list of usual names; and from rows to labelled texts."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from nlpmeta.data import Column, LabeledTexts
from nlpmeta.data.inputs import PAIR_COLUMNS, Pair, is_missing
from nlpmeta.data.labels import WRITTEN_MISSING, folded, kind_of, label_name
from nlpmeta.data.multilabel import label_set_name
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
        headless = " If its first row is an example already, say so with --no-header." if asked is None else ""
        raise DataError(f"{where} has {missing}; it has {_shown(found)}. Name one with --{kind}-column.{headless}")
    return chosen


def text_columns(asked: str | None, found: Sequence[str], *, where: str) -> tuple[str, ...]:
    """The column of the texts, or the two columns of pairs of texts.

    These are ``text_a`` and ``text_b`` if the table has them and no column was requested, or two requested names with a
    comma between them.

    Raises:
        DataError: if there is none; the message lists the columns found.
    """
    if asked is None or ("," in asked and find([asked], found, where=where) is None):
        names = PAIR_COLUMNS if asked is None else [name.strip() for name in asked.split(",")]
        two = tuple(name for name in (find([name], found, where=where) for name in names) if name is not None)
        if len(two) == len(names) == 2:
            return two
    return (choose("text", asked, TEXT_NAMES, found, where=where),)


def text_in(row: Row, columns: Sequence[str]) -> object:
    """The text in a row, or the pair; ``None`` if a text of the pair is missing or empty."""
    values = [row.get(column) for column in columns]
    if len(values) == 1:
        return values[0]
    whole = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    return Pair.of(*whole) if len(whole) == len(values) else None


def unusable(value: object, kind: str) -> str | None:
    """Why a value cannot be the ``kind`` (text, label) of an example; ``None`` if it can."""
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return f"an empty {kind}"
    if kind == "label" and isinstance(value, str) and value in WRITTEN_MISSING:
        return f"the label {value!r}, a missing value written as text"
    if kind == "text" and not isinstance(value, str):
        return "a text that is not a string"
    if kind == "label" and not isinstance(value, str | int | float):
        return "a label that is neither a string nor a number"
    return None


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
    rows: Iterable[Row],
    columns: Columns,
    *,
    where: str,
    label_names: Sequence[str] = (),
    lang: str | None = None,
    several: bool = False,
) -> LabeledTexts:
    """Texts and labels of ``rows``, without outer white space; rows that lack either are skipped with a warning.

    Args:
        rows: the rows of one split and language, in order.
        columns: which column holds what.
        where: what to call the table in messages.
        label_names: the names that integer labels stand for.
        lang: the language of all rows, where no column says it.
        several: whether the column of labels holds a list for each text, which may be empty.

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
        text, given = row.get(columns.text), row.get(columns.label)
        label = _labels(given, label_names, where) if several else _label(given, label_names, where)
        if not isinstance(text, str) or not text.strip() or (not label and not (several and given is not None)):
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
    return LabeledTexts.from_names(texts, names, **kept, several=several)


def _labels(value: object, label_names: Sequence[str], where: str) -> str:
    """The name of a set of labels.

    Raises:
        DataError: if it is no list of labels, or one of them is empty.
    """
    if value is None:
        return ""
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: the labels of a text are {visible(repr(value))[:60]}; they must be a list.")
    names = [_label(each, label_names, where) for each in value]
    if not all(names):
        raise DataError(f"{where}: a label in {visible(repr(value))[:60]} is empty.")
    return label_set_name(names)


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
    separator: str | None = None
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

    def set_name(self, value: object, *, line: int, where: str) -> str:
        """The name of the set of labels of one text, which may be empty: a list, or text with separators.

        Raises:
            DataError: if it is neither, or as ``name`` for one of them, or one of them is empty.
        """
        given, parts = value, value
        if self.separator is not None and isinstance(value, str):
            parts = [part.strip() for part in value.split(self.separator) if part.strip()]
        if self.separator is not None and isinstance(value, bool | int | float) and not is_missing(value):
            parts = [value]
        if not isinstance(parts, list | tuple):
            instead = f'["{value}"], or pass --label-separator' if isinstance(value, str) else "a list"
            raise DataError(
                f"{where}, line {line}: the labels are {visible(repr(given))[:60]}, but other rows hold lists; write "
                f"{visible(instead)[:60]}."
            )
        names = [self.name(part, line=line, where=where) for part in parts]
        if not all(names):
            raise DataError(f"{where}, line {line}: a label in {visible(repr(given))[:60]} is empty; leave it out.")
        return label_set_name(names)

    def note(self) -> str:
        """How many names were read as an earlier one, and where the first is."""
        return (
            f"{self.respelt} labels differ from an earlier one only in white space or Unicode form and are read as "
            f"that one (first: line {self._first_line})"
        )


def ids_name_sentences(columns: Mapping[Column, tuple[object, ...]]) -> bool:
    """Whether no id comes twice in one language (and from one user, where several label the same sentences).

    Ids that do are numbers of something else, not of sentences.
    """
    ids = columns.get("ids", ())
    if not ids:
        return True
    blank = ("",) * len(ids)
    keys = zip(columns.get("langs") or blank, columns.get("users") or blank, ids, strict=True)
    return len(set(keys)) == len(ids)
