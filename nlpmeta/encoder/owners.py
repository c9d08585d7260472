"""One forward pass for the texts of many users, each with adapters of their own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nlpmeta.encoder.batches import BATCH_TOKENS, length_batches

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

_WEIGHT = ".weight"


@torch.inference_mode()
def encode_for_owners(
    encoder: "TextEncoder",
    texts: Sequence[str],
    adapters: Mapping[str, Tensor],
    owners: Sequence[int],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Tensor:
    """Embeddings ``(n, dim)``, each text with the adapters of its owner.

    The thin matrices of a batch are multiplied as a batch, while the frozen weights serve all rows at once. Source of
    the idea: S-LoRA, Sheng et al., MLSys 2024 (arXiv:2311.03285), section 5; ours is plain batched matrix products.

    Args:
        encoder: with adapters in the places that ``adapters`` names.
        texts: the texts.
        adapters: by the name of an adapter weight, those of all owners, ``(n_owners, ...)``; none for the stored ones.
        owners: for each text, the row of ``adapters`` that is its own.
        batch_tokens: tokens of a batch, padding included.
    """
    tokens, owner = encoder.tokenize(texts), torch.tensor(list(owners), dtype=torch.long)
    groups = length_batches([len(ids) for ids in tokens], batch_tokens=batch_tokens)
    parts = []
    for group in groups:
        with _in_place(encoder, {name: stacked[owner[group]] for name, stacked in adapters.items()}):
            parts.append(encoder.embed_batch([tokens[row] for row in group]))
    order = torch.tensor([row for group in groups for row in group], device=encoder.device)
    return torch.cat(parts)[order.argsort()]


@contextmanager
def _in_place(encoder: "TextEncoder", rows: Mapping[str, Tensor]) -> Iterator[None]:
    """For a block, a matrix of its own for every row of the batch in place of an adapter's weight.

    Args:
        encoder: with adapters.
        rows: by the name of a weight, ``(n_rows, out, in)``.
    """
    modules = dict(encoder.backbone.named_modules())
    handles = []
    try:
        for name, weights in rows.items():
            handles.append(modules[name.removesuffix(_WEIGHT)].register_forward_hook(_multiply(weights)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _multiply(weights: Tensor) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return inputs[0] @ weights.to(inputs[0]).transpose(1, 2)  # (n_rows, n_tokens, in) @ (n_rows, in, out)

    return hook
