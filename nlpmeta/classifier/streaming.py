"""Learning example by example, and a task on disk."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from nlpmeta.classifier.fitted import Described, Examples, Fitted
from nlpmeta.classifier.given import checked_weights
from nlpmeta.data.inputs import is_unicode
from nlpmeta.data.labels import checked_descriptions, checked_labels, classes_of, joined, kind_of, like, plain
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError
from nlpmeta.learners.abilities import SLOTS, ReadsStreams
from nlpmeta.learners.base import Learner, TaskState, Texts
from nlpmeta.storage.files import Json, read_json, write_bytes, write_json
from nlpmeta.storage.hub_download import looks_like_name
from nlpmeta.storage.tensors import read_tensors

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


def as_batch(
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
) -> "tuple[Sequence[str] | ArrayLike, ArrayLike]":
    """One text and its label as a list of each; anything else as it is."""
    if isinstance(X, str):
        return [X], [cast("str", y)]
    return X, y


TEXTS_FILE, FEATURES_FILE = "support.json", "support.safetensors"
_LARGEST_FEATURE = 1e4  # embeddings are of unit length, or of some hundred where they are not scaled
_KINDS: dict[str, type] = {"U": str, "S": str, "b": bool, "f": float, "i": int, "u": int}


@dataclass(frozen=True, eq=False)
class LabelsFile:
    """The classes as a file keeps them: at least two, what was said of each, and those without an example, if any."""

    classes: "NDArray[np.generic]"
    descriptions: Described
    by_name: "NDArray[np.generic] | None"


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
        return LabelsFile(classes, described, _by_name(facts.get("without_example"), classes))
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
    query = Texts(("",), blank) if learner.inputs == "embeddings" else Texts(("a",))
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
            return f"{name} holds a number that is none"
    slots: list[int] = state[SLOTS].tolist()
    if len(set(slots)) < n_way or not all(0 <= slot < learner.max_way for slot in slots):
        return "two classes share a place, or one has none"
    for label in range(n_way + 1):  # once more of each class, and a new one where there is room
        with suppress(DataError):
            learner.write(state, features, label)
    return ""


def write_examples(folder: Path, examples: Examples) -> None:
    """Write texts and labels as JSON, embeddings as safetensors."""
    from safetensors.torch import save

    weights = {} if examples.weights is None else {"weights": examples.weights.tolist()}
    write_json(folder / TEXTS_FILE, {"texts": list(examples.texts), "labels": plain(examples.labels), **weights})
    if examples.features is not None:
        write_bytes(folder / FEATURES_FILE, save({"features": examples.features.cpu().contiguous()}))


def read_examples(
    folder: Path, classes: "NDArray[np.generic]", by_name: "NDArray[np.generic] | None", device: torch.device
) -> Examples | None:
    """What ``write_examples`` wrote; ``None`` if it did not and there is more to know than the names of the classes.

    Raises:
        ModelFolderError: if a file is damaged or does not fit the classes.
    """
    path = folder / TEXTS_FILE
    alone: list[object] = [] if by_name is None else by_name.tolist()
    if not path.is_file():
        return Examples((), classes[:0], None, classes) if len(alone) == len(classes) else None
    try:
        found = cast("dict[str, list[object]]", read_json(path))
        texts, labels = tuple(map(str, found["texts"])), like(found["labels"], classes)
        weights = checked_weights(found.get("weights"), len(texts))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, NLPMetaError):
            raise
        raise ModelFolderError(f"{path} is damaged ({error}). Save the model again.") from error
    has_features = (folder / FEATURES_FILE).is_file()
    features = read_tensors(folder / FEATURES_FILE).get("features") if has_features else None
    fits = labels.shape == (len(texts),) and is_unicode("".join(texts))
    fits = fits and (features is None or _are_embeddings(features, len(texts)))
    if not fits or set(labels.tolist()) != set(classes.tolist()) - set(alone):
        raise ModelFolderError(f"{path} does not fit the other files of the model. Save the model again.")
    return Examples(texts, labels, None if features is None else features.to(device), classes, weights)


def _are_embeddings(features: torch.Tensor, n: int) -> bool:
    """Whether these can be embeddings ``(n, dim)``; heads cannot be solved with numbers that are far larger."""
    if features.ndim != 2 or len(features) != n or features.dtype != torch.float32:
        return False
    return bool((features.abs() <= _LARGEST_FEATURE).all())
