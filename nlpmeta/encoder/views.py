"""One encoder seen several ways: with its adapters, and as it was before they were trained."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nlpmeta.encoder.text_encoder import TextEncoder, Tokens
from nlpmeta.progress import Advance

ADAPTED, FROZEN = 1.0, 0.0


class Views(TextEncoder):
    """Embeddings ``(n, n_views * dim)`` of an encoder whose adapters are scaled by one factor after the other.

    For a head that chooses between the adapted and the frozen encoder, or reads both. It shares the weights of the
    encoder that it is made from; no gradient goes through it.
    """

    def __init__(self, encoder: TextEncoder, factors: Sequence[float] = (ADAPTED, FROZEN)) -> None:
        nn.Module.__init__(self)
        self.backbone, self.tokenizer, self.files = encoder.backbone, encoder.tokenizer, encoder.files
        self.prefix, self.max_length, self.normalise = encoder.prefix, encoder.max_length, encoder.normalise
        self.factors, self.lower, self.training, self.trained = tuple(factors), None, False, encoder.trained
        self.dim = len(self.factors) * int(encoder.backbone.config.hidden_size)

    def select(self, factors: Sequence[float]) -> "Views":
        """The same encoder seen with these factors."""
        return Views(self, factors)

    def columns(self, factor: float) -> slice:
        """Where the embeddings with this factor stand."""
        width, place = self.dim // len(self.factors), self.factors.index(factor)
        return slice(place * width, (place + 1) * width)

    @torch.no_grad()
    def embed_tokens(
        self,
        tokens: Tokens,
        *,
        adapter: Mapping[str, Tensor] | None = None,
        adapter_of: Tensor | None = None,
        batch_tokens: int | None = None,
        advance: Advance | None = None,
    ) -> Tensor:
        if not tokens:
            return torch.empty(0, self.dim, device=self.device)
        parts: list[Tensor] = []
        for factor in self.factors:
            last = len(parts) + 1 == len(self.factors)  # only then is a text done
            seen = super().merged(factor)
            parts.append(seen.embed_tokens(tokens, batch_tokens=batch_tokens, advance=advance if last else None))
        return torch.cat(parts, dim=1)

    def merged(self, factor: float | None = None) -> TextEncoder:
        """Itself, as each view merges for itself, or the view with ``factor``."""
        return self if factor is None else super().merged(factor)
