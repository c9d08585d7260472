"""Embeddings that are computed once per text, and if asked kept on disk for the next run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nlpmeta.encoder.guard import Guard
from nlpmeta.encoder.store import EmbeddingStore
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.progress import track

CHUNK = 1024
"""Texts between two writes to disk: what a run that is killed can lose."""


class Remembered:
    """The embeddings of a handful of texts, such as class names, each computed when it is first asked for.

    The encoder must not change while this lives.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder, self._guard = encoder, Guard()
        self._known: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of ``texts`` in their order, shape ``(len(texts), dim)``."""
        with self._guard:
            missing = [text for text in dict.fromkeys(texts) if text not in self._known]
            if missing:
                self._known.update(zip(missing, self.encoder.encode(missing), strict=True))
        return torch.stack([self._known[text] for text in texts])


class EmbeddingTable:
    """The embeddings of a frozen encoder, each distinct text encoded once.

    The encoder must not change while the table lives.
    """

    def __init__(self, encoder: TextEncoder, folder: Path | None = None) -> None:
        """Start an empty table.

        Args:
            encoder: what embeds.
            folder: where embeddings are kept between runs (``store.embeddings_folder()`` is the usual place); ``None``
                keeps them in memory only, and so does an encoder with trainable weights or without a model folder.
        """
        self.encoder, self._guard = encoder, Guard()
        self.n_encoded = 0
        """Texts that this table had to encode."""
        self._row: dict[str, int] = {}
        self._vectors = torch.empty(0, encoder.dim, device="cpu")
        self._store = None if folder is None else EmbeddingStore.of(encoder, folder)

    def prime(self, texts: Sequence[str], *, show_progress: bool = False) -> None:
        """Make sure that all of ``texts`` are in the table; those that were never embedded are, in one sorted pass."""
        with self._guard:
            missing = [text for text in dict.fromkeys(texts) if text not in self._row]
            if missing and self._store is not None:
                self._add(*self._store.read(missing))
                missing = [text for text in missing if text not in self._row]
            if missing:
                self._encode(sorted(missing, key=len), show_progress)  # neighbours then need little padding

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of ``texts`` in their order, shape ``(len(texts), dim)``, where the encoder is."""
        self.prime(texts)
        rows = torch.tensor([self._row[text] for text in texts], dtype=torch.long, device="cpu")
        return self._vectors[rows].to(self.encoder.device)

    def _encode(self, texts: list[str], show_progress: bool) -> None:
        parts, encoder = [], self.encoder.merged()
        with track("Encoding", len(texts), show=show_progress) as advance, torch.no_grad():
            for start in range(0, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                tokens = encoder.tokenize(chunk)
                parts.append(encoder.embed_tokens(tokens, advance=advance).float().cpu())
                if self._store is not None:
                    self._store.write(chunk, parts[-1])
        self.n_encoded += len(texts)
        self._add(texts, torch.cat(parts))

    def _add(self, texts: Sequence[str], vectors: Tensor) -> None:
        first = len(self._vectors)
        self._vectors = torch.cat([self._vectors, vectors])  # before their rows are known: others may be reading
        self._row.update({text: first + i for i, text in enumerate(texts)})
