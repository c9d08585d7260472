"""A classifier whose texts have none, one or several labels: its examples, what it learns and what it answers."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from nlpmeta.classifier.fitted import Described, Examples, Fitted
from nlpmeta.data import LabeledTexts
from nlpmeta.data.inputs import checked_texts, values_of
from nlpmeta.data.labels import checked_labels, classes_of, joined, kind_of, words_of
from nlpmeta.data.multilabel import Marks, MultiLabelTexts, checked_marks, gives_several
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.errors import DataError, NLPMetaError, NotThereError
from nlpmeta.learners.abilities import THRESHOLDS, GivesSeveral, without_budget
from nlpmeta.learners.base import Embed, Learner, Texts, learners

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nlpmeta.storage.files import Json

MOST_FOLDS = 5


@dataclass(frozen=True, eq=False)
class SeveralExamples(Examples):
    """Examples with several labels per text: ``labels`` is ``(n, n_labels)`` of booleans."""

    @classmethod
    def marked(cls, texts: tuple[str, ...], marks: Marks, descriptions: Described | None = None) -> "SeveralExamples":
        """From texts and the labels of each."""
        return cls(texts, marks.matrix, None, marks.classes, None, descriptions or {}, marks.as_matrix)

    @property
    def marks(self) -> "NDArray[np.bool_]":
        """Whether each text has each label, ``(n, n_labels)``."""
        return self.labels.astype(bool)

    @property
    def by_name(self) -> "NDArray[np.generic]":
        return self.classes[~self.marks.any(0)]

    def weighed(self, sample_weight: object) -> "SeveralExamples":
        """Refuse weights.

        Raises:
            NLPMetaError: if there are any.
        """
        if sample_weight is not None:
            raise NLPMetaError("sample_weight requires one label per text; leave it out where texts have several.")
        return self

    def data(self) -> LabeledTexts:
        """Refuse: one label per text is wanted.

        Raises:
            NLPMetaError: always.
        """
        raise NLPMetaError("This model gives several labels per text; that requires one label per text.")

    def several(self) -> MultiLabelTexts:
        """The same as texts with label names."""
        marks = tuple(tuple(np.flatnonzero(row).tolist()) for row in self.marks)
        described = tuple(self.descriptions.get(label, ()) for label in self.classes.tolist())
        names = words_of(self.classes)
        return MultiLabelTexts(self.texts, marks, names, descriptions=described if self.descriptions else None)

    def with_marks(self, texts: tuple[str, ...], marks: Marks) -> "SeveralExamples":
        """With more examples; one whose text is there already replaces it. New labels come after the others.

        Raises:
            DataError: if the new labels are of another kind.
        """
        every = joined(self.classes, marks.classes)
        order = list(dict.fromkeys(every.tolist()))
        classes = every[[every.tolist().index(label) for label in order]]
        classes_of(classes)  # refuses two spellings of one label
        place = [order.index(label) for label in marks.classes.tolist()]
        new = np.zeros((len(texts), len(order)), dtype=bool)
        new[:, place] = marks.matrix
        old = np.pad(self.marks, ((0, 0), (0, len(order) - len(self.classes))))
        row_of = {text: row for row, text in enumerate(self.texts)}
        fresh = []
        for row, text in enumerate(texts):
            if text in row_of:
                old[row_of[text]] = new[row]
            else:
                fresh.append(row)
        added = tuple(texts[row] for row in fresh)
        labels = np.concatenate([old, new[fresh]])
        return replace(self, texts=self.texts + added, labels=labels, classes=classes)

    def with_class(self, label: object) -> "SeveralExamples":
        return self.with_marks((), Marks(np.zeros((0, 1), dtype=bool), checked_labels([label])))

    def without(self, number: int) -> "SeveralExamples":
        """Without a label; its texts stay, with their other labels."""
        gone = self.classes.tolist()[number]
        described = {label: each for label, each in self.descriptions.items() if label != gone}
        labels, classes = np.delete(self.labels, number, axis=1), np.delete(self.classes, number)
        return replace(self, labels=labels, classes=classes, descriptions=described)

    def renamed(self, number: int, label: object) -> "SeveralExamples":
        old: list[object] = self.classes.tolist()
        if kind_of(label) is not kind_of(old[number]):
            raise DataError(f"The new label {label!r} is not of the same type as the old one, {old[number]!r}.")
        classes = checked_labels([label if i == number else each for i, each in enumerate(old)])
        classes_of(classes)
        described = {label if each == old[number] else each: texts for each, texts in self.descriptions.items()}
        return replace(self, classes=classes, descriptions=described)


def several_given(
    X: object,  # noqa: N803
    y: object,
    classes: object = None,
    *,
    usual: object = None,
) -> tuple[tuple[str, ...], Marks]:
    """Texts and the labels of each, checked; there may be none if ``classes`` names the labels.

    Raises:
        DataError: if a text or a label cannot be used, or there are not as many of the one as of the other.
    """
    marks = checked_marks(y, classes, usual=usual)
    given = values_of(X, name="X", what="texts")
    texts = checked_texts(given) if given or classes is None else ()
    if len(texts) != len(marks):
        raise DataError(f"X has {len(texts)} texts but y has the labels of {len(marks)}.")
    if len(marks.classes) < 2 and usual is None:
        raise DataError(
            f"Several labels per text need at least two labels; there is one: {marks.classes.tolist()[0]!r}. "
            "For one label, give each text one of two classes, such as yes and no."
        )
    return texts, marks


def several_learned(learner: Learner, examples: SeveralExamples, embed: Embed, *, names: Embed) -> Fitted:
    """What ``learner`` makes of the examples; texts are embedded by ``embed``, the names of labels by ``names``.

    Raises:
        DataError: if it gives one label per text, or a label has no example and nothing says in words what it is.
    """
    if not isinstance(learner, GivesSeveral):
        raise DataError(
            f"{learners.name_of(type(learner))} gives one label per text; several labels need the method 'auto'."
        )
    known = examples.embedded(embed)
    return Fitted.of(learner, learner.adapt_several(examples.several(), names, features=known.features), known)


def takes_several(fitted: Fitted | None, y: object) -> bool:
    """Whether examples that come in are to have several labels per text.

    Raises:
        DataError: if they have and the model gives one label per text.
    """
    if fitted is None:
        return gives_several(y, None)
    if not fitted.gives_sets and gives_several(y, None):
        raise DataError("y holds several labels per text, and this model gives one; fit another one with such labels.")
    return fitted.gives_sets


def more_marked(known: Examples | None, X: object, y: object, classes: object) -> SeveralExamples:  # noqa: N803
    """Known examples of a model, if any, and further ones, of which a single text may stand alone with its labels.

    Raises:
        DataError: as ``several_given``, or if a matrix is not as wide as the earlier one.
    """
    texts, labels = ([X], [y]) if isinstance(X, str) else (X, y)
    if known is None:
        return SeveralExamples.marked(*several_given(texts, labels, classes))
    if not isinstance(known, SeveralExamples):  # such a model is read with examples of its own kind
        raise DataError("The examples of this model have one label per text.")
    marks = checked_marks(labels, classes, usual=known.classes.tolist())
    given = checked_texts(texts)
    if len(given) != len(marks):
        raise DataError(f"X has {len(given)} texts but y has the labels of {len(marks)}.")
    return known.with_marks(given, marks)


def label_sets_of(fitted: Fitted, probabilities: "NDArray[np.float32]") -> "NDArray[np.int64] | list[list[object]]":
    """The labels of each text: a list of lists, or a 0/1 matrix where the model learned from one.

    Args:
        fitted: the model.
        probabilities: of each label, ``(n, n_labels)``.
    """
    found = probabilities >= thresholds_of(fitted)
    if fitted.as_matrix:
        return found.astype(np.int64)
    classes: list[object] = fitted.classes.tolist()
    return [[classes[i] for i in np.flatnonzero(row)] for row in found]


def several_answers(
    fitted: Fitted, rows: "NDArray[np.float32]", *, top: int | None = None, threshold: float | None = None
) -> list[list[tuple[object, float]]]:
    """The labels of each text with their probabilities, the most probable first.

    Args:
        fitted: the model.
        rows: the probabilities of each label, ``(n, n_labels)``.
        top: so many labels of each text, whatever their probability.
        threshold: the least probability, in place of the threshold that each label has.
    """
    least = thresholds_of(fitted) if threshold is None else threshold
    given = np.ones_like(rows, dtype=bool) if top is not None else rows >= least
    classes: list[object] = fitted.classes.tolist()
    order = np.argsort(-rows, axis=1, kind="stable")[:, :top]
    return [
        [(classes[i], float(row[i])) for i in places if there[i]]
        for row, places, there in zip(rows, order.tolist(), given, strict=True)
    ]


def thresholds_of(fitted: Fitted) -> "NDArray[np.float32]":
    """The probability from which on each label is given, ``(n_labels,)``.

    Raises:
        NotThereError: if the model gives one label per text.
    """
    if not fitted.gives_sets:
        raise NotThereError("This model gives one label per text, so its labels have no thresholds.")
    found: NDArray[np.float32] = fitted.state[THRESHOLDS].float().sigmoid().cpu().numpy()
    return found


def known_embeddings(learner: Learner, examples: Examples) -> Embed | None:
    """The embeddings that the examples hold; others are computed."""
    features = examples.features
    if learner.inputs != "embeddings" or features is None:
        return None
    return EmbeddingTable.of(learner.encoder, examples.texts[: len(features)], features)


@torch.no_grad()
def held_out_sets(
    learner: Learner, examples: SeveralExamples
) -> "tuple[NDArray[np.float32], NDArray[np.bool_]] | None":
    """The probability of each label, ``(n, n_labels)``, and whether it is given, by what the other folds teach.

    ``None`` where there are too few examples, or a label has its only ones in one fold and a name that says nothing.
    By the heads alone where ``learner`` has a budget for fine-tuning.
    """
    from nlpmeta.episodes.index import multilabel_folds

    learner = without_budget(learner)
    embed = known_embeddings(learner, examples) or learner.encoder.encode
    folds = multilabel_folds(len(examples.texts), MOST_FOLDS, seed=0)
    found, given = np.zeros(examples.marks.shape, np.float32), np.zeros(examples.marks.shape, bool)
    for rest, out in folds:
        known = tuple(examples.texts[row] for row in rest)
        part = replace(examples, texts=known, labels=examples.labels[rest], features=None)
        try:
            fitted = several_learned(learner, part, embed, names=embed)
        except DataError:
            return None
        texts = tuple(examples.texts[row] for row in out)
        found[out] = fitted.predictor.logits(Texts(texts, embed(texts))).float().sigmoid().cpu().numpy()
        given[out] = found[out] >= thresholds_of(fitted)
    return (found, given) if folds else None


def marks_json(examples: Examples) -> "list[Json] | None":
    """The places of the labels of each text; ``None`` where each has one label."""
    if not isinstance(examples, SeveralExamples):
        return None
    return [np.flatnonzero(row).tolist() for row in examples.marks]


def examples_from(
    texts: tuple[str, ...], found: object, classes: "NDArray[np.generic]", *, as_matrix: bool
) -> SeveralExamples:
    """What ``marks_json`` wrote, with its texts.

    Raises:
        ValueError: if it is not a list of places a text.
    """
    if not isinstance(found, list) or len(found) != len(texts):
        raise ValueError("it does not have labels for each text")
    matrix = np.zeros((len(texts), len(classes)), dtype=bool)
    for row, places in enumerate(found):
        if not isinstance(places, list) or any(
            type(each) is not int or not 0 <= each < len(classes) for each in places
        ):
            raise ValueError("a label is none of the classes")
        matrix[row, places] = True
    return SeveralExamples.marked(texts, Marks(matrix, classes, as_matrix))
