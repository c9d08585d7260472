"""What a classifier has learned, as one value, and the examples that it learned from: checked, and how they change.

Whoever reads the value while it changes reads the old one or the new one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor
from typing_extensions import Self

from nlpmeta.data import LabeledTexts
from nlpmeta.data.inputs import checked_texts, values_of
from nlpmeta.data.labels import checked_descriptions, checked_labels, classes_of, joined, kind_of, words_of
from nlpmeta.encoder.merged import Guard
from nlpmeta.errors import DataError, UnknownNameError, visible
from nlpmeta.learners.base import Learner, Predictor, TaskState

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

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

    @classmethod
    def of(
        cls,
        texts: tuple[str, ...],
        labels: "NDArray[np.generic]",
        features: Tensor | None = None,
        weights: "NDArray[np.float64] | None" = None,
        descriptions: Described | None = None,
    ) -> "Examples":
        """Examples whose classes are the labels, sorted."""
        return cls(texts, labels, features, classes_of(labels), weights, descriptions or {})

    def described(self, descriptions: object) -> "Examples":
        """With descriptions of classes, in place of earlier ones of the same classes; ``None`` adds none.

        Raises:
            DataError: as ``checked_descriptions``.
        """
        if descriptions is None:
            return self
        return replace(self, descriptions={**self.descriptions, **checked_descriptions(descriptions, self.classes)})

    def weighed(self, weights: "NDArray[np.float64] | None") -> "Examples":
        """With weights, and without the examples whose weight is 0.

        Raises:
            DataError: if no example of some class is left.
        """
        if weights is None:
            return self
        kept = np.flatnonzero(weights > 0)
        gone = [label for label in self.classes.tolist() if label not in set(self.labels[kept].tolist())]
        if gone:
            raise DataError(
                f"Every example of the class {gone[0]!r} has the weight 0; leave it out of y or give it some."
            )
        texts = tuple(self.texts[row] for row in kept)
        return replace(self, texts=texts, labels=self.labels[kept], features=None, weights=weights[kept])

    def data(self) -> LabeledTexts:
        """The same as labelled texts; classes are numbered in their order."""
        classes: list[object] = self.classes.tolist()
        number = {label: i for i, label in enumerate(classes)}
        labels = tuple(number[label] for label in self.labels.tolist())
        described = tuple(self.descriptions.get(label, ()) for label in classes) if self.descriptions else None
        return LabeledTexts(self.texts, labels, words_of(self.classes), descriptions=described)

    def embedded(self, embed: Callable[[Sequence[str]], Tensor]) -> "Examples":
        """With embeddings for every text; only those that are missing are computed."""
        known = 0 if self.features is None else len(self.features)
        if self.features is not None and known == len(self.texts):
            return self
        new = embed(self.texts[known:])
        features = new if self.features is None else torch.cat([self.features, new])
        return replace(self, features=features)

    def plus(self, texts: tuple[str, ...], labels: "NDArray[np.generic]") -> "Examples":
        """With more examples.

        Raises:
            DataError: if the new labels are of another kind: numbers among names.
        """
        weights = None if self.weights is None else np.concatenate([self.weights, np.ones(len(texts))])
        return Examples.of(self.texts + texts, joined(self.labels, labels), self.features, weights, self.descriptions)

    def without(self, number: int) -> "Examples":
        """Without the examples of a class."""
        kept = np.flatnonzero(self.labels != self.classes[number])
        features = None if self.features is None else self.features[torch.from_numpy(kept).to(self.features.device)]
        weights = None if self.weights is None else self.weights[kept]
        texts, gone = tuple(self.texts[row] for row in kept), self.classes.tolist()[number]
        described = {label: each for label, each in self.descriptions.items() if label != gone}
        return Examples.of(texts, self.labels[kept], features, weights, described)

    def renamed(self, number: int, label: object) -> "Examples":
        """With another label for a class.

        Raises:
            DataError: if the new label is of another kind.
        """
        old = self.classes.tolist()[number]
        if kind_of(label) is not kind_of(old):
            raise DataError(f"The new label {label!r} is not of the same type as the old one, {old!r}.")
        new = [label if each == old else each for each in self.labels.tolist()]
        described = {label if each == old else each: texts for each, texts in self.descriptions.items()}
        return Examples.of(self.texts, checked_labels(new), self.features, self.weights, described)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A learner, what it learned about a task, the labels ``(n_way,)``, and the examples where they are kept."""

    learner: Learner
    state: TaskState
    classes: "NDArray[np.generic]"
    examples: Examples | None = None
    descriptions: Described = field(default_factory=dict)

    @classmethod
    def of(cls, learner: Learner, state: TaskState, examples: Examples) -> "Fitted":
        """What was learned from examples, stored as a file stores it: another memory layout would round differently."""
        stored = {name: each.contiguous() for name, each in state.items()}
        return cls(learner, stored, examples.classes, examples, examples.descriptions)

    @cached_property
    def predictor(self) -> Predictor:
        """The state as it is predicted with, read once."""
        return self.learner.predictor(self.state)

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
        if kind_of(value) not in (int, float) or not np.isfinite(value) or value < 0:  # type: ignore[call-overload,operator]
            raise DataError(f"sample_weight must hold numbers from 0 on; row {row} is {visible(repr(value))[:40]}.")
    weights = np.asarray(values, dtype=np.float64)
    if not weights.any():
        raise DataError("Every number in sample_weight is 0: nothing is left to learn from.")
    return weights


def at_least_two(classes: "NDArray[np.generic]") -> None:
    """Refuse a task with one class.

    Raises:
        DataError: names it.
    """
    if len(classes) < 2:
        raise DataError(f"A classifier needs at least two classes; y has one: {classes.tolist()[0]!r}.")


def checked_pairs(
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
) -> "tuple[tuple[str, ...], NDArray[np.generic]]":
    """Texts and a label for each, checked.

    Raises:
        DataError: if a text or label cannot be used, or there are not as many of the one as of the other.
    """
    texts, labels = checked_texts(X), checked_labels(y)
    if len(texts) != len(labels):
        raise DataError(f"X has {len(texts)} texts but y has {len(labels)} labels.")
    return texts, labels
