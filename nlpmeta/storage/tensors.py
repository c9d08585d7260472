"""Tensors in files: what a safetensors file claims is checked; eight bits a number where that is enough."""

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.errors import ModelFolderError
from nlpmeta.storage.files import open_regular, read_bytes

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_HEADER = 4 << 20  # bytes; ours have some kilobytes
LARGEST_NUMBER = 1e12  # of a weight; ours stay below 1e6, and from 1e19 on a product is infinite
LARGEST_FILE = 2 << 30  # bytes; ours have some megabytes, whole encoders are read by transformers
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The named tensors of a safetensors file: memory is bounded by the size of the file, and numbers are finite.

    Raises:
        ModelFolderError: if the file is missing, damaged, or claims what it does not hold.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        _check_header(path)
        tensors: dict[str, Tensor] = load(read_bytes(path, most=LARGEST_FILE))
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelFolderError(f"{path} is damaged: {_short(error)}. Save the model again.") from error
    for name, tensor in tensors.items():
        if problem := problem_of(tensor):
            raise ModelFolderError(f"{path} is damaged: {name[:60]!r} holds {problem}.")
    return tensors


def problem_of(tensor: "Tensor") -> str:
    """What is wrong with the numbers of a tensor that somebody stored; empty if nothing is."""
    if not tensor.is_floating_point() or not tensor.numel():
        return ""
    largest = float(tensor.abs().max())  # no number if one of them is none
    if not math.isfinite(largest):
        return "numbers that are not finite"
    return "" if largest <= LARGEST_NUMBER else f"numbers beyond {LARGEST_NUMBER:g}"


def to_int8(rows: "Tensor", *, half: bool = False) -> "tuple[Tensor, Tensor]":
    """Rows ``(n, width)`` as whole numbers from -127 to 127, and what each row is multiplied by, ``(n, 1)``.

    The scale is float32 or, with ``half``, float16.
    """
    import torch

    largest = rows.abs().amax(1, keepdim=True)
    scale = (largest / 127).clamp(min=6e-8).half() if half else largest.clamp(min=1e-12) / 127
    return (rows / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def from_int8(rows: "Tensor", scale: "Tensor") -> "Tensor":
    """What ``to_int8`` was given, to within half a step of each row."""
    return rows.float() * scale.float()


def digest_of(weights: Iterable[tuple[str, "Tensor"]], more: str = "") -> str:
    """SHA-256, in hexadecimal digits, of named weights in float32, and of what else is said in ``more``."""
    digest = hashlib.sha256(more.encode())
    for name, weight in weights:
        digest.update(name.encode() + weight.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def sum_of_bits(weight: "Tensor") -> int:
    """The weights read as whole numbers, added up: quick enough to do at every start."""
    import torch

    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    return int(weight.detach().contiguous().view(whole).sum(dtype=torch.int64))


def _check_header(path: Path) -> None:
    """Compare what the header says with the size of the file.

    Raises:
        ValueError: if they do not fit.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"it has {size / 1e9:.1f} GB, and {LARGEST_FILE / 1e9:.1f} GB is the limit")
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(LARGEST_HEADER, size - 8):
            raise ValueError(f"its header claims {length} bytes")
        header = json.loads(file.read(length).decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    for name, facts in header.items():
        if name != "__metadata__":
            _check_tensor(str(name), facts, size - 8 - length)


def _check_tensor(name: str, facts: "dict[str, object]", room: int) -> None:
    shape, kind, offsets = facts["shape"], facts["dtype"], facts["data_offsets"]
    if kind not in _SIZES or not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise ValueError(f"the tensor {name[:60]!r} is of an unknown kind")
    if not all(type(each) is int and each >= 0 for each in [*shape, *offsets]):
        raise ValueError(f"the tensor {name[:60]!r} has an impossible shape or place")
    start, end = offsets
    if not start <= end <= room or end - start != math.prod(shape) * _SIZES[str(kind)]:
        raise ValueError(f"the tensor {name[:60]!r} has a shape that does not fit its size")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
