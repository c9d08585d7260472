"""What a classifier has learned, as one value: whoever reads it while it changes reads the old one or the new one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sklearn.exceptions import NotFittedError
from typing_extensions import Self

from nlpmeta.encoder.guard import Guard
from nlpmeta.examples import Examples
from nlpmeta.learners.base import Learner, TaskState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_guard = Guard()


@dataclass(frozen=True, eq=False)
class Fitted:
    """A learner, what it learned about a task, the labels ``(n_way,)``, and the examples where they are kept."""

    learner: Learner
    state: TaskState
    classes: "NDArray[np.generic]"
    examples: Examples | None


class HasFitted:
    """The fitted state of a classifier behind scikit-learn's attributes, which are read from it.

    Attributes:
        classes_: the labels seen in ``fit``, sorted; ``(n_way,)``.
        learner_: what was adapted.
        state_: what it learnt about the task, as named tensors.
        examples_: what it learnt from, or ``None`` where that is not known.
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
