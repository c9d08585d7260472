"""What a text is given by ``nlpmeta predict``: the columns beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlpmeta.classifier import FewShotClassifier

Answer = dict[str, object]
"""The value of each column for one text; all are ``None`` for a text that is empty."""


@dataclass(frozen=True)
class Asked:
    """Which columns are wanted.

    Args:
        top: the most probable labels to name, ``None`` for the first alone without a list of them.
        coverage: how often a set of labels shall hold the true one, ``None`` for one label.
        nested: several labels as a list (JSON), not as columns of their own.
    """

    top: int | None = None
    coverage: float | None = None
    nested: bool = False

    def columns(self, n_way: int) -> tuple[str, ...]:
        """The names of the columns for a classifier of ``n_way`` classes."""
        if self.coverage is not None:
            sets = ("labels", "probabilities") if self.nested else ("label", "probability")
            return (*sets, "unsure", "coverage")
        more = range(2, min(self.top or 1, n_way) + 1)
        if self.nested:
            return ("label", "probability", *(["top"] if self.top else []))
        return ("label", "probability", *(name for k in more for name in (f"label_{k}", f"probability_{k}")))


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
    names = classifier.classes_.tolist()
    rows = []
    for row, best in zip(probabilities, order, strict=True):
        pairs = [(names[label], round(float(row[label]), 6)) for label in best]
        flat = tuple(value for pair in pairs for value in pair)
        named = [{"label": label, "probability": probability} for label, probability in pairs]
        rows.append(flat if not asked.nested else (*pairs[0], *([named] if asked.top else [])))
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
