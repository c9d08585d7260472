"""Which column of a table holds what: the one list of usual names, and how a name is matched."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from nlpmeta.data import Column
from nlpmeta.errors import DataError, visible

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
        with suppress(DataError):  # of two that read alike neither was asked for
            named[kind] = find(names, found, where=where)
    if lang_column is not None:
        named["langs"] = choose("lang", lang_column, (), found, where=where)
    return {kind: column for kind, column in named.items() if column is not None}


def _folded(name: str) -> str:
    return name.strip().casefold()


def _shown(names: Sequence[str]) -> str:
    return visible(", ".join(repr(name) if name != name.strip() else name for name in names))
