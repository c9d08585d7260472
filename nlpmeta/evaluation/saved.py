"""Saved models on labelled texts: each as it is, and two of them on the same texts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.metrics import calibration_error, macro_f1, several_scores
from nlpmeta.metrics.scores import Difference, Proportion, paired_difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.data import LabeledTexts

UNSEEN = -1
"""The number of a label that a model does not know."""
_MOST_NAMED = 10


@dataclass(frozen=True, eq=False)
class Answers:
    """What one saved model said of labelled texts.

    Attributes:
        name: of the model.
        classes: its labels as text, ``(n_way,)``.
        labels: for each text the number of its class, or ``UNSEEN``; ``(n,)``.
        given: the labels of the texts as the data spells them, ``(n,)``.
        probabilities: ``(n, n_way)``.
    """

    name: str
    classes: tuple[str, ...]
    labels: "NDArray[np.int64]"
    given: tuple[str, ...]
    probabilities: "NDArray[np.float64]"

    @classmethod
    def of(
        cls, name: str, classes: "NDArray[np.generic]", data: "LabeledTexts", probabilities: "NDArray[np.floating]"
    ) -> "Answers":
        """Match the labels of ``data`` with the ``classes`` ``(n_way,)`` of a model.

        Raises:
            DataError: if the model knows none of the labels.
        """
        number = match_labels(data.label_names, classes)
        given = tuple(data.names())
        known = tuple(str(each) for each in classes.tolist())
        if not any(label in number for label in given):
            raise DataError(
                f"{name} knows none of the labels of the data. The model has {_named(known)}; "
                f"the data has {_named(sorted(set(given)))}."
            )
        labels = np.asarray([number.get(label, UNSEEN) for label in given], dtype=np.int64)
        return cls(name, known, labels, given, np.asarray(probabilities, dtype=np.float64))

    @cached_property
    def predictions(self) -> "NDArray[np.int64]":
        """The number of the most probable class of each text, ``(n,)``."""
        found: NDArray[np.int64] = self.probabilities.argmax(1)
        return found

    @cached_property
    def scored(self) -> "NDArray[np.bool_]":
        """Which texts have a label that the model knows, ``(n,)``."""
        known: NDArray[np.bool_] = self.labels != UNSEEN
        return known

    @property
    def right(self) -> "NDArray[np.bool_]":
        """Which texts were classified right, ``(n,)``."""
        found: NDArray[np.bool_] = self.predictions == self.labels
        return found

    @property
    def accuracy(self) -> Proportion:
        """Right answers among the texts whose label the model knows."""
        return Proportion(int(self.right.sum()), int(self.scored.sum()))

    @property
    def accuracy_of_all(self) -> Proportion:
        """The same with the texts of unseen labels, which cannot be right."""
        return Proportion(int(self.right.sum()), len(self.labels))

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that occur among the scored texts and what was said of them."""
        return macro_f1(self.labels[self.scored].tolist(), self.predictions[self.scored].tolist())

    @property
    def calibration_error(self) -> float:
        """How far confidence and accuracy are apart on the scored texts."""
        return calibration_error(self.labels[self.scored], self.probabilities[self.scored])

    @property
    def unseen(self) -> dict[str, int]:
        """Labels that the model does not know, with the number of their texts, the most frequent first."""
        found = Counter(label for label, known in zip(self.given, self.scored.tolist(), strict=True) if not known)
        return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))

    def confused(self, most: int = 5) -> list[tuple[str, str, int]]:
        """The pairs (true label, predicted label) that were mistaken most often, with how many texts."""
        wrong = np.flatnonzero(self.scored & ~self.right).tolist()
        pairs = Counter((self.classes[self.labels[row]], self.classes[self.predictions[row]]) for row in wrong)
        ranked = sorted(pairs.items(), key=lambda each: (-each[1], each[0]))
        return [(true, guess, count) for (true, guess), count in ranked[:most]]

    def said_of(self, row: int) -> tuple[str, float]:
        """The label that was given to a text, and its probability."""
        guess = int(self.predictions[row])
        return self.classes[guess], float(self.probabilities[row, guess])


@dataclass(frozen=True)
class Pair:
    """Two models on the texts whose labels both know.

    Attributes:
        baseline: the name of the one.
        other: the name of the other.
        n_texts: texts whose labels both know.
        only_baseline: texts that only the one had right.
        only_other: texts that only the other had right.
        p_value: of McNemar's exact test.
        gain: the accuracy of the other less that of the one, with a bootstrap interval over texts.
        differ: rows of texts that the two gave different labels.
    """

    baseline: str
    other: str
    n_texts: int
    only_baseline: int
    only_other: int
    p_value: float
    gain: Difference
    differ: tuple[int, ...]


def match_labels(given: Sequence[str], classes: "NDArray[np.generic]") -> Mapping[str, int]:
    """The number of the class that each label of a table means; labels that mean none are left out.

    Labels are compared as the kind that the model was saved with: ``1``, ``01`` and ``1.0`` are the number 1 and
    ``TRUE`` is true, while text is compared letter by letter.

    Args:
        given: labels as text.
        classes: the labels of the model, ``(n_way,)``.
    """
    number = {each: i for i, each in enumerate(classes.tolist())}
    found: dict[str, int] = {}
    for label in given:
        value = _as_kind(label, classes.dtype.kind)
        if value is not None and value in number:
            found[label] = number[value]
    return found


def compare(baseline: Answers, other: Answers, *, seed: int = 0) -> Pair:
    """Two models on the same texts.

    Source: McNemar 1947, the exact form: under equal error rates each text that only one of them has right is as
    likely to be the one's as the other's.

    Args:
        baseline: the one.
        other: the other, of the same texts in the same order.
        seed: of the bootstrap.

    Raises:
        DataError: if no text has a label that both know.
    """
    from scipy.stats import binomtest

    rows = np.flatnonzero(baseline.scored & other.scored)
    if not len(rows):
        raise DataError(f"No text has a label that both {baseline.name} and {other.name} know.")
    one, two = baseline.right[rows], other.right[rows]
    only_one, only_two = int((one & ~two).sum()), int((two & ~one).sum())
    p_value = float(binomtest(only_two, only_one + only_two).pvalue) if only_one + only_two else 1.0
    gain = paired_difference(one.astype(float).tolist(), two.astype(float).tolist(), seed=seed)
    differ = tuple(row for row in range(len(baseline.labels)) if baseline.said_of(row)[0] != other.said_of(row)[0])
    return Pair(baseline.name, other.name, len(rows), only_one, only_two, p_value, gain, differ)


def score_several(classifier: "FewShotClassifier", data: "LabeledTexts") -> tuple[dict[str, float], dict[str, int]]:
    """The figures of a saved model on labelled texts, and the labels that it does not know with their texts.

    Raises:
        NLPMetaError: if model and data do not both have several labels per text.
        DataError: if the model knows none of the labels.
    """
    if not classifier.fitted_.gives_sets:
        raise NLPMetaError("The data has several labels per text and the model gives one; adapt one to such data.")
    texts, names = MultiLabelTexts.of(data), [str(each) for each in classifier.classes_.tolist()]
    unseen = {name: count for name, count in texts.counts().items() if name not in names}
    if len(unseen) == len(texts.label_names):
        raise DataError(f"The model knows none of the labels of the data. It has {', '.join(names)}.")
    found = classifier.predict_proba(list(texts.texts))
    marks = texts.with_labels(names).matrix()
    return several_scores(marks, found, found >= classifier.thresholds_), unseen


def _as_kind(label: str, kind: str) -> str | float | bool | None:
    """The label as the kind of a NumPy dtype; ``None`` if it is none."""
    if kind == "b":
        return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(
            label.strip().lower()
        )
    if kind not in "iuf":
        return label
    try:
        return int(label)
    except ValueError:
        pass
    try:
        return float(label)
    except ValueError:
        return None


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_NAMED} more" if len(labels) > _MOST_NAMED else ""
    return ", ".join(map(repr, labels[:_MOST_NAMED])) + more
