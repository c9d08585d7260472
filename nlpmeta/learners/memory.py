"""The external memory of a memory-augmented network: where it is read, where it is written, what is forgotten.

Source: Santoro, Bartunov, Botvinick, Wierstra and Lillicrap, ICML 2016 (arXiv:1605.06065), section 3.2. Shapes: ``n``
streams side by side, ``rows`` of the memory, ``dim`` of a key, ``heads``.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLANK = -1
"""The slot of a row that holds nothing."""
_FAR = -1e4  # a score that no other is below
_SMALLEST = 1e-12  # of a squared length


@dataclass(frozen=True, eq=False)
class Memory:
    """What is kept: ``keys`` ``(n, rows, dim)``, and of each row its slot, strength and usage, ``(n, rows)``.

    The slot is that of the row's class, the strength the number of examples that it stands for. A row belongs to one
    class: that is what a sum of orthonormal codes would say, read without error.
    """

    keys: Tensor
    slots: Tensor
    strength: Tensor
    usage: Tensor

    @classmethod
    def blank(cls, n: int, rows: int, dim: int, *, device: torch.device | str = "cpu") -> "Memory":
        """A memory that holds nothing."""
        return cls(
            torch.zeros(n, rows, dim, device=device),
            torch.full((n, rows), BLANK, device=device),
            torch.zeros(n, rows, device=device),
            torch.zeros(n, rows, device=device),
        )

    def read(self, keys: Tensor, sharpness: Tensor, strength_power: Tensor) -> Tensor:
        """The weight of each row for each head, ``(n, heads, rows)``: the softmax of scaled cosines, equation 2.

        Where we differ: a row that stands for several examples counts as so many to the power of ``strength_power``;
        blank rows have no weight (all of them are 0 where every row is blank).

        Args:
            keys: of the heads, ``(n, heads, dim)``; or of many texts on one stream.
            sharpness: what the cosines of each head are multiplied by, ``(heads,)``.
            strength_power: shape ``()``.
        """
        # Divided by the lengths after the product: the same cosines, without a second copy of the memory.
        lengths = self.keys.square().sum(2).clamp(min=_SMALLEST).sqrt().unsqueeze(1)
        cosines = F.normalize(keys, dim=2) @ self.keys.transpose(1, 2) / lengths
        held = (self.slots != BLANK).unsqueeze(1)
        prior = strength_power * self.strength.clamp(min=1).log().unsqueeze(1)
        scores = (cosines * sharpness.view(1, -1, 1) + prior).masked_fill(~held, _FAR)
        return scores.softmax(2) * held

    def least_used(self) -> Tensor:
        """The row of each stream that a new example may take, ``(n,)``; ``BLANK`` where there is none.

        Blank rows come first, then the least used. Where we differ from the paper: the only row of a class is never
        taken, so that no class is forgotten as a whole.
        """
        held = self.slots != BLANK
        place = self.slots + 1  # blank rows are counted under 0
        counts = place.new_zeros(len(place), int(place.max()) + 1).scatter_add(1, place, torch.ones_like(place))
        order = self.usage.masked_fill(~held, -1.0).masked_fill(held & (counts.gather(1, place) == 1), torch.inf)
        lowest, row = order.min(1)
        return row.masked_fill(lowest == torch.inf, BLANK)

    def write(self, key: Tensor, slot: Tensor, row: Tensor, merge: Tensor, read: Tensor, *, decay: float) -> "Memory":
        """Write an example of each stream; equations 5 to 8.

        ``merge`` decides between the rows that were read and the least used one; it is 0 or 1, with a gradient. Where
        we differ: merging goes to rows of the example's own class alone, in proportion to how they were read; the label
        is written as soon as it is told, which is one step before the paper's network hears of it.

        Args:
            key: ``(n, dim)``.
            slot: of the example's class, ``(n,)``.
            row: the least used one, ``(n,)``.
            merge: ``(n,)``.
            read: how each row was read just before, ``(n, rows)``, the mean over the heads.
            decay: of usage, the paper's gamma.
        """
        own = read * (self.slots == slot.unsqueeze(1))
        own = own / own.sum(1, keepdim=True).clamp(min=1e-9)
        taken = F.one_hot(row.clamp(min=0), self.slots.size(1)) * (row != BLANK).unsqueeze(1)
        fresh = (merge.detach() < 0.5).unsqueeze(1) & (taken == 1)
        weights = merge.unsqueeze(1) * own + (1 - merge).unsqueeze(1) * taken
        kept = (~fresh).to(self.keys.dtype)
        added = weights.unsqueeze(2) * key.unsqueeze(1)
        return Memory(
            self.keys * kept.unsqueeze(2) + added,
            torch.where(fresh, slot.unsqueeze(1), self.slots),
            self.strength * kept + weights,
            (decay * self.usage + read + weights).detach(),
        )

    def may_merge(self, slot: Tensor) -> Tensor:
        """Whether a stream holds a row of that class, ``(n,)``."""
        return (self.slots == slot.unsqueeze(1)).any(1)

    def without(self, slot: int) -> "Memory":
        """The memory with the rows of a class made blank."""
        gone = self.slots == slot
        kept = (~gone).to(self.keys.dtype)
        return Memory(
            self.keys * kept.unsqueeze(2),
            self.slots.masked_fill(gone, BLANK),
            self.strength * kept,
            self.usage * kept,
        )
