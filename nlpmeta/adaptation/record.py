"""The record of a stream: how many texts and labels came, and how many predictions were right."""

from dataclasses import dataclass


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
