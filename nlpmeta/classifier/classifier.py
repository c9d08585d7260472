"""A few-shot text classifier with scikit-learn's manners: fit, predict, save, load."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from nlpmeta.classifier.answering import AnsweringClassifier
from nlpmeta.classifier.fitted import Examples, Fitted
from nlpmeta.classifier.given import at_least_two, checked_pairs, given_examples, learned
from nlpmeta.classifier.persistence import known_examples
from nlpmeta.classifier.several import more_marked, takes_several
from nlpmeta.classifier.streaming import ReadStream, as_batch, written
from nlpmeta.data import Label, LabeledTexts
from nlpmeta.data.inputs import check_kind, checked_texts
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.encoder.tokenizing import cut_texts_said
from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.learners.abilities import ReadsStreams, reads_no_names, with_budget
from nlpmeta.learners.base import Learner, TaskState
from nlpmeta.learners.start import learner_for

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nlpmeta.encoder.device import Device
    from nlpmeta.encoder.engines import Engine
    from nlpmeta.encoder.text_encoder import TextEncoder
    from nlpmeta.metrics.scores import Embed

_Words: TypeAlias = str | Sequence[str]
Descriptions: TypeAlias = Mapping[str, _Words] | Mapping[int, _Words] | Mapping[bool, _Words] | Mapping[object, _Words]
"""One text or several for each label."""


class FewShotClassifier(AnsweringClassifier):
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

    _names_: EmbeddingTable | None = None
    """The embeddings of class names, so that a change of the classes need not compute them again."""

    def fit(
        self,
        X: "Sequence[str] | ArrayLike",  # noqa: N803
        y: "ArrayLike",
        sample_weight: "ArrayLike | None" = None,
        *,
        classes: "ArrayLike | None" = None,
        descriptions: "Descriptions | None" = None,
        multilabel: bool | None = None,
    ) -> "FewShotClassifier":
        """Adapt to ``X``, a text for each label in ``y``.

        Args:
            X: the texts; or pairs of texts, ``[("a", "b"), …]``, to classify together (with one label each).
            y: their labels; or a list of labels for each text (empty where it has none), or a 0/1 matrix ``(n_texts,
                n_labels)``: the answers are then lists, or such a matrix, and probabilities are independent (``auto``).
            sample_weight: how many texts each counts as; a text of weight 0 is left out. ``logistic``, ``prototypical``
                and ``ridge`` use it.
            classes: all classes, where some have no example in ``y`` (or none has: ``X`` and ``y`` are then empty) and
                are to be known by their names and descriptions alone. ``auto`` and ``prototypical`` can do that. Of a
                matrix the names of its columns.
            descriptions: what classes are, in words of any language: a text or several by label, such as
                ``{"refund": "the customer wants money back"}``. They are read together with the name of the class, and
                in its place if that says nothing (0, ``LABEL_1``), by the methods that read names: ``auto``, and
                ``prototypical`` and ``maml`` on a checkpoint that was trained with names.
            multilabel: whether texts have several labels, where ``y`` does not show it.

        Raises:
            NLPMetaError: if ``sample_weight`` or ``descriptions`` are given and the method does not use them.
            DataError: if a text is not a string or is empty, a label is missing or of another kind than the others,
                lengths differ, there are fewer than two classes, or a description is of no class or says nothing.
        """
        examples = given_examples(X, y, classes, multilabel).weighed(sample_weight).described(descriptions)
        at_least_two(examples.classes)
        learner = self._learner_for(examples.texts)
        with cut_texts_said(examples.texts, learner.encoder):
            return self._change(lambda _: self._learned(learner, examples))

    @classmethod
    def from_names(
        cls,
        classes: "Sequence[Label] | ArrayLike",
        *,
        descriptions: Descriptions | None = None,
        multilabel: bool = False,
        method: "str | Learner" = "auto",
        encoder: "str | TextEncoder" = DEFAULT_ENCODER,
        checkpoint: str = "default",
        max_length: int | None = None,
        device: "Device" = "auto",
        engine: "Engine" = "torch",
    ) -> "FewShotClassifier":
        """A classifier that knows its classes by their names and descriptions, without an example of any.

        It is ``fit([], [], classes=classes, descriptions=descriptions)``; ``partial_fit`` adds examples later. Nothing
        is measured: label some texts and ``score`` it before you rely on it.

        Args:
            classes: the labels, at least two.
            descriptions: what classes are, as in ``fit``; needed where a name says nothing (0, ``LABEL_1``).
            multilabel: whether a text may have none or several of them.
            method: ``auto`` or ``prototypical``; this and what follows as in the constructor.
            encoder: texts to vectors.
            checkpoint: what adaptation starts from.
            max_length: tokens that are read of a text.
            device: where it runs.
            engine: what embeds.

        Raises:
            DataError: if a name is missing, empty, there twice, or says nothing and has no description.
            NLPMetaError: if the method needs examples.
        """
        self = cls(method, encoder=encoder, checkpoint=checkpoint, max_length=max_length, device=device, engine=engine)
        return self.fit([], [], classes=classes, descriptions=descriptions, multilabel=multilabel)

    def partial_fit(  # noqa: D417  # classes is scikit-learn's
        self,
        X: "Sequence[str] | ArrayLike",  # noqa: N803
        y: "ArrayLike",
        classes: "ArrayLike | None" = None,
        *,
        descriptions: "Descriptions | None" = None,
    ) -> "FewShotClassifier":
        """Learn ``X`` and ``y`` in addition to what was learned before; new classes may appear at any time.

        Only the new texts are embedded; the method then adapts to all examples. Where the score of a class depends on
        its own examples alone (``prototypical``, ``knn``, ...) the scores of the other classes stay as they are.
        ``auto`` fits its heads again, and weighs them anew once the examples are 1.5 times as many or as few.

        A method that reads a stream (``mann``, ``rnn``, ``snail``) writes the new texts into its memory, in constant
        time, and keeps no examples; it may start from nothing. ``X`` and ``y`` may be one text and its label.

        ``descriptions`` are as in ``fit``; those of a class replace the ones that it had. Where texts have several
        labels, those of a text that is there already replace the ones that it had.

        Raises:
            DataError: as ``fit``, or if a stream has no room for another class.
            NLPMetaError: if this model was loaded from a folder that does not hold its examples.
        """
        if takes_several(self._fitted_, y):
            return self._change(lambda before: self._more_marked(before, X, y, classes, descriptions))
        texts, labels = checked_pairs(*as_batch(X, y))

        def taught(before: Fitted | None) -> Fitted:
            if isinstance(learner, ReadsStreams):
                if descriptions is not None:
                    raise reads_no_names(learner)
                return written(learner, learner.encoder.encode, before, texts, labels).fitted(learner)
            if before is None:
                return self._learned(learner, Examples.of(texts, labels).described(descriptions))
            examples = known_examples(before).plus(texts, labels).described(descriptions)
            return self._learned(learner, examples, before=before)

        learner: Learner = self.learner_ if hasattr(self, "learner_") else self._learner_for(texts)
        check_kind(texts, pairs=learner.encoder.pairs)
        with cut_texts_said(texts, learner.encoder):
            return self._change(taught)

    def _more_marked(
        self, before: Fitted | None, X: object, y: object, classes: object, descriptions: object  # noqa: N803
    ) -> Fitted:  # fmt: skip
        examples = more_marked(known_examples(before) if before else None, X, y, classes).described(descriptions)
        return self._learned(self.learner_ if before else self._learner_for(examples.texts), examples)

    def add_class(
        self, label: Label, texts: Sequence[str] | None = None, *, description: str | Sequence[str] | None = None
    ) -> "FewShotClassifier":
        """Add a class with its example texts and, if there is one, its description; as ``partial_fit``.

        Without ``texts`` it is known by its name and description, which ``auto`` and ``prototypical`` can do.

        Raises:
            DataError: if there is such a class already, ``texts`` is empty, or without ``texts`` its name says nothing.
        """
        if label in self.classes_.tolist():
            raise DataError(f"There is a class {label!r} already; partial_fit adds examples to it.")
        described: dict[object, str | Sequence[str]] | None = None if description is None else {label: description}
        if texts is None:
            return self._change(lambda before: self._with_class(before or self.fitted_, label, described))
        checked = checked_texts(texts, pairs=True)
        labels = [[label]] * len(checked) if self._fitted_ and self._fitted_.gives_sets else [label] * len(checked)
        return self.partial_fit(checked, labels, descriptions=described)

    def _with_class(self, known: Fitted, label: Label, described: Descriptions | None) -> Fitted:
        if isinstance(known.learner, ReadsStreams):
            raise NLPMetaError("This method learns a class from its examples; give add_class some texts.")
        examples = known_examples(known).with_class(label).described(described)
        return self._learned(known.learner, examples, before=known)

    def describe(self, descriptions: Descriptions) -> "FewShotClassifier":
        """Say in words what classes are, in place of what was said of them before; as ``descriptions`` of ``fit``.

        Raises:
            DataError: if a description is of no class, or says nothing.
            NLPMetaError: if the method reads none, or the model was loaded from a folder without its examples.
        """

        def described(before: Fitted | None) -> Fitted:
            known = before or self.fitted_
            if isinstance(known.learner, ReadsStreams):
                raise reads_no_names(known.learner)
            return self._learned(known.learner, known_examples(known).described(descriptions), before=known)

        return self._change(described)

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
            return self._learned(known.learner, known_examples(known).without(number), before=known)

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
            return self._learned(known.learner, known_examples(known).renamed(number, new), before=known)

        return self._change(renamed)

    @classmethod
    def adapted(
        cls, learner: Learner, support: LabeledTexts, *, embed: "Embed | None" = None, state: TaskState | None = None
    ) -> "FewShotClassifier":
        """``fit`` for labelled texts whose embeddings may be known already; the classes keep their order.

        Args:
            learner: what adapts.
            support: the labelled texts.
            embed: where the embeddings of a learner that works on embeddings come from.
            state: what ``learner`` learned from them, where that is known already.
        """
        known = embed if learner.inputs == "embeddings" else None
        features = None if known is None else known(support.texts)
        labels = np.asarray(support.names(), dtype=np.asarray(support.label_names).dtype)
        classes = np.asarray(support.label_names)
        examples = Examples(support.texts, labels if len(labels) else classes[:0], features, classes)
        if support.descriptions is not None:
            each = zip(support.label_names, support.descriptions, strict=True)
            examples = examples.described({name: texts for name, texts in each if texts})
        self = cls(learner.eval())
        fitted = None if state is None else Fitted.of(learner, state, examples)
        return self._change(lambda _: fitted or self._learned(learner, examples, embed=known))

    def _learner_for(self, texts: Sequence[str]) -> Learner:
        learner = learner_for(
            texts, self.method, self.encoder, checkpoint=self.checkpoint, max_length=self.max_length,
            device=self.device, engine=self.engine,
        )  # fmt: skip
        return with_budget(learner, self.budget)

    def _learned(
        self,
        learner: Learner,
        examples: Examples,
        *,
        embed: "Embed | None" = None,
        before: Fitted | None = None,
    ) -> Fitted:
        """What ``learner`` makes of ``examples``, from what was learned ``before`` if anything."""
        names = self._names_
        if names is None or names.encoder is not learner.encoder:
            self._names_ = names = EmbeddingTable(learner.encoder)
        with self._embedding():
            return learned(learner, examples, embed=embed, names=names, before=before)
