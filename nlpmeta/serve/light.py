"""Compiled models that are served without PyTorch: probabilities, and answers by the names of classes alone."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.classifier.light import LightClassifier, LightEncoder, LightNames
from nlpmeta.encoder.engines import Engine, takes_compiled
from nlpmeta.encoder.tokenizing import BATCH_TOKENS
from nlpmeta.serve.batching import LEAST_ROWS, Read, about_tokens
from nlpmeta.storage.manifest import MANIFEST

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LightEmbedder:
    """A compiled encoder with the embeddings that it made last, by text; PyTorch is not needed."""

    pass_tokens = BATCH_TOKENS

    def __init__(self, encoder: LightEncoder, *, most_bytes: int) -> None:
        self.encoder, self._most_bytes = encoder, most_bytes
        self._rows: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def tokens(self, text: str) -> int:
        """About how many tokens a text has."""
        return about_tokens(text, self.encoder.max_length)

    def embedding(self) -> AbstractContextManager[object]:
        """Nothing to prepare."""
        return nullcontext()

    def warm(self, texts: Sequence[str]) -> None:
        """Embed texts together whose answers are asked for next."""
        self(texts)

    def __call__(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Embeddings ``(len(texts), dim)``."""
        with self._lock:
            found = {text: self._rows[text] for text in texts if text in self._rows}
        if new := [text for text in dict.fromkeys(texts) if text not in found]:
            found |= dict(zip(new, self.encoder.embed(new), strict=True))
        rows = np.stack([found[text] for text in texts])
        most = max(LEAST_ROWS, self._most_bytes // rows[0].nbytes)
        with self._lock:
            for text, row in found.items():
                self._rows[text] = row.copy() if text in new else row
                self._rows.move_to_end(text)
            while len(self._rows) > most:
                self._rows.popitem(last=False)
        return rows


@dataclass(frozen=True, eq=False)
class LightServed:
    """A compiled model that answers with probabilities and nothing else."""

    name: str
    classifier: LightClassifier
    embedder: LightEmbedder
    version: int = 0
    shares: bool = True

    @property
    def classes(self) -> "NDArray[np.generic]":
        """Its labels."""
        return self.classifier.classes_

    def answers(self, texts: Sequence[str], owners: Sequence[str]) -> Sequence[object]:
        """The probabilities of each text, ``(n_way,)``."""
        return list(self.classifier.heads.probabilities(self.embedder(texts)))

    def read(self, rows: Sequence[object], abstain: float | None) -> Read:
        """What ``answers`` gave; label sets are not known."""
        return Read(np.stack([np.asarray(row) for row in rows]))


class LightModels:
    """The compiled ones among saved models, and what is compiled of the checkpoint that new models start from."""

    def __init__(
        self, folders: Mapping[str, Path], checkpoint: Path | None, *, engine: Engine, device: str, cache_bytes: int
    ) -> None:
        self._folders, self._engine, self._cache_bytes = folders, engine, cache_bytes
        self._able = takes_compiled(device, engine)
        self._embedders: dict[object, LightEmbedder] = {}
        self._loaded: dict[str, LightServed] = {}
        self._lock = threading.Lock()
        able = self._able and checkpoint is not None
        self._names = LightNames.of_checkpoint(checkpoint, engine) if able and checkpoint is not None else None

    def loaded(self, name: str) -> LightServed | None:
        """A saved model, if it was asked for before and is compiled."""
        return self._loaded.get(name)

    def get(self, name: str) -> LightServed | None:
        """A saved model, ``None`` if it is not compiled."""
        if not self._able or name not in self._folders:
            return None
        if name not in self._loaded and (found := LightClassifier.of_folder(self._folders[name], self._engine)):
            self._loaded.setdefault(name, LightServed(name, found, self._embedder(found.encoder)))
        return self._loaded.get(name)

    def zero_shot(self, descriptions: Mapping[str, str]) -> LightServed | None:
        """A model of the names and descriptions of classes, ``None`` if the checkpoint is not compiled.

        Raises:
            DataError: if nothing says in words what a class is.
        """
        if self._names is None:
            return None
        said = {name: text for name, text in descriptions.items() if text}
        found = self._names.classifier(list(descriptions), said or None)
        return LightServed("", found, self._embedder(found.encoder))

    def _embedder(self, encoder: LightEncoder) -> LightEmbedder:
        key = (encoder.name, encoder.prefix, encoder.max_length, encoder.windows)
        with self._lock:
            return self._embedders.setdefault(key, LightEmbedder(encoder, most_bytes=self._cache_bytes))


def saved_models(folder: Path) -> dict[str, Path]:
    """The saved models in a folder, by name."""
    if not folder.is_dir():
        return {}
    return {each.name: each for each in sorted(folder.iterdir()) if (each / MANIFEST).is_file()}
