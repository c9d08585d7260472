"""Texts to vectors that are computed once: one table, in memory and, if asked, on disk for the next run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import Self

from nlpmeta.encoder.guard import Guard
from nlpmeta.encoder.store import EmbeddingStore
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.progress import track

CHUNK = 1024
"""Texts between two writes to disk: what a run that is killed can lose."""


class EmbeddingTable:
    """The embeddings of an encoder, each distinct text encoded once, by any number of threads.

    The encoder must not change while the table lives.
    """

    def __init__(self, encoder: TextEncoder, folder: Path | None = None, *, most_bytes: int | None = None) -> None:
        """Start an empty table.

        Args:
            encoder: what embeds.
            folder: where embeddings are kept between runs (``store.embeddings_folder()`` is the usual place); ``None``
                keeps them in memory only, and so does an encoder with trainable weights or without a model folder.
            most_bytes: of the embeddings in memory; what was used longest ago gives way, and is read from disk or
                encoded again when it comes back. ``None`` keeps all.
        """
        self.encoder, self._guard = encoder, Guard()
        self.n_encoded, self.n_tokens = 0, 0
        """Texts that this table had to encode, and their tokens."""
        self._row: dict[str, int] = {}  # under a bound in the order of use, the longest unused first
        self._vectors = torch.empty(0, encoder.dim, device="cpu")
        self._most = None if most_bytes is None else max(1, most_bytes // (4 * encoder.dim))
        self._store = None if folder is None else EmbeddingStore.of(encoder, folder)

    @classmethod
    def of(cls, encoder: TextEncoder, texts: Sequence[str], vectors: Tensor) -> Self:
        """A table that holds the embeddings ``(len(texts), dim)`` of distinct texts, which stay where they are."""
        table = cls(encoder)
        table._row, table._vectors = {text: row for row, text in enumerate(texts)}, vectors
        return table

    @property
    def nbytes(self) -> int:
        """Bytes of the embeddings in memory."""
        return self._vectors.nbytes

    def prime(self, texts: Sequence[str], *, show_progress: bool = False) -> None:
        """Make sure that all of ``texts`` are in the table; those that were never embedded are, in one sorted pass."""
        with self._guard:
            self._keep(*self._fetched(texts, show_progress))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of ``texts`` in their order, shape ``(len(texts), dim)``, where the encoder is."""
        with self._guard:
            fetched, new = self._fetched(texts)
            number = {text: row for row, text in enumerate(fetched)}
            held = [i for i, text in enumerate(texts) if text not in number]
            others = [i for i, text in enumerate(texts) if text in number]
            found = self._vectors.new_empty(len(texts), self.encoder.dim)
            found[held] = self._vectors[[self._row[texts[i]] for i in held]]
            found[others] = new[[number[texts[i]] for i in others]]
            for i in held if self._most is not None else ():
                self._row[texts[i]] = self._row.pop(texts[i])
            self._keep(fetched, new)
        return found.to(self.encoder.device)

    @torch.no_grad()
    def _fetched(self, texts: Sequence[str], show_progress: bool = False) -> tuple[list[str], Tensor]:
        """Those of ``texts`` that are not in memory and their embeddings: from disk, else from the encoder."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._row]
        found, parts = list[str](), [self._vectors[:0]]
        if missing and self._store is not None:
            found, read = self._store.read(missing)
            parts.append(read)
            known = set(found)
            missing = [text for text in missing if text not in known]
        missing.sort(key=len)  # neighbours then need little padding
        return [*found, *missing], torch.cat([*parts, *self._encoded(missing, show_progress)])

    def _encoded(self, texts: list[str], show_progress: bool) -> list[Tensor]:
        if not texts:
            return []
        parts, encoder = list[Tensor](), self.encoder.merged()
        with track("Encoding", len(texts), show=show_progress) as advance:
            for start in range(0, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                tokens = encoder.tokenize(chunk)
                parts.append(encoder.embed_tokens(tokens, advance=advance).float().to(self._vectors.device))
                self.n_encoded, self.n_tokens = self.n_encoded + len(chunk), self.n_tokens + sum(map(len, tokens))
                if self._store is not None:
                    self._store.write(chunk, parts[-1])
        return parts

    def _keep(self, texts: Sequence[str], vectors: Tensor) -> None:
        """Put new texts into the table; under a bound they take the places of those that were used longest ago."""
        if self._most is None:
            first = len(self._vectors)
            self._vectors = torch.cat([self._vectors, vectors]) if len(texts) else self._vectors
            self._row.update({text: first + i for i, text in enumerate(texts)})
            return
        room = min(self._most, len(self._row) + len(texts))
        if room > len(self._vectors):
            size = min(self._most, max(room, 2 * len(self._vectors)))
            more = self._vectors.new_empty(size - len(self._vectors), self.encoder.dim)
            self._vectors = torch.cat([self._vectors, more])
        for text, vector in zip(texts, vectors, strict=True):
            row = len(self._row) if len(self._row) < self._most else self._row.pop(next(iter(self._row)))
            self._row[text] = row
            self._vectors[row] = vector
