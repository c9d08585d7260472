"""The examples that a classifier has learned from: checked, and how they change while it is in use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError, visible
from nlpmeta.files import read_json, write_bytes, write_json
from nlpmeta.inputs import is_missing, values_of
from nlpmeta.labels import checked_labels, classes_of, joined, kind_of, like, plain, words_of
from nlpmeta.tensors import read_tensors

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

TEXTS_FILE, FEATURES_FILE = "support.json", "support.safetensors"
_LARGEST_FEATURE = 1e4  # embeddings are of unit length, or of some hundred where they are not scaled


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts with a label each, ``(n,)``, their embeddings ``(n, dim)`` where known, and the classes in their order.

    Embeddings may be there for the first texts only: those of texts that came later are still to be computed.
    """

    texts: tuple[str, ...]
    labels: "NDArray[np.generic]"
    features: Tensor | None
    classes: "NDArray[np.generic]"
    weights: "NDArray[np.float64] | None" = None
    """How many texts each counts as, ``(n,)``; one each if not given."""

    @classmethod
    def of(
        cls,
        texts: tuple[str, ...],
        labels: "NDArray[np.generic]",
        features: Tensor | None = None,
        weights: "NDArray[np.float64] | None" = None,
    ) -> "Examples":
        """Examples whose classes are the labels, sorted."""
        return cls(texts, labels, features, classes_of(labels), weights)

    def weighed(self, weights: "NDArray[np.float64] | None") -> "Examples":
        """With weights, and without the examples whose weight is 0.

        Raises:
            DataError: if no example of some class is left.
        """
        if weights is None:
            return self
        kept = np.flatnonzero(weights > 0)
        gone = [label for label in self.classes.tolist() if label not in set(self.labels[kept].tolist())]
        if gone:
            raise DataError(
                f"Every example of the class {gone[0]!r} has the weight 0; leave it out of y or give it some."
            )
        return Examples(tuple(self.texts[row] for row in kept), self.labels[kept], None, self.classes, weights[kept])

    def data(self) -> LabeledTexts:
        """The same as labelled texts; classes are numbered in their order."""
        number = {label: i for i, label in enumerate(self.classes.tolist())}
        return LabeledTexts(self.texts, tuple(number[label] for label in self.labels.tolist()), words_of(self.classes))

    def embedded(self, embed: Callable[[Sequence[str]], Tensor]) -> "Examples":
        """With embeddings for every text; only those that are missing are computed."""
        known = 0 if self.features is None else len(self.features)
        if self.features is not None and known == len(self.texts):
            return self
        new = embed(self.texts[known:])
        features = new if self.features is None else torch.cat([self.features, new])
        return replace(self, features=features)

    def plus(self, texts: tuple[str, ...], labels: "NDArray[np.generic]") -> "Examples":
        """With more examples.

        Raises:
            DataError: if the new labels are of another kind: numbers among names.
        """
        weights = None if self.weights is None else np.concatenate([self.weights, np.ones(len(texts))])
        return Examples.of(self.texts + texts, joined(self.labels, labels), self.features, weights)

    def without(self, number: int) -> "Examples":
        """Without the examples of a class."""
        kept = np.flatnonzero(self.labels != self.classes[number])
        features = None if self.features is None else self.features[torch.from_numpy(kept).to(self.features.device)]
        weights = None if self.weights is None else self.weights[kept]
        return Examples.of(tuple(self.texts[row] for row in kept), self.labels[kept], features, weights)

    def renamed(self, number: int, label: object) -> "Examples":
        """With another label for a class.

        Raises:
            DataError: if the new label is of another kind.
        """
        old = self.classes.tolist()[number]
        if kind_of(label) is not kind_of(old):
            raise DataError(f"The new label {label!r} is not of the kind of the old one, {old!r}.")
        new = [label if each == old else each for each in self.labels.tolist()]
        return Examples.of(self.texts, checked_labels(new), self.features, self.weights)


def write_examples(folder: Path, examples: Examples) -> None:
    """Write texts and labels as JSON, embeddings as safetensors."""
    from safetensors.torch import save

    weights = {} if examples.weights is None else {"weights": examples.weights.tolist()}
    write_json(folder / TEXTS_FILE, {"texts": list(examples.texts), "labels": plain(examples.labels), **weights})
    if examples.features is not None:
        write_bytes(folder / FEATURES_FILE, save({"features": examples.features.cpu().contiguous()}))


def read_examples(folder: Path, classes: "NDArray[np.generic]", device: torch.device) -> Examples | None:
    """What ``write_examples`` wrote; ``None`` if it did not.

    Raises:
        ModelFolderError: if a file is damaged or does not fit the classes.
    """
    path = folder / TEXTS_FILE
    if not path.is_file():
        return None
    try:
        found = cast("dict[str, list[object]]", read_json(path))
        texts, labels = tuple(map(str, found["texts"])), like(found["labels"], classes)
        weights = checked_weights(found.get("weights"), len(texts))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, NLPMetaError):
            raise
        raise ModelFolderError(f"{path} is damaged ({error}). Save the model again.") from error
    has_features = (folder / FEATURES_FILE).is_file()
    features = read_tensors(folder / FEATURES_FILE).get("features") if has_features else None
    fits = labels.shape == (len(texts),) and is_unicode("".join(texts))
    fits = fits and (features is None or _are_embeddings(features, len(texts)))
    if not fits or set(labels.tolist()) != set(classes.tolist()):
        raise ModelFolderError(f"{path} does not fit the other files of the model. Save the model again.")
    return Examples(texts, labels, None if features is None else features.to(device), classes, weights)


def _are_embeddings(features: torch.Tensor, n: int) -> bool:
    """Whether these can be embeddings ``(n, dim)``; heads cannot be solved with numbers that are far larger."""
    if features.ndim != 2 or len(features) != n or features.dtype != torch.float32:
        return False
    return bool((features.abs() <= _LARGEST_FEATURE).all())


def checked_weights(sample_weight: object, n: int) -> "NDArray[np.float64] | None":
    """The weight of each of ``n`` texts, ``None`` if none are given.

    Raises:
        DataError: if one is no number from 0 on, all are 0, or there are not ``n``.
    """
    if sample_weight is None:
        return None
    values = values_of(sample_weight, name="sample_weight", what="numbers")
    if len(values) != n:
        raise DataError(f"There are {n} texts but sample_weight has {len(values)} numbers.")
    for row, value in enumerate(values):
        if kind_of(value) not in (int, float) or not np.isfinite(value) or value < 0:  # type: ignore[call-overload,operator]
            raise DataError(f"sample_weight must hold numbers from 0 on; row {row} is {visible(repr(value))[:40]}.")
    weights = np.asarray(values, dtype=np.float64)
    if not weights.any():
        raise DataError("Every number in sample_weight is 0: nothing is left to learn from.")
    return weights


def at_least_two(classes: "NDArray[np.generic]") -> None:
    """Refuse a task with one class.

    Raises:
        DataError: names it.
    """
    if len(classes) < 2:
        raise DataError(f"A classifier needs at least two classes; y has one: {classes.tolist()[0]!r}.")


def checked_texts(X: "Sequence[str] | ArrayLike") -> tuple[str, ...]:  # noqa: N803
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
            raise DataError(f"X must hold texts; row {row} is no Unicode text (it holds half a character).")
        texts.append(value)
    return tuple(texts)


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8; half of a surrogate pair cannot, and no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_pairs(
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
) -> "tuple[tuple[str, ...], NDArray[np.generic]]":
    """Texts and a label for each, checked.

    Raises:
        DataError: if a text or label cannot be used, or there are not as many of the one as of the other.
    """
    texts, labels = checked_texts(X), checked_labels(y)
    if len(texts) != len(labels):
        raise DataError(f"X has {len(texts)} texts but y has {len(labels)} labels.")
    return texts, labels
