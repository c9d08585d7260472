"""A classifier whose learner reads a stream: one example in, constant time, nothing kept but a memory of fixed size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import Tensor

from nlpmeta.errors import DataError
from nlpmeta.fitted import Fitted
from nlpmeta.labels import checked_labels, classes_of, joined, kind_of
from nlpmeta.learners.abilities import SLOTS, ReadsStreams
from nlpmeta.learners.base import Learner, TaskState

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Stream:
    """What a stream has come to: its memory, and its classes, sorted."""

    state: TaskState
    classes: "NDArray[np.generic]"

    @classmethod
    def new(cls, learner: ReadsStreams) -> "Stream":
        """A stream that has seen nothing."""
        return cls(learner.empty(), np.empty(0, dtype=str))

    @classmethod
    def of(cls, fitted: Fitted) -> "Stream":
        """The stream that a classifier has read."""
        return cls(fitted.state, fitted.classes)

    def fitted(self, learner: Learner) -> Fitted:
        """What a classifier has learned from it."""
        state = {name: tensor.contiguous() for name, tensor in self.state.items()}
        return Fitted(learner, state, self.classes, None)

    def plus(
        self,
        learner: ReadsStreams,
        texts: Sequence[str],
        labels: "NDArray[np.generic]",
        embed: Callable[[Sequence[str]], Tensor],
    ) -> "Stream":
        """After writing ``texts`` one by one; this one stays as it is, also if that fails.

        Raises:
            DataError: if the labels are of another kind than before, or there is no room for their classes.
        """
        known: list[object] = self.classes.tolist()
        every_label = joined(self.classes, labels)
        new = [label for label in dict.fromkeys(labels.tolist()) if label not in known]
        if len(known) + len(new) > learner.max_way:
            raise DataError(
                f"This stream has room for {learner.max_way} classes; it knows {len(known)} and {len(new)} more came. "
                "Remove a class, or take a learner with a larger max_way."
            )
        state, order = self.state, known + new
        number = {label: i for i, label in enumerate(order)}
        for row, label in zip(embed(texts), labels.tolist(), strict=True):
            state = learner.write(state, row, number[label])
        first = [every_label.tolist().index(label) for label in order]
        return replace(self, state=state, classes=every_label[first])._sorted()

    def without(self, learner: ReadsStreams, number: int) -> "Stream":
        """Without a class."""
        return replace(self, state=learner.without(self.state, number), classes=np.delete(self.classes, number))

    def renamed(self, number: int, label: object) -> "Stream":
        """With another label for a class.

        Raises:
            DataError: if the new label is of another kind.
        """
        old: list[object] = self.classes.tolist()
        if kind_of(label) is not kind_of(old[number]):
            raise DataError(f"The new label {label!r} is not of the kind of the old one, {old[number]!r}.")
        new = checked_labels([label if i == number else each for i, each in enumerate(old)])
        return replace(self, classes=new)._sorted()

    def _sorted(self) -> "Stream":
        known: list[object] = self.classes.tolist()
        order = np.asarray([known.index(label) for label in classes_of(self.classes).tolist()])
        slots = self.state[SLOTS]
        return Stream({**self.state, SLOTS: slots[slots.new_tensor(order)]}, self.classes[order])


def as_batch(
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
) -> "tuple[Sequence[str] | ArrayLike, ArrayLike]":
    """One text and its label as a list of each; anything else as it is."""
    if isinstance(X, str):
        return [X], [cast("str", y)]
    return X, y
