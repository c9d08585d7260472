"""Texts of all processes side by side, for a loss that compares every text of a step with every other."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor


def texts_of_all(
    accelerator: Accelerator, features: Tensor, texts: Sequence[str], classes: Sequence[str]
) -> tuple[Tensor, list[str]]:
    """Embeddings ``(n, dim)`` and classes of the distinct texts of all processes, in the order of the processes.

    Gradients flow into this process's own ``features`` only. Every process then computes the same loss from the same
    numbers, and the sum of the gradients over the processes is the gradient of that one loss; as gradients are averaged
    later, such a loss has to be multiplied by the number of processes.
    """
    if accelerator.num_processes == 1:
        return features, list(classes)
    from accelerate.utils import gather_object, pad_across_processes

    sizes: list[int] = gather_object([len(texts)])
    padded = accelerator.gather(pad_across_processes(features.detach(), dim=0))
    parts = [part[:size] for part, size in zip(padded.split(max(sizes)), sizes, strict=True)]
    parts[accelerator.process_index] = features
    found: list[tuple[str, str]] = gather_object(list(zip(texts, classes, strict=True)))
    first: dict[str, int] = {}
    for row, (text, _) in enumerate(found):
        first.setdefault(text, row)
    rows = torch.tensor(list(first.values()), device=features.device)
    return torch.cat(parts).index_select(0, rows), [found[row][1] for row in first.values()]
