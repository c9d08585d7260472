"""What takes part in a benchmark: something that adapts to labelled texts and then says how probable each class is."""

from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nlpmeta.data import LabeledTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Option
from nlpmeta.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Adapted(ABC):
    """What adaptation made of one support set."""

    @abstractmethod
    def probabilities(self, texts: tuple[str, ...]) -> "NDArray[np.float64]":
        """Class probabilities ``(n_texts, n_way)``, columns in the order of the support's label names."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write to ``folder`` what has to be kept to use it again beside the encoder's own weights."""

    def facts(self) -> dict[str, Option]:
        """What a reader should know about how it was made: the head that was chosen, the steps that were taken."""
        return {}


class Contender(ABC):
    """A method that is timed from a loaded model and raw support texts to a classifier.

    It is built from the encoder's name and the most training steps that it may take (``None`` for as many as it wants
    by itself), which only methods that train the encoder read.
    """

    package: ClassVar[str | None] = None
    """The module that must be installed for it; ``None`` for what this package brings."""
    trains: ClassVar[bool] = False
    """Whether it takes training steps, so that their number has to be said."""

    max_length: int | None = None
    """Tokens that are read of a text; ``None`` for as many as our encoders read."""
    device: str = "auto"
    """Where it runs."""

    def __init__(self, encoder: str, max_steps: int | None) -> None:
        self.encoder, self.max_steps = encoder, max_steps

    @abstractmethod
    def prepare(self, seed: int) -> None:
        """Load what adaptation starts from, fresh; not timed. ``seed`` fixes all that is random in ``adapt``."""

    @abstractmethod
    def adapt(self, support: LabeledTexts) -> Adapted:
        """Learn the task; timed."""

    @classmethod
    def is_installed(cls) -> bool:
        """Whether the package that it needs is there."""
        return cls.package is None or find_spec(cls.package) is not None


contenders: Registry[Contender] = Registry("peer", "nlpmeta.bench")


def peer(name: str) -> type[Contender]:
    """The peer of that name.

    Raises:
        UnknownNameError: if there is none.
        NLPMetaError: if its package is not installed.
    """
    kind = contenders[name]
    if not kind.is_installed():
        raise NLPMetaError(f"The peer {name!r} needs the package {kind.package}: pip install 'nlpmeta[bench]'.")
    return kind


def peer_names() -> list[str]:
    """The names of all peers; our own methods go by the names of learners."""
    return [name for name in contenders if name != OURS]


def installed_peers() -> list[str]:
    """The packages among the peers that are installed; plain fine-tuning is run only when it is asked for."""
    return [name for name in peer_names() if contenders[name].package is not None and contenders[name].is_installed()]


OURS = "nlpmeta"
"""The contender that stands for every method of this package."""
