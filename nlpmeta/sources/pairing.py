"""A table to learn from and one to score on: whether they go together, and whose labels are the same."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError, visible
from nlpmeta.labels import folded
from nlpmeta.sampling.leaks import Known

_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_MOST_NAMED = 10  # labels, in a message


def check_apart(data: str, test_data: str) -> None:
    """Refuse one file as both.

    Raises:
        DataError: names it.
    """
    first, second = Path(data), Path(test_data)
    if data == test_data or (first.exists() and second.exists() and first.samefile(second)):
        raise DataError(
            f"--test-data is the same as --data ({data}): no text would be left to learn from that is not scored. "
            "Leave --test-data out: the rest of the data, or folds of it, are scored then."
        )


def paired(pool: LabeledTexts, test: LabeledTexts, *, data: str, test_data: str) -> tuple[LabeledTexts, list[str]]:
    """The test texts with the label names of ``pool``, and what is to be said about it.

    Names that differ only in white space, Unicode form or how a whole number is written (``1`` and ``1.0``) are one.

    Args:
        pool: the texts to learn from.
        test: the texts to score on.
        data: what to call ``pool``.
        test_data: what to call ``test``.

    Raises:
        DataError: if they share no label, or every text of ``pool`` is in ``test``; names both and their labels.
    """
    here, there = _used(pool), _used(test)
    same = _renamed(there, here)
    notes = []
    if same:
        pairs = ", ".join(f"{old!r} is {new!r}" for old, new in list(same.items())[:_MOST_NAMED])
        notes.append(f"{test_data} writes labels otherwise than {data}: {visible(pairs)}.")
        test = replace(test, label_names=tuple(same.get(name, name) for name in test.label_names))
        there = [same.get(name, name) for name in there]
    unknown = [name for name in there if name not in set(here)]
    if len(unknown) == len(there):
        raise DataError(
            f"{test_data} has no label of {data}: {test_data} has {_listed(there)}; {data} has {_listed(here)}."
        )
    if unknown:
        notes.append(
            f"{test_data} has labels without examples in {data}: {_listed(unknown)}; {data} has {_listed(here)}."
        )
    if all(Known(test).has_rows(pool)):
        raise DataError(
            f"All {len(pool)} texts of {data} are in {test_data} too, so nothing is left to learn from. "
            f"Leave --test-data out: the rest of the data, or folds of it, are scored then."
        )
    return test, notes


def _renamed(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """For each name that is not known as it stands the known one that is the same."""
    names, known = list(names), list(known)
    by_form: dict[str, list[str]] = {}
    for name in known:
        by_form.setdefault(_form(name), []).append(name)
    found = {name: by_form.get(_form(name), []) for name in names if name not in set(known)}
    only = {name: each[0] for name, each in found.items() if len(each) == 1 and each[0] not in set(names)}
    return {name: new for name, new in only.items() if list(only.values()).count(new) == 1}


def _form(name: str) -> str:
    word = folded(name)
    whole = _WHOLE.fullmatch(word)
    return str(int(whole[1] if whole else word)) if whole or re.fullmatch(r"[+-]?\d+", word) else word


def _used(data: LabeledTexts) -> list[str]:
    return [name for name, count in data.counts().items() if count]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return visible(", ".join(repr(name) for name in names[:_MOST_NAMED])) + more
