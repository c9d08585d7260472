"""All texts of a step through the encoder at once, with bounded memory, or from a table if it does not train."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from nlpmeta.encoder.cache import EmbeddingTable
from nlpmeta.encoder.device import BATCH_TOKENS, length_batches
from nlpmeta.encoder.text_encoder import TextEncoder, Tokens


class TokenCache:
    """The tokens of every text that was asked for, each tokenised once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._ids: dict[str, torch.Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if missing:
            ids = self._encoder.tokenize(missing)
            self._ids.update(zip(missing, (torch.tensor(row, dtype=torch.int32) for row in ids), strict=True))
        return [self._ids[text].tolist() for text in texts]


@dataclass
class _Chunk:
    """Texts that share a forward pass; ``output`` has a graph where there was room for its activations."""

    rows: Tensor
    tokens: Tokens
    output: Tensor | None
    randomness: Tensor | None


class TextPass:
    """Embeddings of the distinct texts of a step, and the way back from their gradients to the encoder's weights.

    Up to ``keep_tokens`` tokens keep their activations; texts beyond that are embedded without a graph first and, when
    the gradient of the loss in their embeddings is known, once more with one, chunk by chunk, so that memory does not
    grow with the number of texts. The gradients are the same either way.

    Source: GradCache, Gao, Zhang, Han and Callan, RepL4NLP 2021 (arXiv:2101.06983). Where we differ: what fits in
    memory is not computed twice.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        tokens: TokenCache,
        texts: Iterable[str],
        *,
        accelerator: Accelerator,
        keep_tokens: int,
    ) -> None:
        distinct = list(dict.fromkeys(texts))
        self._row = {text: row for row, text in enumerate(distinct)}
        self._encoder, self._accelerator = encoder, accelerator
        ids = tokens(distinct)
        self.n_texts, self.n_tokens = len(ids), sum(map(len, ids))
        budget = min(BATCH_TOKENS, keep_tokens)
        groups = length_batches([len(row) for row in ids], batch_tokens=budget)
        self._chunks: list[_Chunk] = []
        features = torch.empty(len(ids), encoder.dim, device=encoder.device)
        kept = 0
        for group in reversed(groups):  # long texts first: their chunks gain most from being kept
            part = [ids[row] for row in group]
            kept += len(part) * max(map(len, part))
            rows = torch.tensor(group, device=encoder.device)
            chunk = self._first_pass(rows, part, keep=kept <= keep_tokens, features=features)
            self._chunks.append(chunk)
        self.features = features.requires_grad_()

    def of(self, texts: Sequence[str], features: Tensor | None = None) -> Tensor:
        """The embeddings of ``texts``, shape ``(len(texts), dim)``, or their rows in other ``features``."""
        rows = torch.tensor([self._row[text] for text in texts], device=self.features.device, dtype=torch.long)
        return (self.features if features is None else features).index_select(0, rows)

    def backward(self) -> None:
        """Carry the gradients that reached ``features`` on to the encoder's weights, where they are added."""
        gradient = self.features.grad
        if gradient is None:
            return
        for chunk in self._chunks:
            output = chunk.output if chunk.output is not None else self._again(chunk)
            torch.autograd.backward(output, gradient[chunk.rows].to(output.dtype))
            chunk.output = None

    @torch.no_grad()
    def frozen(self) -> Tensor:
        """What the encoder makes of the same texts without its adapters, in the order of ``features``."""
        vectors, encoder = torch.empty_like(self.features), self._encoder.merged(0.0)
        with self._accelerator.autocast():
            for chunk in self._chunks:
                vectors[chunk.rows] = encoder.embed_tokens(chunk.tokens, batch_tokens=1 << 30).to(vectors.dtype)
        return vectors

    def _first_pass(self, rows: Tensor, tokens: Tokens, *, keep: bool, features: Tensor) -> _Chunk:
        randomness = None if keep else torch.get_rng_state()
        with torch.set_grad_enabled(keep), self._accelerator.autocast():
            output = self._encoder.embed_tokens(tokens, batch_tokens=1 << 30)
        with torch.no_grad():
            features[rows] = output.detach().to(features.dtype)
        return _Chunk(rows, tokens, output if keep else None, randomness)

    def _again(self, chunk: _Chunk) -> Tensor:
        """The second pass, with the same dropout as the first."""
        with torch.random.fork_rng(devices=[]), self._accelerator.autocast():
            if chunk.randomness is not None:
                torch.set_rng_state(chunk.randomness)
            return self._encoder.embed_tokens(chunk.tokens, batch_tokens=1 << 30)


class KnownPass:
    """What ``TextPass`` is to an encoder that trains: the embeddings of a step, with nothing to carry back."""

    def __init__(self, known: EmbeddingTable, texts: Iterable[str]) -> None:
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
