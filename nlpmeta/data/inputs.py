"""Columns of values as people have them (lists, arrays, series, Arrow, one column of a table), and texts among them."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import cast

import numpy as np

from nlpmeta.errors import DataError, visible

BETWEEN = "\x1f"
"""What stands between the texts of a pair: the unit separator of ASCII."""
PAIR_COLUMNS = ("text_a", "text_b")
"""The columns of a table of pairs."""
ORDER = ("first", "second")
_MOST_NAMED = 8  # columns or keys, in a message
_LEAST_SHARE = 1e-5
_ENOUGH, _UNEQUAL = 50, 1.5  # texts that show how frequent classes are; how much more than its even share one has then


class Pair(str):
    """Two texts that are classified together, as one string: files, tables and folds then treat it as a text."""

    __slots__ = ()

    @classmethod
    def of(cls, first: str, second: str) -> "Pair":
        """The two as one.

        Raises:
            DataError: if one of them holds what stands between them.
        """
        if BETWEEN in first or BETWEEN in second:
            raise DataError(f"A text of a pair holds the control character {BETWEEN!r}; remove it.")
        return cls(f"{first}{BETWEEN}{second}")

    @property
    def halves(self) -> tuple[str, str]:
        """The two texts."""
        first, _, second = self.partition(BETWEEN)
        return first, second


def shown(text: str) -> str:
    """A text for a person to read; a pair with a bar between its texts."""
    return text.replace(BETWEEN, " | ")


def typed(text: str) -> str:
    """A text as it is typed on the command line of a shell; a tab stands between the texts of a pair."""
    if BETWEEN in text:
        for sign, instead in (("\\", "\\\\"), ("'", "\\'"), (BETWEEN, "\\t")):
            text = text.replace(sign, instead)
        return f"$'{text}'"
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def holds_pairs(texts: Sequence[str]) -> bool:
    """Whether checked texts are pairs."""
    return bool(texts) and isinstance(texts[0], Pair)


def check_kind(texts: Sequence[str], *, pairs: bool) -> None:
    """See that a model of pairs is given pairs, and one of single texts is given those.

    Raises:
        DataError: if it is not.
    """
    if holds_pairs(texts) == pairs:
        return
    if pairs:
        raise DataError('This model classifies pairs of texts; give it pairs, such as ("a", "b").')
    raise DataError("X holds pairs of texts, but this model was fitted to single texts.")


def values_of(given: object, *, name: str, what: str) -> list[object]:
    """The values of one column, in order: a list, array, series, Arrow array, column of a data set, or iterator.

    A table of one column is that column. No library is imported for this: a value says by its methods what it is.

    Args:
        given: the column.
        name: what to call it, such as ``X``.
        what: what it is to hold, such as ``texts``.

    Raises:
        DataError: if it is one value, a table of several columns, a mapping, or has no order.
    """
    if isinstance(given, str | bytes):
        kind = "string" if isinstance(given, str) else "bytes value"
        raise DataError(f"{name} must be a sequence of {what}, not one {kind}; put it into a list.")
    if isinstance(given, Mapping):
        raise DataError(
            f"{name} is a {type(given).__name__} with the keys {_listed(given)}; pass one of its values, "
            f"such as {name}[{next(iter(given), 'key')!r}]."
        )
    if isinstance(given, set | frozenset):
        raise DataError(f"{name} is a {type(given).__name__}, which has no order; pass a list of {what}.")
    columns = _columns_of(given)
    if columns is not None:
        return values_of(_only_column(given, columns, name), name=name, what=what)
    shape = getattr(given, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1:
        raise DataError(
            f"{name} must have one dimension, but its shape is {tuple(shape)}; pass a sequence of {what}, "
            f"one {what.removesuffix('s')} each."
        )
    return _listed_out(given, name, what)


def checked_texts(X: object, *, pairs: bool = False) -> tuple[str, ...]:  # noqa: N803
    """The texts of ``X``, checked; a table of one column is that column.

    Args:
        X: the texts.
        pairs: whether they may be pairs of texts: a tuple or list of two each, an array ``(n, 2)``, or a table with the
            columns ``PAIR_COLUMNS``. What is returned then are ``Pair``.

    Raises:
        DataError: if ``X`` is no column of texts, or one of them is missing, empty or no text.
    """
    values = _pairs_in(X) if pairs else None
    if values is None:
        values = values_of(X, name="X", what="texts")
    if not values:
        raise DataError("X holds no texts.")
    if not pairs or not any(isinstance(value, tuple | list | Pair) for value in values):
        return tuple(_checked(value, f"row {row}") for row, value in enumerate(values))
    return tuple(_checked_pair(value, row) for row, value in enumerate(values))


def _pairs_in(given: object) -> list[object] | None:
    """The rows of a table or an array of pairs; ``None`` if ``given`` is neither."""
    columns = _columns_of(given)
    if columns is not None and set(PAIR_COLUMNS) <= set(columns):
        parts = [values_of(given[name], name=name, what="texts") for name in PAIR_COLUMNS]  # type: ignore[index]
        return list(zip(*parts, strict=True))
    shape = getattr(given, "shape", None)
    is_rows = columns is None and isinstance(shape, tuple) and len(shape) == 2 and shape[1] == 2
    return cast("list[object]", given.tolist()) if is_rows else None  # type: ignore[attr-defined]


def _checked_pair(value: object, row: int) -> Pair:
    if isinstance(value, Pair):
        return value
    if not isinstance(value, tuple | list):
        raise DataError(f"X mixes pairs and texts: row {row} is {visible(repr(value))[:60]}, not a pair of texts.")
    if len(value) != 2:
        raise DataError(f"X holds pairs, but row {row} has {len(value)} texts: {visible(repr(value))[:60]}.")
    first, second = (_checked(part, f"the {name} text of row {row}") for part, name in zip(value, ORDER, strict=True))
    return Pair.of(first, second)


def _checked(value: object, where: str) -> str:
    if is_missing(value):
        raise DataError(f"X must hold texts; {where} is missing ({visible(repr(value))}).")
    if not isinstance(value, str):
        pair = isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(part, str) for part in value)
        advice = " Pairs of texts are taken by FewShotClassifier, with one label a pair." if pair else ""
        found = f"{visible(repr(value))[:60]} ({type(value).__name__})"
        raise DataError(f"X must hold strings; {where} is {found}.{advice}")
    if not value.strip():
        raise DataError(f"X must hold texts; {where} is empty.")
    if not is_unicode(value):
        raise DataError(f"X must hold texts; {where} is not Unicode text (it contains a lone surrogate).")
    return value


def checked_class_prior(given: object, classes: Sequence[object]) -> tuple[float, ...]:
    """How often each of ``classes`` occurs, of sum 1, from shares or counts by label.

    Classes that are not named share equally what the others leave of 1.

    Raises:
        DataError: if it is no mapping, a label is no class, a number is not positive, or nothing is left for a class.
    """
    if not isinstance(given, Mapping):
        raise DataError(f"class_prior takes shares by label, such as {{'spam': 0.1}}; got {type(given).__name__}.")
    for label, share in given.items():
        if label not in classes:
            raise DataError(
                f"class_prior names {visible(repr(label))}, which is no class. Classes: {_listed(classes)}."
            )
        is_number = isinstance(share, Real) and not isinstance(share, bool | np.bool_)
        if not is_number or not 0 < float(share) < float("inf"):
            raise DataError(f"class_prior must hold positive numbers; that of {visible(repr(label))} is {share!r}.")
    shares = {label: float(share) for label, share in given.items()}
    total, unnamed = sum(shares.values()), [label for label in classes if label not in shares]
    if unnamed and total >= 1:
        raise DataError(
            f"class_prior leaves nothing for {_listed(unnamed)}: what it names has {total:g} of 1. Give shares whose "
            "sum is below 1, or name every class."
        )
    every = shares | dict.fromkeys(unnamed, (1 - total) / max(len(unnamed), 1))
    found = {label: every[label] / sum(every.values()) for label in classes}
    if few := [label for label in classes if found[label] < _LEAST_SHARE]:
        raise DataError(f"class_prior gives {_listed(few)} less than {_LEAST_SHARE:g} of 1, which nobody can know.")
    return tuple(found.values())


def parsed_class_prior(asked: str, *, word: str, counts: Mapping[str, int]) -> Mapping[str, float]:
    """What ``--class-prior`` says: shares or counts by label, or a ``word`` that stands for these ``counts``.

    Raises:
        DataError: names the part that says neither.
    """
    if asked.strip() == word:
        return {label: max(n, 1) for label, n in counts.items()}
    found = dict[str, float]()
    for part in asked.split(","):
        label, sign, share = part.strip().rpartition("=")
        try:
            found[label] = float(share)
        except ValueError:
            sign = ""
        if not sign or not label:
            raise DataError(f"--class-prior takes shares such as spam=0.1,ham=0.9, or {word!r}; got {visible(part)!r}.")
    return found


def unequally_frequent(counts: Mapping[str, int]) -> str | None:
    """What to say of data whose classes are far from equally frequent, to somebody who has not said how frequent."""
    total, most = sum(counts.values()), max(counts, key=counts.__getitem__)
    if total < _ENOUGH or counts[most] * len(counts) < _UNEQUAL * total:
        return None
    return (
        f"{100 * counts[most] / total:.0f} % of the data are {visible(repr(most), 60)}, and the model takes classes to "
        "be equally frequent; --class-prior data, or shares such as spam=0.1,ham=0.9, makes more answers right"
    )


def carried_class_prior(known: Mapping[object, float], classes: Sequence[object]) -> dict[object, float]:
    """What is known of how often classes occur after some came or went: a new class counts as one that is average."""
    new, gone = [each for each in classes if each not in known], [each for each in known if each not in classes]
    if len(new) == len(gone) == 1:  # it has another label
        return {label: known[gone[0] if label == new[0] else label] for label in classes}
    kept = {label: known[label] for label in classes if label in known}
    each = (len(classes) - len(new)) / len(classes) / max(sum(kept.values()), _LEAST_SHARE)
    return {
        label: max(each * kept[label], 2 * _LEAST_SHARE) if label in kept else 1 / len(classes) for label in classes
    }


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8; half of a surrogate pair cannot, and no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_missing(value: object) -> bool:
    """Whether a value only says that there is none: None, NaN, NaT, pandas' NA, a masked entry of numpy."""
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    is_number = isinstance(value, float | np.floating) or type(value).__name__ == "Decimal"
    return is_number and bool(value != value)  # noqa: PLR0124  # NaN alone differs from itself


def _columns_of(given: object) -> list[object] | None:
    """The names of the columns of a table; ``None`` if it is no table."""
    for attribute in ("column_names", "columns"):  # Arrow and datasets; pandas and polars
        found = getattr(given, attribute, None)
        if found is not None and not callable(found) and hasattr(given, "__getitem__"):
            return list(cast("Iterable[object]", found))
    return None


def _only_column(given: object, columns: list[object], name: str) -> object:
    if len(columns) == 1:
        return given[columns[0]]  # type: ignore[index]  # ``_columns_of`` saw that it can be indexed
    example = next((each for each in columns if each in ("text", "label")), columns[0] if columns else "text")
    raise DataError(
        f"{name} is a table ({type(given).__name__}) with {len(columns)} columns ({_listed(columns)}); "
        f"pass one of them, such as {name}[{example!r}]."
    )


def _listed_out(given: object, name: str, what: str) -> list[object]:
    for method in ("to_pylist", "to_list", "tolist"):  # Arrow; polars and pandas; numpy and torch
        convert = getattr(given, method, None)
        if callable(convert):
            return list(cast("Iterable[object]", convert()))
    try:
        return list(cast("Iterable[object]", given))
    except TypeError as error:
        found = visible(repr(given))[:60]
        raise DataError(f"{name} must be a sequence of {what}; it is {found} ({type(given).__name__}).") from error


def _listed(names: Iterable[object]) -> str:
    found = [str(each) for each in names]
    return visible(", ".join(found[:_MOST_NAMED])) + (" …" if len(found) > _MOST_NAMED else "") if found else "none"
