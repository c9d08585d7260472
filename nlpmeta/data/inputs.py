"""Columns of values as people have them (lists, arrays, series, Arrow, one column of a table), and texts among them."""

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np

from nlpmeta.errors import DataError, visible

_MOST_NAMED = 8  # columns or keys, in a message


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


def checked_texts(X: object) -> tuple[str, ...]:  # noqa: N803
    """The texts of ``X``, checked; a table of one column is that column.

    Raises:
        DataError: if ``X`` is no column of texts, or one of them is missing, empty or no text.
    """
    values = values_of(X, name="X", what="texts")
    if not values:
        raise DataError("X holds no texts.")
    texts: list[str] = []
    for row, value in enumerate(values):
        if is_missing(value):
            raise DataError(f"X must hold texts; row {row} is missing ({visible(repr(value))}).")
        if not isinstance(value, str):
            shown = f"{visible(repr(value))[:60]} ({type(value).__name__})"
            raise DataError(f"X must hold strings; row {row} is {shown}.")
        if not value.strip():
            raise DataError(f"X must hold texts; row {row} is empty.")
        if not is_unicode(value):
            raise DataError(f"X must hold texts; row {row} is not Unicode text (it contains a lone surrogate).")
        texts.append(value)
    return tuple(texts)


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
        shown = visible(repr(given))[:60]
        raise DataError(f"{name} must be a sequence of {what}; it is {shown} ({type(given).__name__}).") from error


def _listed(names: Iterable[object]) -> str:
    shown = [str(each) for each in names]
    return visible(", ".join(shown[:_MOST_NAMED])) + (" …" if len(shown) > _MOST_NAMED else "") if shown else "none"
