"""What a classifier has learned, as one value, and the examples that it learned from: checked, and how they change.

Whoever reads the value while it changes reads the old one or the new one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor
from typing_extensions import Self

from nlpmeta.data import LabeledTexts
from nlpmeta.data.inputs import values_of
from nlpmeta.data.labels import checked_descriptions, checked_labels, classes_of, joined, kind_of, words_of
from nlpmeta.encoder.tokenizing import Guard
from nlpmeta.errors import DataError, UnknownNameError, visible
from nlpmeta.learners.abilities import is_several
from nlpmeta.learners.base import Learner, Predictor, TaskState

if TYPE_CHECKING:
    from numpy.typing import NDArray

_guard = Guard()

Described: TypeAlias = Mapping[object, tuple[str, ...]]
"""The texts that say in words what a class is, by its label; a class of which nothing was said is left out."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts with a label each, ``(n,)``, their embeddings ``(n, dim)`` where known, and the classes in their order.

    Embeddings may be there for the first texts only: those of texts that came later are still to be computed.
    """

    texts: tuple[str, ...]
    labels: "NDArray[np.generic]"
    features: Tensor | None
    classes: "NDArray[np.generic]"
    weights: "NDArray[np.float64] | None" = None
    """How many texts each counts as, ``(n,)``; one each if not given."""
    descriptions: Described = field(default_factory=dict)
    as_matrix: bool = False
    """Whether labels are given and answered as a 0/1 matrix, where a text may have several."""

    @classmethod
    def of(
        cls,
        texts: tuple[str, ...],
        labels: "NDArray[np.generic]",
        features: Tensor | None = None,
        weights: "NDArray[np.float64] | None" = None,
        descriptions: Described | None = None,
        by_name: "NDArray[np.generic] | None" = None,
    ) -> "Examples":
        """Examples whose classes are the labels and those of ``by_name``, sorted: these may have no example."""
        every = labels if by_name is None or not len(by_name) else joined(labels, by_name)
        return cls(texts, labels, features, classes_of(every), weights, descriptions or {})

    @property
    def by_name(self) -> "NDArray[np.generic]":
        """The classes without an example, which are known by their names and descriptions."""
        seen = set(self.labels.tolist())
        return self.classes[[label not in seen for label in self.classes.tolist()]]

    def described(self, descriptions: object) -> "Examples":
        """With descriptions of classes, in place of earlier ones of the same classes; ``None`` adds none.

        Raises:
            DataError: as ``checked_descriptions``.
        """
        if descriptions is None:
            return self
        return replace(self, descriptions={**self.descriptions, **checked_descriptions(descriptions, self.classes)})

    def weighed(self, sample_weight: object) -> "Examples":
        """With weights, and without the examples whose weight is 0.

        Raises:
            DataError: as ``checked_weights``, or if no example of some class is left.
        """
        weights = checked_weights(sample_weight, len(self.texts))
        if weights is None:
            return self
        kept = np.flatnonzero(weights > 0)
        gone = sorted(set(self.labels.tolist()) - set(self.labels[kept].tolist()), key=self.classes.tolist().index)
        if gone:
            raise DataError(
                f"Every example of the class {gone[0]!r} has the weight 0; leave it out of y or give it some."
            )
        return replace(self, features=None, weights=weights).select(kept.tolist())

    def select(self, rows: list[int]) -> "Examples":
        """The examples in these rows, in their order; the classes stay."""
        features = None if self.features is None else self.features[rows]
        weights = None if self.weights is None else self.weights[rows]
        texts = tuple(self.texts[row] for row in rows)
        return replace(self, texts=texts, labels=self.labels[rows], features=features, weights=weights)

    def data(self) -> LabeledTexts:
        """The same as labelled texts; classes are numbered in their order."""
        classes: list[object] = self.classes.tolist()
        number = {label: i for i, label in enumerate(classes)}
        labels = tuple(number[label] for label in self.labels.tolist())
        described = tuple(self.descriptions.get(label, ()) for label in classes) if self.descriptions else None
        names, alone = words_of(self.classes), bool(len(self.by_name))
        return LabeledTexts(self.texts, labels, names, descriptions=described, by_name=alone)

    def embedded(self, embed: Callable[[Sequence[str]], Tensor]) -> "Examples":
        """With embeddings for every text; only those that are missing are computed."""
        known = 0 if self.features is None else len(self.features)
        if self.features is not None and known == len(self.texts):
            return self
        new = embed(self.texts[known:])
        return replace(self, features=new if self.features is None else torch.cat([self.features, new]))

    def plus(self, texts: tuple[str, ...], labels: "NDArray[np.generic]") -> "Examples":
        """With more examples.

        Raises:
            DataError: if the new labels are of another kind: numbers among names.
        """
        weights = None if self.weights is None else np.concatenate([self.weights, np.ones(len(texts))])
        every = joined(self.labels, labels)
        return Examples.of(self.texts + texts, every, self.features, weights, self.descriptions, self.by_name)

    def with_class(self, label: object) -> "Examples":
        """With a class more, which has no example.

        Raises:
            DataError: if its label is of another kind than the others.
        """
        return replace(self, classes=classes_of(joined(self.classes, checked_labels([label]))))

    def without(self, number: int) -> "Examples":
        """Without the examples of a class."""
        gone: object = self.classes.tolist()[number]
        left = self.select([row for row, label in enumerate(self.labels.tolist()) if label != gone])
        described = {label: each for label, each in self.descriptions.items() if label != gone}
        alone = self.by_name[self.by_name != self.classes[number]]
        return Examples.of(left.texts, left.labels, left.features, left.weights, described, alone)

    def renamed(self, number: int, label: object) -> "Examples":
        """With another label for a class.

        Raises:
            DataError: if the new label is of another kind.
        """
        old = self.classes.tolist()[number]
        if kind_of(label) is not kind_of(old):
            raise DataError(f"The new label {label!r} is not of the same type as the old one, {old!r}.")
        new, by_name = (
            checked_labels([label if each == old else each for each in labels.tolist()]) if len(labels) else labels
            for labels in (self.labels, self.by_name)
        )
        described = {label if each == old else each: texts for each, texts in self.descriptions.items()}
        return Examples.of(self.texts, new, self.features, self.weights, described, by_name)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A learner, what it learned about a task, the labels ``(n_way,)``, and the examples where they are kept."""

    learner: Learner
    state: TaskState
    classes: "NDArray[np.generic]"
    examples: Examples | None = None
    descriptions: Described = field(default_factory=dict)
    by_name: "NDArray[np.generic] | None" = None
    """The classes without an example; ``None`` if there are none."""
    as_matrix: bool = False
    """Whether several labels per text are answered as a 0/1 matrix."""

    @classmethod
    def of(cls, learner: Learner, state: TaskState, examples: Examples) -> "Fitted":
        """What was learned from examples, stored as a file stores it: another memory layout would round differently."""
        stored = {name: each.contiguous() for name, each in state.items()}
        by_name = examples.by_name if len(examples.by_name) else None
        return cls(learner, stored, examples.classes, examples, examples.descriptions, by_name, examples.as_matrix)

    @cached_property
    def predictor(self) -> Predictor:
        """The state as it is predicted with, read once."""
        return self.learner.predictor(self.state)

    @cached_property
    def gives_sets(self) -> bool:
        """Whether a text may get several labels, or none."""
        return is_several(self.state)

    def number(self, label: object) -> int:
        """The place of a label among the classes.

        Raises:
            UnknownNameError: if there is no such class.
        """
        known: list[object] = self.classes.tolist()
        if label not in known:
            raise UnknownNameError("class", str(label), [str(each) for each in known])
        return known.index(label)


class HasFitted:
    """The fitted state of a classifier behind scikit-learn's attributes, which are read from it.

    Attributes:
        classes_: the labels seen in ``fit``, sorted; ``(n_way,)``.
        learner_: what was adapted.
        state_: what it learnt about the task, as named tensors.
        examples_: what it learnt from, or ``None`` where that is not known.
        descriptions_: the texts that describe a class, by its label, where descriptions were given.
    """

    _fitted_: Fitted | None = None
    """Replaced as a whole and never changed."""
    _before_: Learner | None = None
    """The learner of a classifier that has forgotten its task."""

    @property
    def fitted_(self) -> Fitted:
        """All of them as they are at this moment.

        Raises:
            NotFittedError: if there is nothing yet.
        """
        fitted = self._fitted_  # read once: another thread may reset it
        if fitted is None:
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet; call fit with texts and labels first.")
        return fitted

    @property
    def learner_(self) -> Learner:
        return self._before_ or self.fitted_.learner

    @property
    def state_(self) -> TaskState:
        return self.fitted_.state

    @property
    def classes_(self) -> "NDArray[np.generic]":
        return self.fitted_.classes

    @property
    def examples_(self) -> Examples | None:
        return self.fitted_.examples

    @property
    def descriptions_(self) -> Described:
        return self.fitted_.descriptions

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is anything to predict with."""
        return self._fitted_ is not None

    def _change(self, make: Callable[[Fitted | None], Fitted]) -> Self:
        """Replace what is known by what ``make`` makes of it; once more if another thread was quicker.

        Nobody waits, and nothing that another thread taught is lost.
        """
        while True:
            before = self._fitted_
            after = make(before)
            with _guard:
                if self._fitted_ is before:
                    self._fitted_, self._before_ = after, None
                    return self

    def _forget(self) -> Self:
        """Keep the learner and nothing else."""
        with _guard:
            fitted = self._fitted_
            if fitted is not None:
                self._fitted_, self._before_ = None, fitted.learner
        return self


def checked_weights(sample_weight: object, n: int) -> "NDArray[np.float64] | None":
    """The weight of each of ``n`` texts, ``None`` if none are given.

    Raises:
        DataError: if one is no number from 0 on, all are 0, or there are not ``n``.
    """
    if sample_weight is None:
        return None
    values = values_of(sample_weight, name="sample_weight", what="numbers")
    if len(values) != n:
        raise DataError(f"There are {n} texts but sample_weight has {len(values)} numbers.")
    for row, value in enumerate(values):
        number = cast("float", value)
        if kind_of(value) not in (int, float) or not np.isfinite(number) or number < 0:
            raise DataError(f"sample_weight must hold numbers from 0 on; row {row} is {visible(repr(value))[:40]}.")
    weights = np.asarray(values, dtype=np.float64)
    if not weights.any():
        raise DataError("Every number in sample_weight is 0: nothing is left to learn from.")
    return weights
