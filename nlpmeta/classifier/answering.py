"""What a fitted classifier answers: probabilities, labels, label sets, out-of-scope scores, the task report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from typing_extensions import Self

from nlpmeta.classifier.fitted import Fitted
from nlpmeta.classifier.given import checked_pairs, checked_weights
from nlpmeta.classifier.persistence import KeptClassifier, known_examples
from nlpmeta.data.inputs import checked_texts
from nlpmeta.encoder.tokenizing import cut_texts_said

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nlpmeta.auto.answers import LabelSet
    from nlpmeta.auto.mismatch import TaskReport


class AnsweringClassifier(KeptClassifier):
    """A classifier that predicts with what it learned, however it learned it."""

    def reset(self) -> Self:
        """Forget all examples and classes; what the learner was meta-trained to stays."""
        return self._forget()

    @torch.no_grad()
    def predict_proba(self, X: "Sequence[str] | ArrayLike") -> "NDArray[np.float32]":  # noqa: N803
        """Class probabilities, ``(n_texts, n_way)``, columns in the order of ``classes_``."""
        probabilities: NDArray[np.float32] = _scores(self.fitted_, X).float().softmax(1).cpu().numpy()
        return probabilities

    @overload
    def predict(self, X: "Sequence[str] | ArrayLike") -> "NDArray[np.generic]": ...  # noqa: N803

    @overload
    def predict(self, X: "Sequence[str] | ArrayLike", *, abstain: float) -> "list[LabelSet]": ...  # noqa: N803

    def predict(
        self,
        X: "Sequence[str] | ArrayLike",  # noqa: N803
        *,
        abstain: float | None = None,
    ) -> "NDArray[np.generic] | list[LabelSet]":
        """The most probable label of each text, ``(n_texts,)``, or the labels that it may have.

        Args:
            X: the texts.
            abstain: how often the labels are to hold the true one, such as 0.9: each text then gets one label where the
                model is sure, several where it is not, and says "unsure" where these would be too many. The coverage
                is that over many tasks, not a promise for each.

        Raises:
            NLPMetaError: with ``abstain``, if the method is not ``auto``.
        """
        fitted = self.fitted_
        scores = _scores(fitted, X)
        if abstain is not None:
            from nlpmeta.auto.answers import label_sets

            return label_sets(fitted.predictor, scores, fitted.classes.tolist(), coverage=abstain)
        labels: NDArray[np.generic] = fitted.classes[scores.float().softmax(1).cpu().numpy().argmax(1)]
        return labels

    def score(
        self,
        X: "Sequence[str] | ArrayLike",  # noqa: N803
        y: "ArrayLike",
        sample_weight: "ArrayLike | None" = None,
    ) -> float:
        """The share of the texts ``X`` that get the label in ``y``; the mean by ``sample_weight`` where that is given.

        Raises:
            DataError: as ``fit``.
        """
        texts, labels = checked_pairs(X, y)
        right = [guess == label for guess, label in zip(self.predict(texts).tolist(), labels.tolist(), strict=True)]
        return float(np.average(right, weights=checked_weights(sample_weight, len(texts))))

    @torch.no_grad()
    def out_of_scope(self, X: "Sequence[str] | ArrayLike") -> "NDArray[np.float32]":  # noqa: N803
        """How probable it is that a text belongs to none of the classes, if half of all texts do not, ``(n_texts,)``.

        Raises:
            NLPMetaError: if the method is not ``auto``.
        """
        from nlpmeta.auto.answers import out_of_scope_scores

        predictor = self.fitted_.predictor
        scores: NDArray[np.float32] = (
            out_of_scope_scores(predictor, predictor.queries(checked_texts(X))).float().cpu().numpy()
        )
        return scores

    def task_report(self) -> "TaskReport":
        """What the examples say of the task: the accuracy to expect, labels and classes to look at, warnings.

        Raises:
            NLPMetaError: if the method is not ``auto``, or the model was loaded from a folder without its examples.
        """
        from nlpmeta.auto.answers import task_report

        fitted = self.fitted_
        examples = known_examples(fitted)
        return task_report(fitted.learner, examples.data(), examples.features)


@torch.no_grad()
def _scores(fitted: Fitted, X: "Sequence[str] | ArrayLike") -> torch.Tensor:  # noqa: N803
    texts = checked_texts(X)
    with cut_texts_said(texts, fitted.learner.encoder):
        return fitted.predictor.logits(fitted.predictor.queries(texts))
