"""What a fitted classifier answers: probabilities, labels, label sets, out-of-scope scores, the task report."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from typing_extensions import Self

from nlpmeta.classifier.fitted import Examples, Fitted, checked_weights
from nlpmeta.classifier.given import checked_pairs, class_prior_of, with_class_prior
from nlpmeta.classifier.persistence import KeptClassifier, known_examples
from nlpmeta.classifier.several import label_sets_of, several_given, thresholds_of
from nlpmeta.data.inputs import check_kind, checked_texts
from nlpmeta.encoder.engines import check_engine
from nlpmeta.encoder.tokenizing import cut_texts_said

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nlpmeta.auto.answers import LabelSet
    from nlpmeta.auto.mismatch import TaskReport
    from nlpmeta.classifier.explaining import Explanation, Suspect
    from nlpmeta.data import Label


class AnsweringClassifier(KeptClassifier):
    """A classifier that predicts with what it learned, however it learned it."""

    def reset(self) -> Self:
        """Forget all examples and classes; what the learner was meta-trained to stays."""
        return self._forget()

    @torch.no_grad()
    def predict_proba(self, X: "Sequence[str] | ArrayLike") -> "NDArray[np.float32]":  # noqa: N803
        """Class probabilities, ``(n_texts, n_way)``, columns in the order of ``classes_``.

        They sum to 1, or are independent of each other where a text may have several labels.
        """
        return _probabilities(self.fitted_, self._scores(self.fitted_, X))

    def set_class_prior(self, class_prior: "Mapping[Any, float] | None") -> Self:
        """Say how often each class occurs among the texts to predict; without it all count as equally frequent.

        Takes effect at once and is saved with the model; ``fit`` begins anew. Where some classes are frequent it makes
        more of the answers right, and probabilities fit what is counted. Examples may be as many of each class as ever.

        Source: Saerens, Latinne and Decaestecker, Neural Computation 2002, equation 2.4.

        Args:
            class_prior: shares, or counts such as those of last month, by label; what it does not name shares equally
                what is left of 1. ``None`` for equally often again.

        Raises:
            DataError: if a label is no class, a number is not positive, or nothing is left for a class.
            NLPMetaError: if the method is not ``auto``, or texts may have several labels.
        """
        return self._change(lambda before: with_class_prior(before or self.fitted_, class_prior))

    @property
    def class_prior_(self) -> "dict[Any, float] | None":
        """How often each class occurs, by its label, where that was said (``set_class_prior``)."""
        return class_prior_of(self.fitted_)

    @property
    def thresholds_(self) -> "NDArray[np.float32]":
        """The probability from which on each label is given, ``(n_labels,)``, where a text may have several.

        Raises:
            NotThereError: if each text gets one label.
        """
        return thresholds_of(self.fitted_)

    @overload
    def predict(self, X: "Sequence[str] | ArrayLike") -> "NDArray[np.generic]": ...  # noqa: N803

    @overload
    def predict(self, X: "Sequence[str] | ArrayLike", *, abstain: float) -> "list[LabelSet]": ...  # noqa: N803

    def predict(
        self,
        X: "Sequence[str] | ArrayLike",  # noqa: N803
        *,
        abstain: float | None = None,
    ) -> "NDArray[np.generic] | list[LabelSet] | list[list[object]]":
        """The most probable label of each text, ``(n_texts,)``, or the labels that it may have.

        Where a text may have several labels, they are those whose probability reaches their threshold
        (``thresholds_``): a list of lists, or a 0/1 matrix if ``fit`` was given one.

        Args:
            X: the texts.
            abstain: how often the labels are to hold the true one, such as 0.9: each text then gets one label where the
                model is sure, several where it is not, and says "unsure" where these would be too many. The coverage
                is that over many tasks, not a promise for each.

        Raises:
            NLPMetaError: with ``abstain``, if the method is not ``auto``.
        """
        fitted = self.fitted_
        scores = self._scores(fitted, X)
        if abstain is not None:
            from nlpmeta.auto.answers import label_sets

            return label_sets(fitted.predictor, scores, fitted.classes.tolist(), coverage=abstain)
        probabilities = _probabilities(fitted, scores)
        if fitted.gives_sets:
            return label_sets_of(fitted, probabilities)
        labels: NDArray[np.generic] = fitted.classes[probabilities.argmax(1)]
        return labels

    def score(
        self,
        X: "Sequence[str] | ArrayLike",  # noqa: N803
        y: "ArrayLike",
        sample_weight: "ArrayLike | None" = None,
    ) -> float:
        """The share of the texts ``X`` that get the label in ``y``; the mean by ``sample_weight`` where that is given.

        Of several labels per text all must be right and none missing, as scikit-learn has it.

        Raises:
            DataError: as ``fit``.
        """
        if self.fitted_.gives_sets:
            return self._exact_match(X, y, sample_weight)
        texts, labels = checked_pairs(X, y)
        right = [guess == label for guess, label in zip(self.predict(texts).tolist(), labels.tolist(), strict=True)]
        return float(np.average(right, weights=checked_weights(sample_weight, len(texts))))

    def _exact_match(self, X: "Sequence[str] | ArrayLike", y: object, sample_weight: object) -> float:  # noqa: N803
        fitted = self.fitted_
        texts, marks = several_given(X, y, usual=fitted.classes.tolist())
        found = _probabilities(fitted, self._scores(fitted, texts)) >= thresholds_of(fitted)
        right = [
            {label for label, there in zip(marks.classes.tolist(), true, strict=True) if there}
            == {label for label, there in zip(fitted.classes.tolist(), guess, strict=True) if there}
            for true, guess in zip(marks.matrix, found, strict=True)
        ]
        return float(np.average(right, weights=checked_weights(sample_weight, len(texts))))

    @torch.no_grad()
    def out_of_scope(self, X: "Sequence[str] | ArrayLike") -> "NDArray[np.float32]":  # noqa: N803
        """How probable it is that a text belongs to none of the classes, if half of all texts do not, ``(n_texts,)``.

        Raises:
            NLPMetaError: if the method is not ``auto``.
        """
        from nlpmeta.auto.answers import out_of_scope_scores

        predictor = self.fitted_.predictor
        with self._embedding():
            found = out_of_scope_scores(predictor, predictor.queries(_texts_for(self.fitted_, X)))
        scores: NDArray[np.float32] = found.float().cpu().numpy()
        return scores

    def explain(self, text: "str | tuple[str, str]", *, label: "Label | None" = None) -> "Explanation":
        """Why a text gets its label: the words without which the label is less probable, and what the examples add.

        Args:
            text: the text, or the pair of texts; each of its words costs a pass of a text through the encoder.
            label: the label to explain; by default the most probable one.

        Raises:
            DataError: if the text is empty.
            UnknownNameError: if there is no such label.
        """
        from nlpmeta.classifier.explaining import explain

        return explain(self.fitted_, _texts_for(self.fitted_, [text])[0], label=label)

    def suspects(
        self,
        X: "Sequence[str] | ArrayLike | None" = None,  # noqa: N803
        y: "ArrayLike | None" = None,
    ) -> "list[Suspect]":
        """All examples, those with the least probable label when held out first: where labels are probably wrong.

        Args:
            X: texts; by default the examples of the model.
            y: their labels, which need not be classes of the model: its method learns them from the other folds.

        Raises:
            DataError: as ``fit``, or if nothing can be held out.
            NLPMetaError: if texts may have several labels, or nothing is given and the examples are not known.
        """
        from nlpmeta.classifier.explaining import suspects

        if X is None or y is None:
            return suspects(self.fitted_, known_examples(self.fitted_))
        texts, labels = checked_pairs(X, y)
        check_kind(texts, pairs=self.fitted_.learner.encoder.pairs)
        return suspects(self.fitted_, Examples.of(texts, labels))

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
    def _scores(self, fitted: Fitted, X: "Sequence[str] | ArrayLike") -> torch.Tensor:  # noqa: N803
        texts = _texts_for(fitted, X)
        with cut_texts_said(texts, fitted.learner.encoder), self._embedding():
            return fitted.predictor.logits(fitted.predictor.queries(texts))

    def _embedding(self) -> AbstractContextManager[object]:
        """A block in which texts are embedded by the engine that was chosen."""
        if self.engine == "torch":
            return nullcontext()
        from nlpmeta.encoder.compiling import embedding_with

        return embedding_with(check_engine(self.engine))


def _texts_for(fitted: Fitted, X: object) -> tuple[str, ...]:  # noqa: N803
    texts = checked_texts(X, pairs=True)
    check_kind(texts, pairs=fitted.learner.encoder.pairs)
    return texts


def _probabilities(fitted: Fitted, scores: torch.Tensor) -> "NDArray[np.float32]":
    each = scores.float()
    probabilities: NDArray[np.float32] = (each.sigmoid() if fitted.gives_sets else each.softmax(1)).cpu().numpy()
    return probabilities
