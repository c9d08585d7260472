"""What is compared: the contract of a contender, ours, and what peers share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.data import LabeledTexts
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.evaluation.several import PlainHead, plain_head
from nlpmeta.learners.abilities import GivesSeveral
from nlpmeta.learners.base import Learner, Option
from nlpmeta.learners.start import starting_learner
from nlpmeta.settings import Registry
from nlpmeta.storage.files import write_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nlpmeta.encoder.files import Pooling


class Adapted(ABC):
    """What adaptation made of one support set."""

    @abstractmethod
    def probabilities(self, texts: tuple[str, ...]) -> "NDArray[np.float64]":
        """Class probabilities ``(n_texts, n_way)``, columns in the order of the support's label names."""

    def least(self) -> "NDArray[np.float64] | float":
        """The least probability of each label ``(n_way,)`` to be given, where texts may have several."""
        return 0.5

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
    several: ClassVar[bool] = False
    """Whether it learns from texts that may have several labels."""

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

    def adapt_several(self, support: MultiLabelTexts) -> Adapted:
        """Learn a task whose texts may have several labels: probabilities are then of each label by itself; timed.

        Raises:
            NLPMetaError: if it requires one label per text.
        """
        raise NLPMetaError(f"{type(self).__name__} requires one label per text.")

    @classmethod
    def is_installed(cls) -> bool:
        """Whether the package that it needs is there."""
        return cls.package is None or find_spec(cls.package) is not None


contenders: Registry[Contender] = Registry("peer", "nlpmeta.bench.peers")


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


class _OurModel(Adapted):
    def __init__(self, classifier: FewShotClassifier, columns: list[int]) -> None:
        self.classifier, self._columns = classifier, columns

    def probabilities(self, texts: tuple[str, ...]) -> "NDArray[np.float64]":
        return self.classifier.predict_proba(texts)[:, self._columns].astype(np.float64)

    def least(self) -> "NDArray[np.float64]":
        return self.classifier.thresholds_[self._columns].astype(np.float64)

    def save(self, folder: Path) -> None:
        self.classifier.save_pretrained(folder, overwrite=True)

    def facts(self) -> dict[str, Option]:
        chosen = self.classifier.fitted_.predictor.choice
        return {} if chosen is None else {"chosen": chosen}


class _PlainModel(Adapted):
    """One-vs-rest logistic regression."""

    def __init__(self, head: PlainHead) -> None:
        self.head = head

    def probabilities(self, texts: tuple[str, ...]) -> "NDArray[np.float64]":
        return self.head(texts)[0].astype(np.float64)

    def least(self) -> "NDArray[np.float64]":
        return self.head.least

    def save(self, folder: Path) -> None:
        from safetensors.torch import save

        tensors = {name: torch.from_numpy(getattr(self.head, name)).float() for name in ("weight", "bias", "least")}
        write_bytes(folder / "head.safetensors", save(tensors))


@contenders.register(OURS)
class OurMethod(Contender):
    """A learner by name on what it starts from: ``auto@default``, ``logistic`` (the frozen encoder)."""

    several = True

    def __init__(self, encoder: str, max_steps: int | None, *, method: str = "auto@default") -> None:
        super().__init__(encoder, max_steps)
        self.method = method
        self._learner: Learner | None = None

    def prepare(self, seed: int) -> None:
        if self._learner is None:
            name, _, checkpoint = self.method.partition("@")
            self._learner = starting_learner(
                name,
                encoder=self.encoder,
                checkpoint=checkpoint or "none",
                max_length=self.max_length,
                device=self.device,
            )

    @property
    def learner(self) -> Learner:
        """What ``prepare`` loaded."""
        if self._learner is None:
            raise RuntimeError("prepare comes first")
        return self._learner

    def adapt(self, support: LabeledTexts) -> _OurModel:
        classes = support.label_names if support.by_name else None
        classifier = FewShotClassifier(self.learner).fit(list(support.texts), support.names(), classes=classes)
        place = {label: i for i, label in enumerate(classifier.classes_.tolist())}
        return _OurModel(classifier, [place[name] for name in support.label_names])

    def adapt_several(self, support: MultiLabelTexts) -> Adapted:
        if not isinstance(self.learner, GivesSeveral):
            return _PlainModel(plain_head(support, self.learner.encoder.encode))
        classifier, names = FewShotClassifier(self.learner), list(support.label_names)
        classifier.fit(list(support.texts), support.names(), classes=names, multilabel=True)
        return _OurModel(classifier, list(range(len(names))))


@dataclass(frozen=True)
class EncoderForPeers:
    """The folder of an encoder that ``transformers`` can load, and what goes before every text.

    ``max_length`` is in tokens, special ones included.
    """

    folder: Path
    prefix: str
    max_length: int
    pooling: "Pooling" = "mean"

    @classmethod
    def of(cls, name: str, max_length: int | None = None) -> "EncoderForPeers":
        """The same weights, prefix and length as our own encoder of that name has; ``max_length`` for another one."""
        from nlpmeta.encoder.text_encoder import MAX_LENGTH
        from nlpmeta.encoder.weights import resolve

        files = resolve(name)
        most = max_length or min(MAX_LENGTH, files.max_length or MAX_LENGTH)
        return cls(files.folder, files.prefix, most, files.pooling)

    def texts(self, texts: Sequence[str]) -> list[str]:
        """The texts as the encoder wants them."""
        return [self.prefix + text.strip() for text in texts]


def in_order(table: "NDArray[np.float64]", classes: Sequence[str], label_names: Sequence[str]) -> "NDArray[np.float64]":
    """Columns of ``table`` ``(n, n_way)`` that stand for ``classes``, in the order of ``label_names``."""
    place = {str(name): i for i, name in enumerate(classes)}
    return np.asarray(table, dtype=np.float64)[:, [place[name] for name in label_names]]
