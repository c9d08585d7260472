"""How texts of different lengths share forward passes: sorted by length, cut by a token budget, order restored."""

from collections.abc import Sequence

BATCH_TOKENS = 1024
"""Padded tokens of one forward pass. On two CPU cores 512 to 1,024 came closest to the matrix-product ceiling."""


def length_batches(lengths: Sequence[int], *, batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Rows grouped so that each group, padded to its longest, holds at most ``batch_tokens`` tokens.

    Args:
        lengths: tokens of each text.
        batch_tokens: the budget; a text longer than that is a group of its own.

    Returns:
        Groups of row numbers, long texts last; every row is in one group.
    """
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and (len(groups[-1]) + 1) * lengths[row] <= batch_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
