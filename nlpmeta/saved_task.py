"""What a saved task must be like to be used: classes that are classes, tensors that the learner can use."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nlpmeta.errors import ModelFolderError, NLPMetaError, visible
from nlpmeta.examples import is_unicode
from nlpmeta.files import Json, read_json, write_json
from nlpmeta.hub.download import looks_like_name
from nlpmeta.labels import like, plain
from nlpmeta.learners.base import Learner, TaskState, Texts
from nlpmeta.learners.streams import StreamLearner

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS: dict[str, type] = {"U": str, "S": str, "b": bool, "f": float, "i": int, "u": int}


def write_labels(path: Path, classes: "NDArray[np.generic]") -> None:
    """Write labels of any type that JSON has."""
    kind = classes.dtype.kind if classes.dtype.kind in _KINDS else "U"  # members of an enumeration, numpy's new strings
    write_json(path, {"kind": kind, "labels": plain(classes)})


def read_labels(path: Path) -> "NDArray[np.generic]":
    """The classes: at least two, all different, all of the kind that the file names.

    Raises:
        ModelFolderError: if they are not.
    """
    found = read_json(path)
    labels = found.get("labels") if isinstance(found, dict) else None
    said = str(found.get("kind")) if isinstance(found, dict) else ""
    kind = _KINDS.get(said)
    if kind is None or not isinstance(labels, list) or not all(type(each) is kind for each in labels):
        raise ModelFolderError(f"{path} is damaged (it lists no classes). Save the model again.")
    if kind is float and not np.isfinite(labels).all():
        raise ModelFolderError(f"{path} is damaged (a class is not a finite number). Save the model again.")
    if not is_unicode("".join(map(str, labels))):
        raise ModelFolderError(f"{path} is damaged (a class is no Unicode text). Save the model again.")
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ModelFolderError(f"{path} is damaged (its classes are not different). Save the model again.")
    try:
        return like(labels, np.empty(0, dtype=bytes if said == "S" else kind))
    except (OverflowError, ValueError) as error:
        raise ModelFolderError(f"{path} is damaged ({error}). Save the model again.") from error


def check_encoder_of_stranger(manifest: Mapping[str, Json], name: str) -> None:
    """See that a model of the Hub names an encoder of the Hub: a stranger has no business in folders of this machine.

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
    empty = next((name for name, value in state.items() if value.numel() == 0), None)
    if empty is not None and isinstance(learner, StreamLearner):  # it could not be written on
        raise ModelFolderError(f"{path} is damaged: {visible(empty, 60)} is empty. Save the model again.")
    blank = torch.full((1, learner.encoder.dim), learner.encoder.dim**-0.5, device=learner.encoder.device)
    query = Texts(("",), blank) if learner.inputs == "embeddings" else learner.queries(state, ["a"])
    try:
        scores = learner.logits(state, query)
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
