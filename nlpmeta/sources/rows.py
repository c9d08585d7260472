"""From the rows of somebody's table to ``LabeledTexts``, once it is known which column holds what."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nlpmeta.data import Column, LabeledTexts
from nlpmeta.errors import DataError, DataWarning
from nlpmeta.inputs import is_missing
from nlpmeta.labels import label_name
from nlpmeta.sources.tables import Row


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
