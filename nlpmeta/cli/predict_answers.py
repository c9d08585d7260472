"""What a text is given by ``nlpmeta predict``: the columns beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlpmeta.classifier import FewShotClassifier

NONE = "none of these"
"""What is said of a text that none of the labels fits."""
OUTSIDE = 0.5
"""The out-of-scope score from which on a text is taken to belong to no class."""
Answer = dict[str, object]
"""The value of each column for one text; all are ``None`` for a text that is empty."""


@dataclass(frozen=True)
class Asked:
    """Which columns are wanted.

    Args:
        top: the most probable labels to name, ``None`` for the first alone without a list of them.
        coverage: how often a set of labels shall hold the true one, ``None`` for one label.
        nested: several labels as a list (JSON), not as columns of their own.
        out_of_scope: whether texts that belong to none of the classes are told apart, with their score.
        threshold: the least probability of a label, times that of being in scope; below it the label is ``NONE``.
    """

    top: int | None = None
    coverage: float | None = None
    nested: bool = False
    out_of_scope: bool = False
    threshold: float | None = None

    def columns(self, n_way: int) -> tuple[str, ...]:
        """The names of the columns for a classifier of ``n_way`` classes."""
        if self.coverage is not None:
            sets = ("labels", "probabilities") if self.nested else ("label", "probability")
            return (*sets, "unsure", "coverage")
        more = range(2, min(self.top or 1, n_way) + 1)
        scope = ["out_of_scope"] if self.out_of_scope else []
        if self.nested:
            return ("label", "probability", *(["top"] if self.top else []), *scope)
        return ("label", "probability", *(name for k in more for name in (f"label_{k}", f"probability_{k}")), *scope)

    @property
    def may_refuse(self) -> bool:
        """Whether a text may get the label ``NONE``."""
        return self.out_of_scope or self.threshold is not None

    def refuses(self, probability: float, outside: float | None) -> bool:
        """Whether a text gets the label ``NONE``, by the probability of its label and its score, where it has one."""
        if self.threshold is None:
            return outside is not None and outside >= OUTSIDE
        return probability * (1 - (outside or 0.0)) < self.threshold


def answers(classifier: "FewShotClassifier", texts: Sequence[str], asked: Asked) -> list[Answer]:
    """An answer for each text, in order; an empty text is not asked about."""
    columns = asked.columns(len(classifier.classes_))
    filled = [text for text in texts if text]
    found = iter(_found(classifier, filled, asked) if filled else ())
    return [dict(zip(columns, next(found), strict=True)) if text else dict.fromkeys(columns) for text in texts]


def _found(classifier: "FewShotClassifier", texts: Sequence[str], asked: Asked) -> list[tuple[object, ...]]:
    """The values of ``asked.columns``, in their order, for each text."""
    if asked.coverage is not None:
        return _sets(classifier, texts, asked.coverage, nested=asked.nested)
    return _labels(classifier, texts, asked)


def _labels(classifier: "FewShotClassifier", texts: Sequence[str], asked: Asked) -> list[tuple[object, ...]]:
    probabilities = classifier.predict_proba(texts)
    order = (-probabilities).argsort(axis=1, kind="stable")[:, : asked.top or 1]
    names: list[object] = classifier.classes_.tolist()
    if asked.may_refuse and not asked.nested:
        names = [str(name) for name in names]  # a column has one type
    outside = classifier.out_of_scope(texts).tolist() if asked.out_of_scope else [None] * len(texts)
    rows = []
    for row, best, score in zip(probabilities, order, outside, strict=True):
        pairs = [(names[label], round(float(row[label]), 6)) for label in best]
        named = [{"label": label, "probability": probability} for label, probability in pairs]
        if asked.refuses(pairs[0][1], score):
            pairs[0] = (NONE, pairs[0][1])
        scope = [] if score is None else [round(score, 6)]
        flat = [value for pair in pairs for value in pair]
        rows.append((*flat, *scope) if not asked.nested else (*pairs[0], *([named] if asked.top else []), *scope))
    return rows


def _sets(
    classifier: "FewShotClassifier", texts: Sequence[str], coverage: float, *, nested: bool
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for found in classifier.predict(texts, abstain=coverage):
        probabilities = [round(each, 6) for each in found.probabilities]
        pair = (list(found.labels), probabilities) if nested else (str(found), probabilities[0])
        rows.append((*pair, found.is_unsure, found.coverage))
    return rows
