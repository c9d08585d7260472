"""More examples and classes for a classifier that is in use, and what they change on the examples that it holds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nlpmeta.classifier.classifier import Descriptions, FewShotClassifier
from nlpmeta.classifier.fitted import Examples
from nlpmeta.classifier.given import checked_pairs, held_out_probabilities
from nlpmeta.classifier.persistence import known_examples
from nlpmeta.classifier.several import SeveralExamples, held_out_sets, several_given
from nlpmeta.data.inputs import parsed_class_prior, values_of
from nlpmeta.data.labels import Plain, checked_labels, joined, kind_of, words_of
from nlpmeta.data.multilabel import Marks
from nlpmeta.errors import DataError
from nlpmeta.learners.abilities import ReadsStreams
from nlpmeta.learners.base import Learner
from nlpmeta.metrics import several_scores
from nlpmeta.storage.manifest import BEFORE_TEACHING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nlpmeta.storage.files import Json


@dataclass(frozen=True)
class HeldOut:
    """Of how many examples, each classified by what was learned from the other folds, how many were right.

    Where a text may have several labels, all of them are right and none is missing; ``macro_f1`` is known there alone.
    """

    n: int
    right: int
    macro_f1: float | None = None

    @property
    def accuracy(self) -> float:
        """The share that was right."""
        return self.right / self.n

    def json(self) -> "dict[str, Json]":
        """With the accuracy, a fraction of 1."""
        several: dict[str, Json] = {} if self.macro_f1 is None else {"macro_f1": self.macro_f1}
        return {"n": self.n, "right": self.right, "accuracy": self.accuracy, **several}

    def __str__(self) -> str:
        right = f"{100 * self.accuracy:.1f} % ({self.right} of {self.n})"
        return right if self.macro_f1 is None else f"macro-F1 {100 * self.macro_f1:.1f} %, all labels right {right}"


@dataclass(frozen=True)
class Taught:
    """What came in, and accuracy by cross-validation on the examples held: before, after on the same, after on all.

    ``None`` where nothing can be held out, or the method keeps no examples.
    """

    new: dict[str, int]
    """New examples by class; where a text may have several labels, those of new texts and of texts with others now."""
    n_new: int
    """New examples; texts whose labels were replaced are among them."""
    new_classes: tuple[str, ...]
    n_known: int
    """Examples that were there already, with the same label, and were skipped."""
    n_other_label: int
    """New examples whose text is there under another label too; kept under each, or, where a text may have several
    labels, in place of those that it had."""
    described: tuple[str, ...] = ()
    """Classes that were described, for the first time or in other words."""
    before: HeldOut | None = None
    after_on_earlier: HeldOut | None = None
    after: HeldOut | None = None

    @property
    def changes(self) -> bool:
        """Whether the model is another one than before."""
        return bool(self.n_new or self.described)

    def json(self) -> "dict[str, Json]":
        """All of it, for programs."""
        held = {"before": self.before, "after_on_earlier": self.after_on_earlier, "after": self.after}
        return {
            "new": dict(self.new),
            "n_new": self.n_new,
            "new_classes": list(self.new_classes),
            "known": self.n_known,
            "other_label": self.n_other_label,
            "described": list(self.described),
            "cross_validation": {name: None if each is None else each.json() for name, each in held.items()},
        }


NOTHING = Taught({}, 0, (), 0, 0)
"""No example came in."""


def expect(classifier: FewShotClassifier, asked: str) -> None:
    """Say how often classes occur, as ``--class-prior`` has it: ``spam=0.1,ham=0.9``, or ``even`` for equally often.

    Raises:
        DataError: if it says neither, or something that ``set_class_prior`` refuses.
        NLPMetaError: as ``set_class_prior``.
    """
    said = parsed_class_prior(asked, word="even", counts={})
    labels = labels_like(classifier.classes_, list(said))
    classifier.set_class_prior(dict(zip(labels, said.values(), strict=True)) or None)


def teach(
    classifier: FewShotClassifier,
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
    *,
    descriptions: Descriptions | None = None,
) -> Taught:
    """``classifier.partial_fit(X, y)``, with the accuracy on the examples that it holds before and after.

    An example that is there already is skipped, so that the same file may be taught twice. With ``descriptions`` there
    may be no example at all. Where a text may have several labels, ``y`` holds a list of labels for each, and a text
    that is there with others has them replaced.

    Raises:
        DataError: as ``fit``, or if a label is of another kind than the classes.
        NLPMetaError: if the model was saved without its examples.
    """
    if classifier.fitted_.gives_sets:
        return _teach_several(classifier, X, y, descriptions)
    given = cast("Sequence[str]", values_of(X, name="X", what="texts"))
    described_alone = descriptions is not None and not given
    texts, labels = ((), classifier.classes_[:0]) if described_alone else checked_pairs(given, y)
    classes = list(words_of(classifier.classes_))
    if isinstance(classifier.learner_, ReadsStreams):
        classifier.partial_fit(texts, labels, descriptions=descriptions)
        return _taught(words_of(labels), classes, n_known=0, n_other_label=0)
    earlier = known_examples(classifier.fitted_)
    pairs = dict.fromkeys(zip(texts, labels.tolist(), strict=True))
    known = set(zip(earlier.texts, earlier.labels.tolist(), strict=True))
    seen: dict[tuple[str, object], int] = {}
    for row, pair in enumerate(zip(texts, labels.tolist(), strict=True)):
        if pair not in known:
            seen.setdefault(pair, row)
    rows = sorted(seen.values())
    under = set(earlier.texts)
    other = sum(text in under for text, _ in (pair for pair in pairs if pair not in known))
    found = _taught(words_of(labels[rows]), classes, n_known=len(texts) - len(rows), n_other_label=other)
    if not rows and descriptions is None:
        return found
    right_before = _right(classifier.learner_, earlier)
    if rows:
        classifier.partial_fit([texts[row] for row in rows], labels[rows], descriptions=descriptions)
    else:
        classifier.describe(descriptions or {})
    right = _right(classifier.learner_, known_examples(classifier.fitted_))
    same = {row: value for row, value in right.items() if row < len(earlier.texts)}
    return replace(
        found,
        described=tuple(map(str, descriptions or ())),
        before=_held_out(right_before),
        after_on_earlier=_held_out(same),
        after=_held_out(right),
    )


def _teach_several(
    classifier: FewShotClassifier,
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
    descriptions: Descriptions | None,
) -> Taught:
    earlier = _sets_of(classifier)
    given = values_of(X, name="X", what="texts")
    texts: tuple[str, ...] = ()
    marks = Marks(earlier.marks[:0], earlier.classes)
    if given or descriptions is None:
        texts, marks = several_given(given, y, usual=earlier.classes.tolist())
    row_of = {text: row for row, text in enumerate(texts)}  # of a text that is given twice, the last one
    merged = earlier.with_marks(tuple(row_of), Marks(marks.matrix[list(row_of.values())], marks.classes))
    old, new = (dict(zip(each.texts, map(set, each.several().names()), strict=True)) for each in (earlier, merged))
    changed = [text for text in row_of if old.get(text) != new[text]]
    found = replace(
        _taught(
            [label for text in changed for label in sorted(new[text])],
            words_of(earlier.classes),
            n_known=len(texts) - len(changed),
            n_other_label=sum(text in old for text in changed),
        ),
        n_new=len(changed),
    )
    if not changed and descriptions is None:
        return found
    held_out = held_out_sets(classifier.learner_, earlier)
    if changed:
        place = {text: row for row, text in enumerate(merged.texts)}
        matrix = merged.marks[[place[text] for text in changed]].astype(int)
        classifier.partial_fit(changed, matrix, classes=merged.classes, descriptions=descriptions)
    else:
        classifier.describe(descriptions or {})
    after = _sets_of(classifier)
    held_out_after = held_out_sets(classifier.learner_, after)
    return replace(
        found,
        described=tuple(map(str, descriptions or ())),
        before=_of_sets(earlier, held_out),
        after_on_earlier=_of_sets(after, held_out_after, len(earlier.texts)),
        after=_of_sets(after, held_out_after),
    )


def _sets_of(classifier: FewShotClassifier) -> SeveralExamples:
    return cast("SeveralExamples", known_examples(classifier.fitted_))


def _of_sets(
    examples: SeveralExamples, found: "tuple[NDArray[np.float32], NDArray[np.bool_]] | None", most: int | None = None
) -> HeldOut | None:
    """Of all examples, or the first ``most``."""
    if found is None:
        return None
    marks, probabilities, given = (part[:most] for part in (examples.marks, *found))
    scores = several_scores(marks, probabilities, given)
    return HeldOut(len(marks), int((marks == given).all(1).sum()), scores["macro_f1"])


def report_after(report: "Mapping[str, Json]", taught: Taught, classifier: FewShotClassifier) -> "dict[str, Json]":
    """The report of a model that was taught more: what was measured before is kept apart, for it holds no longer.

    Args:
        report: of the model before; empty if there is none.
        taught: what came in.
        classifier: the model after.
    """
    if not taught.changes:
        return dict(report)
    earlier, examples = report.get("taught"), classifier.fitted_.examples
    before = report.get(BEFORE_TEACHING) or {name: value for name, value in report.items() if name != "taught"}
    after: dict[str, Json] = {name: report[name] for name in ("data", "lang") if name in report}
    after |= {"n_way": len(classifier.classes_), "n_support": None if examples is None else len(examples.texts)}
    after["taught"] = [*(earlier if isinstance(earlier, list) else []), taught.json()]
    return after | ({BEFORE_TEACHING: before} if before else {})


def labels_of(classifier: FewShotClassifier, sets: Sequence[Sequence[str]]) -> "tuple[list[Any], NDArray[np.generic]]":
    """The labels of each text, which were typed, as ``teach`` takes them, and the classes that there are then.

    Raises:
        DataError: as ``labels_like``.
    """
    flat = labels_like(classifier.classes_, [name for each in sets for name in each])
    classes = joined(classifier.classes_, checked_labels(flat)) if flat else classifier.classes_
    rest = iter(flat)
    return [[next(rest) for _ in each] for each in sets] if classifier.fitted_.gives_sets else list(flat), classes


def labels_like(classes: "NDArray[np.generic]", names: Sequence[str]) -> list[Plain | bytes]:
    """Labels that were typed or read from a file, as the kind that the classes of a model are.

    Raises:
        DataError: if one cannot be.
    """
    kind = kind_of(classes[0])
    if kind is str:
        return list(names)
    known: dict[str, Plain | bytes] = dict(zip(words_of(classes), classes.tolist(), strict=True))
    found: list[Plain | bytes] = []
    for name in names:
        try:
            typed = name.encode() if kind is bytes else name
            found.append(known[name] if name in known or kind is bool else kind(typed))
        except (KeyError, ValueError) as error:
            raise DataError(
                f"The classes of this model are labels such as {classes.tolist()[0]!r}; {name!r} is of another type."
            ) from error
    return found


def _taught(words: Sequence[str], classes: Sequence[str], *, n_known: int, n_other_label: int) -> Taught:
    new = Counter(words)
    return Taught(dict(sorted(new.items())), len(words), tuple(sorted(set(new) - set(classes))), n_known, n_other_label)


def _held_out(right: dict[int, bool]) -> HeldOut | None:
    return HeldOut(len(right), sum(right.values())) if right else None


def _right(learner: Learner, examples: Examples) -> dict[int, bool]:
    """For each example that can be held out, by its row, whether what was learned from the other folds is right."""
    labels = examples.data().labels
    found = held_out_probabilities(learner, examples)
    return {row: int(each.argmax()) == labels[row] for row, each in found.items()}
