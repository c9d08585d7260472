"""Rows that are treated otherwise than the rest, with the line of the first, and test data matched to its data."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nlpmeta.data import LabeledTexts
from nlpmeta.data.labels import folded
from nlpmeta.episodes import Known
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.errors import DataError, visible

_KEPT = {True: "all are kept", False: "a draw takes a text of a class once"}


@dataclass(frozen=True)
class Account:
    """What happened to some rows of a file: a word for programs and a sentence for people.

    ``line`` is the line of the first of them, its row where the source has no lines.
    """

    file: str
    what: str
    count: int
    line: int
    said: str

    def json(self) -> dict[str, str | int]:
        """Without the sentence."""
        return {"file": self.file, "what": self.what, "count": self.count, "first_line": self.line}

    def __str__(self) -> str:
        return self.said


def accounts_of(sampler: KShotSampler, *, data: str, test_data: str | None) -> list[Account]:
    """What a sampler does with rows of ``data`` that are not simply examples; what is not said is used as it is.

    Args:
        sampler: of the draws.
        data: what to call its pool.
        test_data: what to call its test texts, if it has any.
    """
    pool, whole = sampler.pool, sampler.n_shot is None
    test = test_data or "the test data"
    left_over = [] if sampler.test is not None or whole else sampler.not_scored(0)
    unmeasured = [] if sampler.test is None else sampler.rows_without_support
    found = [
        _account(pool, repeats(pool), data, "repeats", f"repeat an earlier one with the same label; {_KEPT[whole]}"),
        _account(pool, several_labels(pool), data, "several_labels", "have a text that several labels have; all kept"),
        _account(
            pool, sampler.in_test, data, "in_test", f"are in {test} too, but for case and digits; left out of support"
        ),
        _account(
            pool, sampler.rare_rows, data, "too_few", f"of classes with fewer than {sampler.n_shot} examples; left out"
        ),
        _account(
            pool, left_over, data, "not_scored", "repeat a support text but for case and digits; draw 1 skips them"
        ),
    ]
    if sampler.given_test is not None:
        said = "of classes without support; not scored"
        found.append(_account(sampler.given_test, unmeasured, test, "no_support", said))
    return [each for each in found if each is not None]


def repeats(pool: LabeledTexts) -> list[int]:
    """The rows with a text and a label that an earlier row has."""
    seen: set[tuple[str, int]] = set()
    rows = []
    for row, pair in enumerate(zip(pool.texts, pool.labels, strict=True)):
        if pair in seen:
            rows.append(row)
        seen.add(pair)
    return rows


def several_labels(pool: LabeledTexts) -> list[int]:
    """The rows whose text is there under another label too."""
    labels: dict[str, set[int]] = {}
    for text, label in zip(pool.texts, pool.labels, strict=True):
        labels.setdefault(text, set()).add(label)
    return [row for row, text in enumerate(pool.texts) if len(labels[text]) > 1]


def _account(data: LabeledTexts, rows: Sequence[int], file: str, what: str, said: str) -> Account | None:
    if not rows:
        return None
    line = int(data.lines[rows[0]]) if data.lines is not None else rows[0] + 1
    place, some = "line" if data.lines is not None else "row", "row" if len(rows) == 1 else "rows"
    return Account(file, what, len(rows), line, f"{file}: {len(rows)} {some} (first: {place} {line}) {said}.")


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
