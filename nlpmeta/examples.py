"""The examples that a classifier has learned from, and how they change while it is in use."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nlpmeta.checkpoint import read_tensors
from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError, ModelFolderError
from nlpmeta.files import write_bytes, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXTS_FILE, FEATURES_FILE = "support.json", "support.safetensors"


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts with a label each, ``(n,)``, their embeddings ``(n, dim)`` where known, and the classes in their order.

    Embeddings may be there for the first texts only: those of texts that came later are still to be computed.
    """

    texts: tuple[str, ...]
    labels: "NDArray[np.generic]"
    features: Tensor | None
    classes: "NDArray[np.generic]"

    @classmethod
    def of(cls, texts: tuple[str, ...], labels: "NDArray[np.generic]", features: Tensor | None = None) -> "Examples":
        """Examples whose classes are the labels, sorted."""
        return cls(texts, labels, features, np.unique(labels))

    def data(self) -> LabeledTexts:
        """The same as labelled texts; classes are numbered in their order."""
        number = {label: i for i, label in enumerate(self.classes.tolist())}
        names = tuple(str(label) for label in self.classes.tolist())
        return LabeledTexts(self.texts, tuple(number[label] for label in self.labels.tolist()), names)

    def embedded(self, embed: Callable[[Sequence[str]], Tensor]) -> "Examples":
        """With embeddings for every text; only those that are missing are computed."""
        known = 0 if self.features is None else len(self.features)
        if self.features is not None and known == len(self.texts):
            return self
        new = embed(self.texts[known:])
        features = new if self.features is None else torch.cat([self.features, new])
        return Examples(self.texts, self.labels, features, self.classes)

    def plus(self, texts: tuple[str, ...], labels: "NDArray[np.generic]") -> "Examples":
        """With more examples.

        Raises:
            DataError: if the new labels are of another kind: numbers among names.
        """
        if self.labels.dtype.kind != labels.dtype.kind:
            raise DataError(
                f"The new label {labels.tolist()[0]!r} is not of the kind of the known ones, such as "
                f"{self.labels.tolist()[0]!r}."
            )
        return Examples.of(self.texts + texts, np.concatenate([self.labels, labels]), self.features)

    def without(self, number: int) -> "Examples":
        """Without the examples of a class."""
        kept = np.flatnonzero(self.labels != self.classes[number])
        features = None if self.features is None else self.features[torch.from_numpy(kept).to(self.features.device)]
        return Examples.of(tuple(self.texts[row] for row in kept), self.labels[kept], features)

    def renamed(self, number: int, label: object) -> "Examples":
        """With another label for a class.

        Raises:
            DataError: if the new label is of another kind.
        """
        old = self.classes[number]
        new = [label if each == old.item() else each for each in self.labels.tolist()]
        changed = np.asarray(new)
        if changed.dtype.kind != self.labels.dtype.kind:
            raise DataError(f"The new label {label!r} is not of the kind of the old one, {old.item()!r}.")
        return Examples.of(self.texts, changed, self.features)


def write_examples(folder: Path, examples: Examples) -> None:
    """Write texts and labels as JSON, embeddings as safetensors."""
    from safetensors.torch import save

    write_json(folder / TEXTS_FILE, {"texts": list(examples.texts), "labels": examples.labels.tolist()})
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
        found = json.loads(path.read_text(encoding="utf-8"))
        texts, labels = tuple(map(str, found["texts"])), np.asarray(found["labels"], dtype=classes.dtype)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{path} is damaged ({error}). Save the model again.") from error
    has_features = (folder / FEATURES_FILE).is_file()
    features = read_tensors(folder / FEATURES_FILE).get("features") if has_features else None
    fits = len(texts) == len(labels) and (features is None or len(features) == len(texts))
    if not fits or set(labels.tolist()) != set(classes.tolist()):
        raise ModelFolderError(f"{path} does not fit the other files of the model. Save the model again.")
    return Examples(texts, labels, None if features is None else features.to(device), classes)
