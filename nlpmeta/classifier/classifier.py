"""A few-shot text classifier with scikit-learn's manners: fit, predict, save, load."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, overload

import numpy as np
import torch

from nlpmeta.classifier.fitted import Examples, Fitted, at_least_two, checked_pairs, checked_weights
from nlpmeta.classifier.persistence import KeptClassifier, known_examples
from nlpmeta.classifier.streaming import ReadStream, as_batch
from nlpmeta.data import Label, LabeledTexts
from nlpmeta.data.inputs import checked_texts
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.encoder.tokenizing import cut_texts_said
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.learners.abilities import Readapts, ReadsStreams
from nlpmeta.learners.base import Learner, TaskState, learners

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nlpmeta.auto.answers import LabelSet
    from nlpmeta.auto.mismatch import TaskReport
    from nlpmeta.metrics.scores import Embed


class FewShotClassifier(KeptClassifier):
    """Classifies texts after seeing a few labelled examples of each class.

    It follows scikit-learn's conventions: it can be cloned, put into a ``Pipeline`` and cross-validated. ``X`` is a
    sequence of strings.

    Any number of threads may predict, also while another one teaches it: they get the old answer or the new one.

    Attributes:
        classes_: the labels seen in ``fit``, sorted; ``(n_way,)``.
        learner_: what was adapted.
        state_: what it learnt about the task, as named tensors.
        fitted_: all of it at one moment, and the examples.
    """

    _names: EmbeddingTable | None = None
    """The embeddings of class names, so that a change of the classes need not compute them again."""

    def fit(
        self,
        X: "Sequence[str] | ArrayLike",  # noqa: N803
        y: "ArrayLike",
        sample_weight: "ArrayLike | None" = None,
    ) -> "FewShotClassifier":
        """Adapt to ``X``, a text for each label in ``y``.

        Args:
            X: the texts.
            y: their labels.
            sample_weight: how many texts each counts as; a text of weight 0 is left out. ``logistic``, ``prototypical``
                and ``ridge`` use it.

        Raises:
            NLPMetaError: if ``sample_weight`` is given and the method does not use it.
            DataError: if a text is not a string or is empty, a label is missing or of another kind than the others,
                lengths differ, or there are fewer than two classes.
        """
        texts, labels = checked_pairs(X, y)
        examples = Examples.of(texts, labels).weighed(checked_weights(sample_weight, len(texts)))
        at_least_two(examples.classes)
        learner = self._learner()
        if examples.weights is not None and not learner.weighs:
            able = ", ".join(name for name in learners if learners[name].weighs)
            name = learners.name_of(type(learner))
            raise NLPMetaError(f"{name} does not use sample_weight; these methods do: {able}.")
        with cut_texts_said(texts, learner.encoder):
            return self._change(lambda _: self._learned(learner, examples))

    def partial_fit(  # noqa: D417  # classes is scikit-learn's
        self,
        X: "Sequence[str] | ArrayLike",  # noqa: N803
        y: "ArrayLike",
        classes: "ArrayLike | None" = None,
    ) -> "FewShotClassifier":
        """Learn ``X`` and ``y`` in addition to what was learned before; new classes may appear at any time.

        Only the new texts are embedded; the method then adapts to all examples. Where the score of a class depends on
        its own examples alone (``prototypical``, ``knn``, ...) the scores of the other classes stay as they are.
        ``auto`` fits its heads again, and weighs them anew once the examples are 1.5 times as many or as few.

        A method that reads a stream (``mann``, ``rnn``, ``snail``) writes the new texts into its memory, in constant
        time, and keeps no examples; it may start from nothing. ``X`` and ``y`` may be one text and its label.

        Raises:
            DataError: as ``fit``, or if a stream has no room for another class.
            NLPMetaError: if this model was loaded from a folder that does not hold its examples.
        """
        texts, labels = checked_pairs(*as_batch(X, y))

        def taught(before: Fitted | None) -> Fitted:
            if isinstance(learner, ReadsStreams):
                return _written(learner, learner.encoder.encode, before, texts, labels).fitted(learner)
            if before is None:
                examples = Examples.of(texts, labels)
                return self._learned(learner, examples)
            return self._learned(learner, known_examples(before).plus(texts, labels), before=before.state)

        learner: Learner = self.learner_ if hasattr(self, "learner_") else self._learner()
        with cut_texts_said(texts, learner.encoder):
            return self._change(taught)

    def add_class(self, label: Label, texts: Sequence[str]) -> "FewShotClassifier":
        """Add a class with its example texts; as ``partial_fit``.

        Raises:
            DataError: if there is such a class already, or no text.
        """
        if label in self.classes_.tolist():
            raise DataError(f"There is a class {label!r} already; partial_fit adds examples to it.")
        checked = checked_texts(texts)
        return self.partial_fit(checked, [label] * len(checked))

    def remove_class(self, label: Label) -> "FewShotClassifier":
        """Forget a class and its examples.

        Raises:
            DataError: if there is no such class, or fewer than two would remain.
        """

        def without(before: Fitted | None) -> Fitted:
            known = before or self.fitted_
            number = known.number(label)
            if len(known.classes) < 3:
                raise DataError(f"Without {label!r} one class would be left; a classifier needs at least two.")
            if isinstance(known.learner, ReadsStreams):
                return ReadStream.of(known).without(known.learner, number).fitted(known.learner)
            return self._learned(known.learner, known_examples(known).without(number), before=known.state)

        return self._change(without)

    def rename_class(self, old: Label, new: Label) -> "FewShotClassifier":
        """Give a class another label; methods that read the names of classes read the new one.

        Raises:
            DataError: if there is no class ``old``, or a class ``new`` already.
        """

        def renamed(before: Fitted | None) -> Fitted:
            known = before or self.fitted_
            if new in known.classes.tolist():
                raise DataError(f"There is a class {new!r} already.")
            number = known.number(old)
            if isinstance(known.learner, ReadsStreams):
                return ReadStream.of(known).renamed(number, new).fitted(known.learner)
            return self._learned(known.learner, known_examples(known).renamed(number, new), before=known.state)

        return self._change(renamed)

    def reset(self) -> "FewShotClassifier":
        """Forget all examples and classes; what the learner was meta-trained to stays."""
        return self._forget()

    @classmethod
    def adapted(cls, learner: Learner, support: LabeledTexts, *, embed: "Embed | None" = None) -> "FewShotClassifier":
        """``fit`` for labelled texts whose embeddings may be known already; the classes keep their order.

        Args:
            learner: what adapts.
            support: the labelled texts.
            embed: where the embeddings of a learner that works on embeddings come from.
        """
        known = embed if learner.inputs == "embeddings" else None
        features = None if known is None else known(support.texts)
        labels = np.asarray(support.names(), dtype=np.asarray(support.label_names).dtype)
        examples = Examples(support.texts, labels, features, np.asarray(support.label_names))
        self = cls(learner)
        return self._change(lambda _: self._learned(learner.eval(), examples, embed=known))

    @torch.no_grad()
    def _learned(
        self,
        learner: Learner,
        examples: "Examples",
        *,
        embed: "Embed | None" = None,
        before: TaskState | None = None,
    ) -> Fitted:
        """What ``learner`` makes of ``examples``, from what was learned ``before`` if anything."""
        at_least_two(examples.classes)
        if learner.inputs == "embeddings":
            examples = examples.embedded(embed or learner.encoder.encode)
        support = learner.support(examples.data(), embed)
        names = support.names
        if names is not None and learner.inputs == "embeddings" and names.features is None:
            remembered = self._names
            if remembered is None or remembered.encoder is not learner.encoder:
                self._names = remembered = EmbeddingTable(learner.encoder)
            names = replace(names, features=remembered(names.texts))
        weights = None if examples.weights is None else torch.from_numpy(examples.weights).to(support.labels.device)
        support = replace(support, features=examples.features, names=names, weights=weights)
        # Stored as a file stores it: another memory layout would round differently after loading.
        if before is not None and isinstance(learner, Readapts):
            learned = learner.readapt(support, before)
        else:
            learned = learner.adapt(support)
        state = {name: tensor.contiguous() for name, tensor in learned.items()}
        return Fitted(learner, state, examples.classes, examples)

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


@torch.no_grad()
def _written(
    learner: ReadsStreams, embed: "Embed", before: Fitted | None, texts: tuple[str, ...], labels: "NDArray[np.generic]"
) -> ReadStream:
    stream = ReadStream.new(learner) if before is None else ReadStream.of(before)
    return stream.plus(learner, texts, labels, embed)
