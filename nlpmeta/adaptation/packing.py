"""A task state in few bytes: float16, or eight bits a number and a scale a row; safetensors, never pickle."""

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from nlpmeta.errors import ModelFolderError, NLPMetaError, visible
from nlpmeta.labels import plain
from nlpmeta.learners.base import TaskState
from nlpmeta.tensors import from_int8, problem_of, to_int8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["float16", "int8"]
Label = str | int | float | bool

USER_BYTES = 16 * 1024
"""The most that one user may take: state, labels and name together."""
_SMALL = 64  # numbers: a tensor of one row that is no larger stays in float32
_INT8, _SCALE = "int8:", "scale:"
_KINDS: dict[str, type] = {"U": str, "b": bool, "f": float, "i": int, "u": int}
_MOST_LABELS = 4096


@dataclass(frozen=True)
class Packed:
    """A state as bytes, with its labels as JSON.

    ``error`` is the largest change of a number, as a share of the largest number of its row: at most 1/2048 in float16
    and 1/254 in int8.
    """

    state: bytes
    labels: str
    precision: Precision
    error: float

    def size(self, user: str) -> int:
        """What ``user`` takes with it, in bytes."""
        return len(self.state) + len(self.labels.encode("utf-8")) + len(user.encode("utf-8"))

    def checksum(self, user: str) -> int:
        """CRC-32 of what is stored for ``user``."""
        return checksum(user, self.state, self.labels)


def checksum(user: str | None, state: bytes, labels: str) -> int:
    """CRC-32 of what is stored for a user, whose name is part of it: one that gets another's row is seen.

    Files of format version 1 have it without the name.
    """
    content = zlib.crc32(labels.encode("utf-8"), zlib.crc32(state))
    return content if user is None else zlib.crc32(user.encode("utf-8"), content)


def pack(user: str, state: TaskState, classes: "NDArray[np.generic]", precision: Precision | None = None) -> Packed:
    """The state of ``user`` in at most ``USER_BYTES``.

    Args:
        user: for the message.
        state: named tensors.
        classes: the labels, in the order of the scores.
        precision: ``None`` takes float16 where it fits, else int8.

    Raises:
        NLPMetaError: if it does not fit, or holds a number that is not finite.
    """
    kind = classes.dtype.kind if classes.dtype.kind in _KINDS else "U"
    labels = json.dumps({"kind": kind, "labels": plain(classes)}, ensure_ascii=False)
    tried: tuple[Precision, ...] = ("float16", "int8") if precision is None else (precision,)
    for each in tried:
        packed = _packed(user, state, labels, each)
        if packed.size(user) <= USER_BYTES:
            return packed
    raise NLPMetaError(
        f"What was learned for user {visible(repr(user), 40)} takes {packed.size(user):,} bytes in {packed.precision}; "
        f"a user may take {USER_BYTES:,}. Use fewer classes ({len(classes)} now), a method that keeps one row a class "
        "(logistic, prototypical, ridge), or adapters of lower rank in fewer layers."
    )


def unpack(state: bytes, labels: str) -> tuple[TaskState, tuple[Label, ...]]:
    """What ``pack`` made, as float32 tensors and plain labels.

    Raises:
        ModelFolderError: if it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        stored = load(state)
        found = json.loads(labels)
        names = tuple(_KINDS[found["kind"]](label) for label in found["labels"])
        tensors = {name: _unpacked(name, tensor, stored) for name, tensor in stored.items() if _is_value(name)}
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise ModelFolderError(f"What is stored for a user is damaged ({error}). Adapt to that user again.") from error
    if not 2 <= len(names) <= _MOST_LABELS or len(set(names)) != len(names) or not tensors:
        raise ModelFolderError("What is stored for a user has no state or impossible labels. Adapt to the user again.")
    wrong = next(filter(None, map(problem_of, tensors.values())), "")
    if wrong or any(name.startswith(_SCALE) and not bool((scale > 0).all()) for name, scale in stored.items()):
        raise ModelFolderError(f"What is stored for a user is damaged ({wrong or 'a scale is not above zero'}).")
    return {name.removeprefix(_INT8): tensor for name, tensor in tensors.items()}, names


def _packed(user: str, state: TaskState, labels: str, precision: Precision) -> Packed:
    from safetensors.torch import save

    stored: TaskState = {}
    errors = [0.0]
    for name, tensor in state.items():
        value = tensor.detach().cpu().contiguous()
        if not value.is_floating_point():
            stored[name] = value
            continue
        if not bool(value.isfinite().all()):
            raise NLPMetaError(
                f"The state of user {visible(repr(user), 40)} holds numbers that are not finite ({name})."
            )
        parts = _stored(name, value.float(), precision)
        back = _unpacked(next(iter(parts)), next(iter(parts.values())), parts)
        largest = _rows(value.float()).abs().amax(1, keepdim=True).clamp(min=1e-12)
        errors.append(float((_rows(back - value.float()).abs() / largest).max()))
        stored |= parts
    return Packed(save(stored), labels, precision, max(errors))


def _stored(name: str, value: Tensor, precision: Precision) -> TaskState:
    """The tensor as it is written; the number itself comes first."""
    if value.dim() < 2 and value.numel() <= _SMALL:
        return {name: value}
    largest = float(value.abs().max())
    if precision == "float16" and largest <= torch.finfo(torch.float16).max:
        return {name: value.half()}
    whole, scale = to_int8(_rows(value))
    return {_INT8 + name: whole.view(value.shape).contiguous(), _SCALE + name: scale.squeeze(1).contiguous()}


def _is_value(name: str) -> bool:
    return not name.startswith(_SCALE)


def _unpacked(name: str, tensor: Tensor, stored: TaskState) -> Tensor:
    if name.startswith(_INT8):
        scale = stored[_SCALE + name.removeprefix(_INT8)]
        return from_int8(_rows(tensor), scale.unsqueeze(1)).view(tensor.shape)
    return tensor.float() if tensor.is_floating_point() else tensor


def _rows(value: Tensor) -> Tensor:
    """The tensor as rows, ``(n, width)``; a vector is one row."""
    return value.reshape(-1, value.shape[-1]) if value.dim() else value.reshape(1, 1)
