"""What may be a label, decided before numpy turns one kind of value into another."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.data.inputs import is_missing, is_unicode, values_of
from nlpmeta.errors import DataError, UnknownNameError, visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

Plain = str | int | float | bool
WRITTEN_MISSING = frozenset({"nan", "NaN", "NaT", "<NA>"})
"""How numpy, pandas and csv write a missing value where they turn it into text."""
_SAID = {bool: "a boolean", int: "a whole number", float: "a number with a point", str: "a string", bytes: "bytes"}


def checked_labels(y: object) -> "NDArray[np.generic]":
    """The labels in ``y``, ``(n,)``, as they were given: no value is turned into another kind.

    Strings, bytes, whole numbers, booleans, and members of one enumeration; floats only if they are whole.

    Raises:
        DataError: names the first row that is missing, of another kind than the first one, or no label at all.
    """
    shape = getattr(y, "shape", None)
    if isinstance(y, np.ndarray) and y.ndim > 1:
        raise DataError(f"y must have one label per text; its shape is {shape}.")
    values = values_of(y, name="y", what="labels")
    if not values:
        raise DataError("y holds no labels.")
    kind = _one_kind(values)
    labels = _as_array(values, kind, getattr(y, "dtype", None))
    if kind in (str, bytes):
        _check_text(labels)
    if kind is float:
        _check_whole(labels)
    return labels


def classes_of(labels: "NDArray[np.generic]") -> "NDArray[np.generic]":
    """The different labels, sorted; members of an enumeration in the order of their definition.

    Raises:
        DataError: if two labels differ only in white space or in the Unicode form of the same characters.
    """
    if labels.dtype.kind == "O":
        found = set(labels.tolist())
        return _objects([member for member in type(labels[0]) if member in found])
    classes = np.unique(labels)
    if kind_of(classes[0]) in (str, bytes):
        seen: dict[str, object] = {}
        for label, word in zip(classes.tolist(), words_of(classes), strict=True):
            first = seen.setdefault(folded(word), label)
            if first != label:
                raise DataError(
                    f"The labels {first!r} and {label!r} differ only in white space or Unicode form; write them alike."
                )
    return classes


def kind_of(value: object) -> type:
    """What a label is: ``str``, ``bytes``, ``bool``, ``int``, ``float``, the enumeration, or another type."""
    if isinstance(value, Enum):
        return type(value)
    for kind, types in (
        (str, str),
        (bytes, bytes),
        (bool, bool | np.bool_),
        (int, int | np.integer),
        (float, float | np.floating),
    ):
        if isinstance(value, types):
            return kind
    return type(value)


def joined(known: "NDArray[np.generic]", new: "NDArray[np.generic]") -> "NDArray[np.generic]":
    """More labels after the known ones.

    Raises:
        DataError: if they are of another kind: numbers among names.
    """
    if not len(known):
        return new
    if not len(new):
        return known
    if kind_of(known[0]) is not kind_of(new[0]):
        raise DataError(
            f"The new label {new.tolist()[0]!r} differs in type from the known ones, such as {known.tolist()[0]!r}."
        )
    dtype = known.dtype if known.dtype == new.dtype else None
    return _as_array([*known.tolist(), *new.tolist()], kind_of(known[0]), dtype)


def words_of(labels: "NDArray[np.generic]") -> tuple[str, ...]:
    """Each label as text: the names that classes are called by."""
    return tuple(map(str, plain(labels)))


def plain(labels: "NDArray[np.generic]") -> list[Plain]:
    """Each label as JSON can hold it; a member of an enumeration by its value, a string, or its name."""
    values = labels.tolist()
    if values and isinstance(values[0], Enum):
        by_value = all(type(member.value) is str for member in type(values[0]))
        return [member.value if by_value else member.name for member in values]
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def like(values: Sequence[object], labels: "NDArray[np.generic]") -> "NDArray[np.generic]":
    """``values``, as ``plain`` gives them, in the type of ``labels``.

    Raises:
        ValueError: if one cannot be of that type.
    """
    if labels.dtype.kind == "S":
        return np.asarray([str(value).encode() for value in values])
    return np.asarray(values, dtype=labels.dtype if labels.dtype.kind != "U" else str)


def folded(word: str) -> str:
    """A label without the differences that nobody sees: white space, and the Unicode form (NFC)."""
    return " ".join(unicodedata.normalize("NFC", word).split())


def checked_descriptions(
    given: object, classes: "NDArray[np.generic]", *, where: Callable[[object], str] = lambda label: "descriptions"
) -> dict[object, tuple[str, ...]]:
    """The texts that describe each class, by its label as it is in ``classes``.

    Args:
        given: a text or several for each label; a label may be written as in a file (``"0"`` for 0).
        classes: the labels that there are.
        where: what to call the place of a label in a message.

    Raises:
        DataError: if it is no mapping, a label is none of the classes or is there twice in two spellings, or a text is
            missing, empty or no string.
    """
    if not isinstance(given, Mapping):
        shown = visible(repr(given))[:60]
        raise DataError(f"descriptions must map a label to a text or a list of texts; got {shown}.")
    exact: dict[object, object] = {label: label for label in classes.tolist()}
    spelt: dict[str, object] = {folded(word): label for word, label in zip(words_of(classes), exact, strict=True)}
    found: dict[object, tuple[str, ...]] = {}
    first: dict[object, object] = {}
    for label, texts in given.items():
        known = exact[label] if label in exact else spelt.get(folded(str(label)))
        if known is None:
            raise DataError(f"{where(label)}: {UnknownNameError('class', str(label), words_of(classes))}")
        if known in first:
            raise DataError(
                f"{where(label)}: the labels {first[known]!r} and {label!r} are one class in two spellings; "
                "write them alike."
            )
        first[known] = label
        found[known] = _checked_description(texts, f"{where(label)}: the description of {visible(repr(label))}")
    return found


def _checked_description(given: object, what: str) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) or is_missing(given) else given
    if not isinstance(texts, list | tuple) or not texts:
        raise DataError(f"{what} must be a text or a list of texts; it is {visible(repr(given))[:60]}.")
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{what} must be text; it is {visible(repr(text))[:60]} ({type(text).__name__}).")
        if not text.strip():
            raise DataError(f"{what} is empty.")
        if not is_unicode(text):
            raise DataError(f"{what} is not Unicode text (it contains a lone surrogate).")
    return tuple(dict.fromkeys(text.strip() for text in texts))


def label_name(value: object, *, where: str) -> str:
    """The name of a label in a file, without outer white space; empty where the value says that there is none.

    Raises:
        DataError: if it is no label: a list, an object, a number with a fraction.
    """
    if is_missing(value):
        return ""
    kind = kind_of(value)
    if kind is str:
        word = str(value).strip()
        return "" if word in WRITTEN_MISSING else word
    if kind is float:
        if not float(value).is_integer():  # type: ignore[arg-type]  # it is a float
            raise DataError(
                f"{where}: the label {value!r} is a number with a fraction; a classifier needs classes. "
                f'Write it as text ("{value}") if it is the name of one.'
            )
        return str(int(value))  # type: ignore[call-overload]
    if kind in (bool, int):
        return str(value)
    many = " Several labels per text are not accepted." if isinstance(value, list | tuple | set) else ""
    shown = visible(str(value))[:60]
    raise DataError(f"{where}: a label is {shown!r}; a label must be a text or a number (one a row).{many}")


def _one_kind(values: list[object]) -> type:
    """The one kind of all values."""
    first = 0
    for row, value in enumerate(values):
        if is_missing(value):
            raise DataError(
                f"y has no label in row {row}: {visible(repr(value))[:40]} is missing, not a number and no name. "
                "Leave such rows out."
            )
        kind = kind_of(value)
        if kind not in _SAID and not issubclass(kind, Enum):
            raise DataError(_no_label(row, value, values))
        if kind is not kind_of(values[first]):
            raise DataError(
                f"y must hold labels of one kind; row {first} is {values[first]!r} ({_said(values[first])}) and row "
                f"{row} is {value!r} ({_said(value)}). Write all as strings, or all as numbers."
            )
    return kind_of(values[0])


def _said(value: object) -> str:
    kind = kind_of(value)
    return _SAID.get(kind, f"a member of {kind.__name__}")


def _no_label(row: int, value: object, values: list[object]) -> str:
    shown = visible(repr(value))[:60]
    if not isinstance(value, Iterable) or isinstance(value, dict):
        kind = type(value).__name__
        return f"y must hold strings, numbers or booleans, all of one kind; row {row} is {shown} ({kind})."
    lengths = {len(each) if isinstance(each, Sequence | np.ndarray) else 1 for each in values}
    shape = f"; its shape is {(len(values), *lengths)}" if len(lengths) == 1 else ""
    return (
        f"y must have one label per text{shape}; row {row} is {shown}. Several labels per text are not taken "
        "here: give them to fit, a list in every row (multilabel=True)."
    )


def _as_array(values: list[object], kind: type, dtype: object) -> "NDArray[np.generic]":
    if issubclass(kind, Enum):
        return _objects(values)
    if isinstance(dtype, np.dtype) and dtype.kind not in "OUS":
        return np.asarray(values, dtype=dtype)
    if kind is str:
        return np.asarray([str(value) for value in values])
    if kind is not int:
        return np.asarray(values)
    whole = [int(value) for value in values]  # type: ignore[call-overload]  # all are whole numbers
    for limits in (np.iinfo(np.int64), np.iinfo(np.uint64)):
        if limits.min <= min(whole) and max(whole) <= limits.max:
            return np.asarray(whole, dtype=limits.dtype)
    raise DataError(f"y holds a whole number that takes more than 64 bits: {max(whole, key=abs)}. Give it as a string.")


def _objects(values: Sequence[object]) -> "NDArray[np.generic]":
    labels = np.empty(len(values), dtype=object)
    labels[:] = values
    return labels


def _check_text(labels: "NDArray[np.generic]") -> None:
    for label in np.unique(labels).tolist():
        try:
            word = label.decode() if isinstance(label, bytes) else label
            word.encode()
        except UnicodeError as error:
            half = "it holds a lone surrogate" if isinstance(label, str) else f"the bytes {label!r}"
            raise DataError(f"y holds a label that is not Unicode text ({half}).") from error
        if word in WRITTEN_MISSING:
            raise DataError(f"y holds the label {label!r}, which is how a missing value reads as text; leave it out.")
        if not word.strip():
            row = labels.tolist().index(label)
            raise DataError(f"y has no label in row {row}: {label!r} is empty or white space. Leave such rows out.")


def _check_whole(labels: "NDArray[np.generic]") -> None:
    numbers = labels.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError("y holds a label that is not a number (NaN or infinite).")
    if not (numbers == np.floor(numbers)).all():
        raise DataError("y is continuous (it holds fractions); a classifier needs classes: strings or whole numbers.")


def one_but_for_case(names: Iterable[str]) -> list[str]:
    """A line for names that differ only in capital letters: they are probably one class, written in several ways."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(name.casefold(), []).append(name)
    alike = [" and ".join(visible(repr(each)) for each in found) for found in spellings.values() if len(found) > 1]
    more = [f"{len(alike) - 3} more groups of labels"] if len(alike) > 3 else []
    said = "differ only in capital letters and are separate classes; write them alike if they are one"
    return [f"{each} {said}" for each in alike[:3] + more]
