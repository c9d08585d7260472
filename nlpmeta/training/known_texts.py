"""Embeddings of an encoder that does not train, computed once: training then costs what the learner itself costs."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nlpmeta.encoder.cache import CHUNK
from nlpmeta.encoder.store import EmbeddingStore
from nlpmeta.encoder.text_encoder import TextEncoder

MOST_BYTES = 400_000_000
"""Embeddings that are held in memory; what was used longest ago gives way, and is read from disk when it comes back."""
_START = 1024  # rows


class KnownTexts:
    """The embeddings of a fixed encoder by text: in memory up to a bound, on disk beyond it and for the next run."""

    def __init__(self, encoder: TextEncoder, folder: Path | None, *, most_bytes: int = MOST_BYTES) -> None:
        """Start empty.

        Args:
            encoder: must not change while this lives.
            folder: where embeddings are kept; ``None`` keeps them in memory alone. So does an encoder that was built in
                memory.
            most_bytes: in memory.
        """
        self.n_encoded, self.n_tokens = 0, 0
        self._encoder = encoder
        self._store = None if folder is None else EmbeddingStore.of(encoder, folder)
        self._most = max(1, most_bytes // (4 * encoder.dim))
        self._vectors = torch.empty(min(_START, self._most), encoder.dim)
        self._row: dict[str, int] = {}  # in the order of use, the longest unused first

    @property
    def nbytes(self) -> int:
        """Bytes of the embeddings in memory."""
        return self._vectors.nbytes

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of ``texts``, ``(len(texts), dim)``."""
        distinct = list(dict.fromkeys(texts))
        missing = [text for text in distinct if text not in self._row]
        found = self._fetched(missing)
        for text in distinct:
            if text in self._row:
                self._row[text] = self._row.pop(text)
        vectors = torch.empty(len(distinct), self._encoder.dim)
        held = [i for i, text in enumerate(distinct) if text in self._row]
        vectors[held] = self._vectors[[self._row[distinct[i]] for i in held]]
        for i, text in enumerate(distinct):
            if text in found:
                vectors[i] = found[text]
                self._keep(text, found[text])
        number = {text: i for i, text in enumerate(distinct)}
        return vectors[[number[text] for text in texts]].to(self._encoder.device)

    def _fetched(self, missing: list[str]) -> dict[str, Tensor]:
        """Embeddings that are not in memory: from disk, else from the encoder."""
        found: dict[str, Tensor] = {}
        if missing and self._store is not None:
            texts, vectors = self._store.read(missing)
            found = dict(zip(texts, vectors, strict=True))
        new = sorted((text for text in missing if text not in found), key=len)
        for start in range(0, len(new), CHUNK):
            chunk = new[start : start + CHUNK]
            tokens = self._encoder.tokenize(chunk)
            vectors = self._encoder.merged().embed_tokens(tokens).float().cpu()
            self.n_encoded += len(chunk)
            self.n_tokens += sum(map(len, tokens))
            if self._store is not None:
                self._store.write(chunk, vectors)
            found |= dict(zip(chunk, vectors, strict=True))
        return found

    def _keep(self, text: str, vector: Tensor) -> None:
        if len(self._row) < self._most:
            row = len(self._row)
            if row == len(self._vectors):
                more = torch.empty(min(len(self._vectors), self._most - row), self._encoder.dim)
                self._vectors = torch.cat([self._vectors, more])
        else:
            row = self._row.pop(next(iter(self._row)))
        self._row[text] = row
        self._vectors[row] = vector


class KnownPass:
    """What ``TextPass`` is to an encoder that trains: the embeddings of a step, with nothing to carry back."""

    def __init__(self, known: KnownTexts, texts: Iterable[str]) -> None:
        distinct = list(dict.fromkeys(texts))
        before = known.n_tokens
        self.features = known(distinct)
        self.n_texts, self.n_tokens = len(distinct), known.n_tokens - before
        self._row = {text: row for row, text in enumerate(distinct)}

    def of(self, texts: Sequence[str], features: Tensor | None = None) -> Tensor:
        """The embeddings of ``texts``, shape ``(len(texts), dim)``, or their rows in other ``features``."""
        rows = torch.tensor([self._row[text] for text in texts], device=self.features.device, dtype=torch.long)
        return (self.features if features is None else features).index_select(0, rows)

    def backward(self) -> None:
        """Nothing: the encoder does not train."""

    def frozen(self) -> Tensor:
        """The embeddings that an anchor would hold on to are these."""
        return self.features
