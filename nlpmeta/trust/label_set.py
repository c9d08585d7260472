"""What is answered where one label would promise too much: the labels that a text may have."""

from dataclasses import dataclass

from nlpmeta.errors import NLPMetaError

Label = str | int | float | bool
MOST_LABELS = 5
"""A longer list of labels is no answer to a person."""


@dataclass(frozen=True)
class LabelSet:
    """The labels that hold the true one with the probability asked for, the most probable first.

    Attributes:
        labels: one where the model is sure, several where it is not.
        probabilities: of each of them.
        coverage: how often such sets hold the true label, over many tasks.
        n_way: how many classes there are.

    Raises:
        NLPMetaError: if there is no label, or not a probability for each.
    """

    labels: tuple[Label, ...]
    probabilities: tuple[float, ...]
    coverage: float
    n_way: int

    def __post_init__(self) -> None:
        if not self.labels or len(self.labels) != len(self.probabilities) or len(self.labels) > self.n_way:
            raise NLPMetaError(
                f"A label set of {self.n_way} classes came with {len(self.labels)} labels and "
                f"{len(self.probabilities)} probabilities."
            )

    @property
    def label(self) -> Label | None:
        """The label, if there is only one."""
        return self.labels[0] if len(self.labels) == 1 else None

    @property
    def is_unsure(self) -> bool:
        """Whether the set says nothing: it holds all classes, or more than ``MOST_LABELS``."""
        return len(self.labels) == self.n_way or len(self.labels) > MOST_LABELS

    def __str__(self) -> str:
        return "unsure" if self.is_unsure else " | ".join(map(str, self.labels))
