"""All that an online classifier holds: the record of its stream, alarms, texts that wait for labels, kept states."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from nlpmeta.online.stream import OnlineSettings, Stream

if TYPE_CHECKING:
    from nlpmeta.classifier.classifier import FewShotClassifier

SeenBy = Literal["labels", "texts", "burst"]


@dataclass(frozen=True)
class Record:
    """Counts; ``recent`` and ``weight`` fade by ``fading`` with every label."""

    fading: float
    n_texts: int = 0
    n_labels: int = 0
    n_right: int = 0
    recent: float = 0.0
    weight: float = 0.0

    def after_text(self) -> "Record":
        """With one more text."""
        return Record(self.fading, self.n_texts + 1, self.n_labels, self.n_right, self.recent, self.weight)

    def after_label(self, right: bool) -> "Record":
        """With one more label, of a text whose prediction was right or not."""
        return Record(
            self.fading,
            self.n_texts,
            self.n_labels + 1,
            self.n_right + right,
            self.recent * self.fading + right,
            self.weight * self.fading + 1,
        )

    @property
    def accuracy(self) -> float | None:
        """Right predictions among those whose label came; ``None`` before the first."""
        return self.n_right / self.n_labels if self.n_labels else None

    @property
    def recent_accuracy(self) -> float | None:
        """The same with fading."""
        return self.recent / self.weight if self.weight else None


@dataclass(frozen=True)
class Alarm:
    """The stream has changed: seen at text ``n_texts`` and label ``n_labels`` of the stream.

    ``seen_by`` is ``labels`` where losses rose, ``texts`` where texts came that lie far from the known ones, and
    ``burst`` where many came that are like one another.
    """

    n_texts: int
    n_labels: int
    seen_by: SeenBy


@dataclass(frozen=True, eq=False)
class Waiting:
    """A text whose label is awaited: centred embedding ``(dim,)``, scores of the classifier, and what was predicted."""

    row: Tensor
    base: Tensor
    predicted: int


@dataclass(frozen=True, eq=False)
class Moment:
    """A state that can be rolled back to; ``accuracy`` is the recent one at that time, ``None`` before any label."""

    n_labels: int
    accuracy: float | None
    stream: Stream


@dataclass(eq=False)
class Followed:
    """The parts of an online classifier, as they are kept between runs.

    ``centre`` ``(dim,)`` and ``scale`` ``()`` bring embeddings to where the stream sees them; ``waiting`` are the texts
    whose labels are awaited, by ticket.
    """

    classifier: "FewShotClassifier"
    settings: OnlineSettings
    centre: Tensor
    scale: Tensor
    stream: Stream
    record: Record
    alarms: list[Alarm]
    waiting: dict[int, Waiting]
    moments: list[Moment]
