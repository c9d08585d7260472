"""Where the auxiliary tasks lie in the space of the frozen encoder, and how far from them another task is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.errors import ModelFolderError
from nlpmeta.files import write_bytes

FILE = Path(__file__).parent / "families.safetensors"


@dataclass(frozen=True, eq=False)
class Families:
    """Mean vectors of families of tasks.

    Attributes:
        digest: of the files of the encoder.
        names: of the families.
        centres: mean frozen embeddings, ``(n_families, dim)``, of unit length.
        distances: from auxiliary support sets to the nearest other family, rising, ``(n_tasks,)``.
    """

    digest: str
    names: tuple[str, ...]
    centres: Tensor
    distances: Tensor

    def nearest(self, features: Tensor) -> tuple[str, float]:
        """The family nearest to a support set ``(n, dim)``, and the share of auxiliary tasks nearer to another one."""
        distance, place = self.distance(features)
        return self.names[place], float((self.distances < distance).float().mean())

    def distance(self, features: Tensor, *, but: str | None = None) -> tuple[float, int]:
        """One minus the cosine to the nearest centre, that of family ``but`` left out, and which one it is."""
        cosines = self.centres @ F.normalize(features.mean(0), dim=0).cpu()
        if but is not None:
            cosines[self.names.index(but)] = -1.0
        return 1 - float(cosines.max()), int(cosines.argmax())


def known_families() -> Families:
    """What the package comes with.

    Raises:
        ModelFolderError: if the file is damaged.
    """
    return _read(FILE)


def write_families(path: Path, families: Families) -> None:
    """Write them as safetensors."""
    from safetensors.torch import save

    tensors = {"centres": families.centres.half(), "distances": families.distances}
    facts = {"digest": families.digest, "names": json.dumps(list(families.names))}
    write_bytes(path, save(tensors, metadata=facts))


def centres_of(parts: Sequence[Tensor]) -> Tensor:
    """The mean direction of each family of embeddings ``(n, dim)``; shape ``(n_families, dim)``."""
    return torch.stack([F.normalize(part.mean(0), dim=0) for part in parts])


@lru_cache(maxsize=1)
def _read(path: Path) -> Families:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            centres = F.normalize(file.get_tensor("centres").float(), dim=1)
            return Families(facts["digest"], tuple(json.loads(facts["names"])), centres, file.get_tensor("distances"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelFolderError(f"{path} is damaged ({error}). Install nlpmeta again.") from error
