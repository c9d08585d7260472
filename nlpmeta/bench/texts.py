"""What peers are given: the encoder's folder, and texts with the prefix that the encoder was trained with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class EncoderForPeers:
    """The folder of an encoder that ``transformers`` can load, and what goes before every text.

    ``max_length`` is in tokens, special ones included.
    """

    folder: Path
    prefix: str
    max_length: int

    @classmethod
    def of(cls, name: str, max_length: int | None = None) -> "EncoderForPeers":
        """The same weights, prefix and length as our own encoder of that name has; ``max_length`` for another one."""
        from nlpmeta.encoder.text_encoder import MAX_LENGTH
        from nlpmeta.encoder.weights import resolve

        files = resolve(name)
        return cls(files.folder, files.prefix, max_length or min(MAX_LENGTH, files.max_length or MAX_LENGTH))

    def texts(self, texts: Sequence[str]) -> list[str]:
        """The texts as the encoder wants them."""
        return [self.prefix + text.strip() for text in texts]


def in_order(table: "NDArray[np.float64]", classes: Sequence[str], label_names: Sequence[str]) -> "NDArray[np.float64]":
    """Columns of ``table`` ``(n, n_way)`` that stand for ``classes``, in the order of ``label_names``."""
    place = {str(name): i for i, name in enumerate(classes)}
    return np.asarray(table, dtype=np.float64)[:, [place[name] for name in label_names]]
