"""Learning example by example, and a task on disk."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from nlpmeta.classifier.fitted import Described, Fitted
from nlpmeta.data.inputs import is_unicode
from nlpmeta.data.labels import checked_descriptions, checked_labels, classes_of, joined, kind_of, like, plain
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError
from nlpmeta.learners.abilities import SLOTS, ReadsStreams
from nlpmeta.learners.base import Embed, Learner, TaskState, Texts
from nlpmeta.storage.files import Json, read_json, write_json
from nlpmeta.storage.hub_download import looks_like_name

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class ReadStream:
    """What a stream has come to: its memory, and its classes, sorted."""

    state: TaskState
    classes: "NDArray[np.generic]"

    @classmethod
    def new(cls, learner: ReadsStreams) -> "ReadStream":
        """A stream that has seen nothing."""
        return cls(learner.empty(), np.empty(0, dtype=str))

    @classmethod
    def of(cls, fitted: Fitted) -> "ReadStream":
        """The stream that a classifier has read."""
        return cls(fitted.state, fitted.classes)

    def fitted(self, learner: Learner) -> Fitted:
        """What a classifier has learned from it."""
        state = {name: tensor.contiguous() for name, tensor in self.state.items()}
        return Fitted(learner, state, self.classes, None)

    def plus(
        self,
        learner: ReadsStreams,
        texts: Sequence[str],
        labels: "NDArray[np.generic]",
        embed: Callable[[Sequence[str]], Tensor],
    ) -> "ReadStream":
        """After writing ``texts`` one by one; this one stays as it is, also if that fails.

        Raises:
            DataError: if the labels are of another kind than before, or there is no room for their classes.
        """
        known: list[object] = self.classes.tolist()
        every_label = joined(self.classes, labels)
        new = [label for label in dict.fromkeys(labels.tolist()) if label not in known]
        if len(known) + len(new) > learner.max_way:
            raise DataError(
                f"This stream has room for {learner.max_way} classes; it has {len(known)} and {len(new)} more arrived. "
                "Remove a class, or use a learner with a larger max_way."
            )
        state, order = self.state, known + new
        number = {label: i for i, label in enumerate(order)}
        for row, label in zip(embed(texts), labels.tolist(), strict=True):
            state = learner.write(state, row, number[label])
        first = [every_label.tolist().index(label) for label in order]
        return replace(self, state=state, classes=every_label[first])._sorted()

    def without(self, learner: ReadsStreams, number: int) -> "ReadStream":
        """Without a class."""
        return replace(self, state=learner.without(self.state, number), classes=np.delete(self.classes, number))

    def renamed(self, number: int, label: object) -> "ReadStream":
        """With another label for a class.

        Raises:
            DataError: if the new label is of another kind.
        """
        old: list[object] = self.classes.tolist()
        if kind_of(label) is not kind_of(old[number]):
            raise DataError(f"The new label {label!r} is not of the same type as the old one, {old[number]!r}.")
        new = checked_labels([label if i == number else each for i, each in enumerate(old)])
        return replace(self, classes=new)._sorted()

    def _sorted(self) -> "ReadStream":
        known: list[object] = self.classes.tolist()
        order = np.asarray([known.index(label) for label in classes_of(self.classes).tolist()])
        slots = self.state[SLOTS]
        return ReadStream({**self.state, SLOTS: slots[slots.new_tensor(order)]}, self.classes[order])


@torch.no_grad()
def written(
    learner: ReadsStreams, embed: Embed, before: Fitted | None, texts: tuple[str, ...], labels: "NDArray[np.generic]"
) -> ReadStream:
    """The stream after ``texts``, from what was read ``before`` if anything."""
    stream = ReadStream.new(learner) if before is None else ReadStream.of(before)
    return stream.plus(learner, texts, labels, embed)


def as_batch(
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
) -> "tuple[Sequence[str] | ArrayLike, ArrayLike]":
    """One text and its label as a list of each; anything else as it is."""
    if isinstance(X, str):
        return [X], [cast("str", y)]
    return X, y


_KINDS: dict[str, type] = {"U": str, "S": str, "b": bool, "f": float, "i": int, "u": int}


@dataclass(frozen=True, eq=False)
class LabelsFile:
    """The classes as a file keeps them: at least two, what was said of each, and those without an example, if any."""

    classes: "NDArray[np.generic]"
    descriptions: Described
    by_name: "NDArray[np.generic] | None"
    several: bool = False
    """Whether a text may have several of them."""
    as_matrix: bool = False


def write_labels(path: Path, fitted: Fitted) -> None:
    """Write labels of any type that JSON has, what was said of their classes, and which have no example."""
    classes, descriptions = fitted.classes, fitted.descriptions
    kind = classes.dtype.kind if classes.dtype.kind in _KINDS else "U"  # members of an enumeration, numpy's new strings
    facts: dict[str, Json] = {"kind": kind, "labels": list(plain(classes))}
    if descriptions:
        facts["descriptions"] = [list(descriptions.get(label, ())) for label in classes.tolist()]
    if fitted.by_name is not None:
        alone = set(fitted.by_name.tolist())
        facts["without_example"] = [label in alone for label in classes.tolist()]
    if fitted.gives_sets:
        facts |= {"several": True, "as_matrix": fitted.as_matrix}
    write_json(path, facts)


def read_labels(path: Path) -> LabelsFile:
    """What ``write_labels`` wrote, now or in a release that knew neither descriptions nor classes without an example.

    Raises:
        ModelFolderError: if it is damaged.
    """
    found = read_json(path)
    facts = found if isinstance(found, dict) else {}
    try:
        classes = _classes(facts.get("labels"), str(facts.get("kind")))
        described = _descriptions(facts.get("descriptions"), classes)
        several, as_matrix = facts.get("several") is True, facts.get("as_matrix") is True
        by_name = _by_name(facts.get("without_example"), classes)
        return LabelsFile(classes, described, by_name, several, as_matrix)
    except (DataError, OverflowError, ValueError) as error:
        raise ModelFolderError(f"{path} is damaged ({error}). Save the model again.") from error


def _classes(labels: Json, said: str) -> "NDArray[np.generic]":
    kind = _KINDS.get(said)
    if kind is None or not isinstance(labels, list) or not all(type(each) is kind for each in labels):
        raise ValueError("it lists no classes")
    if kind is float and not np.isfinite(labels).all():
        raise ValueError("a class is not a finite number")
    if not is_unicode("".join(map(str, labels))):
        raise ValueError("a class is not Unicode text")
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError("its classes are not distinct")
    return like(labels, np.empty(0, dtype=bytes if said == "S" else kind))


def _descriptions(given: Json, classes: "NDArray[np.generic]") -> Described:
    if given is None:
        return {}
    if not isinstance(given, list) or len(given) != len(classes) or not all(type(texts) is list for texts in given):
        raise ValueError("it has no list of descriptions a class")
    pairs = zip(classes.tolist(), given, strict=True)
    return checked_descriptions({label: texts for label, texts in pairs if texts}, classes)


def _by_name(given: Json, classes: "NDArray[np.generic]") -> "NDArray[np.generic] | None":
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != len(classes) or not all(type(each) is bool for each in given):
        raise ValueError("it does not say which classes have examples")
    return classes[np.asarray(given)] if any(given) else None


def check_encoder_of_stranger(manifest: Mapping[str, Json], name: str) -> None:
    """See that a model of the Hub names an encoder of the Hub: an untrusted model must not read local folders.

    Raises:
        ModelFolderError: if it names a folder.
    """
    facts = manifest.get("encoder")
    encoder = facts.get("id") if isinstance(facts, Mapping) else None
    if not isinstance(encoder, str) or not looks_like_name(encoder):
        raise ModelFolderError(f"The model {name!r} names no encoder of the Hub; it was not loaded.")


@torch.no_grad()
def check_state(learner: Learner, state: TaskState, n_way: int, path: Path) -> None:
    """See by one text that the learner can use ``state``, and for how many classes.

    Raises:
        ModelFolderError: if it cannot, or for another number of classes.
    """
    blank = torch.full((1, learner.encoder.dim), learner.encoder.dim**-0.5, device=learner.encoder.device)
    query = Texts(("a",), blank if learner.inputs == "embeddings" else None)
    try:
        scores = learner.logits(state, query)
        problem = learner.problem_of(state)
    except (RuntimeError, KeyError, IndexError, ValueError, TypeError, StopIteration) as error:
        if isinstance(error, NLPMetaError):
            raise
        reason = " ".join(str(error).split())[:160]
        raise ModelFolderError(
            f"{path} does not fit the method of the model ({reason}). Save the model again."
        ) from error
    if scores.shape != (1, n_way):
        raise ModelFolderError(f"{path} is for {scores.shape[-1]} classes and the model has {n_way}. Save it again.")
    if not bool(scores.isfinite().all()):
        raise ModelFolderError(f"{path} is damaged: its scores are not finite. Save the model again.")
    if not problem and isinstance(learner, ReadsStreams):
        problem = _why_unwritable(learner, state, blank[0], n_way)
    if problem:
        raise ModelFolderError(f"{path} is damaged: {problem}. Save the model again.")


def _why_unwritable(learner: ReadsStreams, state: TaskState, features: Tensor, n_way: int) -> str:
    """What keeps the memory of a stream from being read and written on as one of ``learner``; empty if nothing does."""
    for name, value in learner.empty().items():
        found, shape = state.get(name), (n_way,) if name == SLOTS else tuple(value.shape)
        if found is None or found.shape != shape or found.dtype != value.dtype:
            there = "missing" if found is None else f"{tuple(found.shape)} {found.dtype}"
            return f"{name} is {there}, not {shape} {value.dtype}"
        if not found.is_floating_point() and bool((found < -1).any()):
            return f"{name} holds a value that is not a number"
    slots: list[int] = state[SLOTS].tolist()
    if len(set(slots)) < n_way or not all(0 <= slot < learner.max_way for slot in slots):
        return "two classes share a place, or one has none"
    for label in range(n_way + 1):  # once more of each class, and a new one where there is room
        with suppress(DataError):
            learner.write(state, features, label)
    return ""
