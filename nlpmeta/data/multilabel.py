"""None, one or several labels per text: label sets and 0/1 matrices as users give them, and as they are kept."""

from collections import Counter
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, cast

import numpy as np

from nlpmeta.data import LABEL_SEPARATOR, Column, LabeledTexts
from nlpmeta.data.inputs import is_missing, values_of
from nlpmeta.data.labels import checked_labels, classes_of, kind_of
from nlpmeta.errors import DataError, visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SETS = (list, tuple, set, frozenset)


@dataclass(frozen=True, eq=False)
class Marks:
    """Which of the ``classes`` ``(n_labels,)`` each text has: ``matrix`` ``(n, n_labels)`` of booleans.

    ``as_matrix`` says that they were given as a 0/1 matrix, so that predictions come as one too.
    """

    matrix: "NDArray[np.bool_]"
    classes: "NDArray[np.generic]"
    as_matrix: bool = False

    def __len__(self) -> int:
        return len(self.matrix)


def gives_several(y: object, multilabel: bool | None) -> bool:
    """Whether ``y`` holds label sets or a 0/1 matrix, by itself or because ``multilabel`` says so.

    Nothing in ``y`` says it where it is empty, a matrix of one column, or holds one label in each row: one label per
    text is then assumed.
    """
    if multilabel is not None:
        return multilabel
    shape = getattr(y, "shape", None)
    if isinstance(shape, tuple) and len(shape) == 2:
        return int(shape[1]) > 1 and (hasattr(y, "toarray") or _holds_marks(y))
    y = y.to_pylist() if hasattr(y, "to_pylist") else y
    if isinstance(y, str | bytes | dict) or not isinstance(y, Iterable) or not isinstance(y, Sized):
        return False
    rows = [each for each in y if isinstance(each, _SETS) or getattr(each, "ndim", 0) == 1]
    return bool(rows) and not (len(rows) == len(y) and all(len(each) == 1 for each in rows))


def checked_marks(y: object, classes: object = None, *, usual: object = None) -> Marks:
    """The labels of each text, checked.

    Args:
        y: a list of labels for each text, or a 0/1 matrix ``(n, n_labels)``, as scikit-learn's ``MultiLabelBinarizer``
            takes and gives them; a nested list of 0 and 1 with rows of one length is such a matrix.
        classes: the labels: for label sets all that there are, for a matrix the names of its columns in order.
        usual: the names of a matrix's columns, and the labels where ``y`` names none, if ``classes`` does not say.

    Raises:
        DataError: if a row is no set of labels, a label is missing, empty, unknown or spelt in two ways, or a matrix
            holds other values than 0 and 1 or is not as wide as ``classes``.
    """
    named = _named_classes(classes)
    columns = getattr(y, "columns", None)
    dense = y.toarray() if hasattr(y, "toarray") else y
    shape = getattr(dense, "shape", None)
    if isinstance(shape, tuple) and len(shape) == 2:
        if named is None and columns is not None and not callable(columns):
            named = _named_classes(list(columns))
        return _of_matrix(np.asarray(dense), _named_classes(usual) if named is None else named)
    rows = values_of(dense, name="y", what="label sets")
    sets = [_row(row, number) for number, row in enumerate(rows)]
    widths = {len(each) for each in sets}
    flat = [value for each in sets for value in each]
    if len(widths) == 1 and widths != {0} and widths != {1} and all(_is_mark(value) for value in flat):
        return _of_matrix(np.asarray(sets), _named_classes(usual) if named is None else named)
    return _of_sets(sets, flat, named if named is not None or flat else _named_classes(usual))


def named_classes(classes: object) -> "NDArray[np.generic]":
    """The labels in ``classes``, in their order.

    Raises:
        DataError: if there are none, or one is missing, empty or there twice.
    """
    named = values_of(classes, name="classes", what="labels")
    empty = [name for name in named if is_missing(name) or (isinstance(name, str | bytes) and not name.strip())]
    if empty or not named:
        raise DataError(
            f"classes must hold a name for each class; {f'it holds {empty[0]!r}' if empty else 'it is empty'}."
        )
    every = checked_labels(named)
    label, count = Counter(every.tolist()).most_common(1)[0]
    if count > 1:
        raise DataError(f"classes holds {label!r} twice.")
    return every


def _named_classes(classes: object) -> "NDArray[np.generic] | None":
    """``named_classes`` if there are any; two spellings of one label are refused too."""
    if classes is None:
        return None
    every = named_classes(classes)
    classes_of(every)
    return every


def _of_matrix(matrix: "NDArray[np.generic]", named: "NDArray[np.generic] | None") -> Marks:
    if matrix.dtype.kind not in "biuf" or not np.isin(matrix, (0, 1)).all():
        wrong = next(value for value in matrix.ravel().tolist() if not _is_mark(value))
        raise DataError(
            f"y is a matrix, so it must hold 0 and 1 alone (a column a label); it holds {visible(repr(wrong))[:40]}. "
            "Label sets are given as lists: [['joy', 'surprise'], []]."
        )
    if named is not None and len(named) != matrix.shape[1]:
        raise DataError(
            f"y has {matrix.shape[1]} columns and classes names {len(named)} labels; each column needs one name."
        )
    classes = np.arange(matrix.shape[1]) if named is None else named
    return Marks(matrix.astype(bool), classes, as_matrix=True)


def _of_sets(sets: Sequence[Sequence[object]], flat: Sequence[object], named: "NDArray[np.generic] | None") -> Marks:
    if not flat and named is None:
        raise DataError("No text in y has a label, and classes names none; say in classes which labels there are.")
    given = checked_labels(flat) if flat else cast("NDArray[np.generic]", named)[:0]
    if named is not None and len(given) and kind_of(named[0]) is not kind_of(given[0]):
        raise DataError(f"y holds {given.tolist()[0]!r} and classes {named.tolist()[0]!r}; write them as one type.")
    every = classes_of(given) if named is None else named
    number = {label: i for i, label in enumerate(every.tolist())}
    matrix = np.zeros((len(sets), len(every)), dtype=bool)
    values = iter(given.tolist())
    for row, each in enumerate(sets):
        for _ in each:
            label = next(values)
            if label not in number:
                raise DataError(f"y holds the label {label!r} in row {row}, which is none of the classes; add it.")
            matrix[row, number[label]] = True
    return Marks(matrix, every)


def _row(row: object, number: int) -> list[object]:
    """The labels of one text."""
    if isinstance(row, str | bytes):
        raise DataError(
            f"y must hold a list of labels for each text; row {number} is one string, {visible(repr(row))[:40]}. "
            f"Put it into a list ([{visible(repr(row))[:40]}]), or split it where it names several."
        )
    if not isinstance(row, _SETS) and getattr(row, "ndim", 0) != 1:
        shown = f"{visible(repr(row))[:40]} ({type(row).__name__})"
        raise DataError(
            f"y must hold a list of labels for each text, empty where it has none; row {number} is {shown}."
        )
    found = list(cast("Iterable[object]", row.tolist() if hasattr(row, "tolist") else row))
    for value in found:
        if is_missing(value) or (isinstance(value, str | bytes) and not value.strip()):
            what = "missing" if is_missing(value) else "empty"
            raise DataError(f"y has a label in row {number} that is {what} ({value!r}); leave it out of the list.")
        if isinstance(value, _SETS):
            raise DataError(f"y must hold a list of labels for each text; row {number} holds a list within the list.")
    return sorted(found, key=repr) if isinstance(row, set | frozenset) else found


def _is_mark(value: object) -> bool:
    return isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating) and value in (0, 1)


def _holds_marks(y: object) -> bool:
    """Whether a table with several columns is numbers or booleans: a matrix, not columns of text."""
    return np.asarray(y).dtype.kind in "biuf"


@dataclass(frozen=True)
class MultiLabelTexts:
    """Texts with none, one or several labels each: ``marks`` are places in ``label_names``, rising, a tuple a text.

    Raises:
        DataError: if there are neither texts nor labels, lengths differ, or a label repeats or is out of range.
    """

    texts: tuple[str, ...]
    marks: tuple[tuple[int, ...], ...]
    label_names: tuple[str, ...]
    langs: tuple[str, ...] | None = None
    descriptions: tuple[tuple[str, ...], ...] | None = None

    def __post_init__(self) -> None:
        if not self.texts and not self.label_names:
            raise DataError("There are no texts and no labels.")
        if len(self.texts) != len(self.marks):
            raise DataError(f"{len(self.texts)} texts came with the labels of {len(self.marks)}.")
        if len(set(self.label_names)) != len(self.label_names):
            raise DataError("Label names must differ.")
        if any(not 0 <= label < len(self.label_names) for each in self.marks for label in each):
            raise DataError(f"Labels must lie in 0..{len(self.label_names) - 1}.")

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def of(cls, data: LabeledTexts) -> "MultiLabelTexts":
        """The same texts, whose label names are sets of labels if ``data.several``, else one label each."""
        sets = [
            frozenset(filter(None, name.split(LABEL_SEPARATOR))) if data.several else frozenset([name])
            for name in data.label_names
        ]
        names = tuple(sorted(set().union(*sets)))
        number = {name: label for label, name in enumerate(names)}
        places = [tuple(sorted(number[name] for name in each)) for each in sets]
        return cls(data.texts, tuple(places[label] for label in data.labels), names, data.column(_LANGS))

    def names(self) -> list[list[str]]:
        """The labels of every text, in order."""
        return [[self.label_names[label] for label in each] for each in self.marks]

    def counts(self) -> dict[str, int]:
        """How many texts each label has, in the order of ``label_names``."""
        found = Counter(label for each in self.marks for label in each)
        return {name: found[label] for label, name in enumerate(self.label_names)}

    @property
    def n_unlabelled(self) -> int:
        """How many texts have no label."""
        return sum(not each for each in self.marks)

    def digest(self) -> str:
        """A digest of texts and labels in their order, as that of ``LabeledTexts``."""
        rows = zip(self.texts, map(label_set_name, self.names()), strict=True)
        return sha256("\x1e".join(f"{text}\x1f{name}" for text, name in rows).encode()).hexdigest()[:16]

    def matrix(self) -> "NDArray[np.bool_]":
        """Whether each text has each label, ``(n, n_labels)``."""
        found = np.zeros((len(self.texts), len(self.label_names)), dtype=bool)
        for row, each in enumerate(self.marks):
            found[row, list(each)] = True
        return found

    def select(self, rows: Sequence[int]) -> "MultiLabelTexts":
        """The given rows, in the given order, with the same label names."""
        texts, marks = tuple(self.texts[row] for row in rows), tuple(self.marks[row] for row in rows)
        langs = None if self.langs is None else tuple(self.langs[row] for row in rows)
        return replace(self, texts=texts, marks=marks, langs=langs)

    def with_labels(self, label_names: Sequence[str]) -> "MultiLabelTexts":
        """The same texts with these labels alone, numbered in the order given; a text may come to have none."""
        number = {name: label for label, name in enumerate(label_names)}
        marks = tuple(tuple(sorted(number[name] for name in each if name in number)) for each in self.names())
        return replace(self, marks=marks, label_names=tuple(label_names), descriptions=None)


_LANGS: Column = "langs"


def label_set_name(labels: Iterable[str]) -> str:
    """One name for a set of labels: how ``LabeledTexts`` keeps several labels per text; empty for none."""
    return LABEL_SEPARATOR.join(sorted(set(labels)))


def perhaps_several(names: Sequence[str]) -> list[str]:
    """A line if names of classes look like several labels each: there are fewer between the signs than names."""
    for sign in ";|,":
        parted = [name for name in names if sign in name]
        parts = {part.strip() for name in names for part in name.split(sign)}
        if len(parted) > 1 and len(parts) < len(names):
            some = f"{visible(repr(parted[0]))} and {len(parted) - 1} more"
            return [f"{some} look like several labels per text; if they are, add --label-separator '{sign}'"]
    return []
