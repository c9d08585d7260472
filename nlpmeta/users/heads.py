"""A user's head as bytes, near a shared one, for one encoder."""

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.data import Label
from nlpmeta.data.labels import plain
from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.encoder.table import reading_facts, state_digest
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError, visible
from nlpmeta.learners.base import Learner, TaskState, learners
from nlpmeta.storage.tensors import digest_of, from_int8, problem_of, to_int8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HeadPrecision = Literal["float16", "int8"]

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
    precision: HeadPrecision
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


def pack(user: str, state: TaskState, classes: "NDArray[np.generic]", precision: HeadPrecision | None = None) -> Packed:
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
    tried: tuple[HeadPrecision, ...] = ("float16", "int8") if precision is None else (precision,)
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


def _packed(user: str, state: TaskState, labels: str, precision: HeadPrecision) -> Packed:
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


def _stored(name: str, value: Tensor, precision: HeadPrecision) -> TaskState:
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


PENALTY, BIAS_PENALTY = 3.0, 0.5
"""Chosen on half of the users of popquorn (the even ones); benchmarks/adapter_store.py reports the other half."""
_STEPS = 60


def head_near(
    features: Tensor, labels: Tensor, shared: TaskState, *, penalty: float = PENALTY, bias_penalty: float = BIAS_PENALTY
) -> TaskState:
    """Logistic regression whose weights are drawn to a shared head instead of to zero.

    Source: regularised multi-task learning, Evgeniou and Pontil, KDD 2004, equation 5, with the logistic loss for the
    hinge loss. Features are centred and scaled on the user's own texts, so that the penalties mean the same with every
    encoder.

    Args:
        features: embeddings of the user's texts, ``(n, dim)``.
        labels: their classes, numbered as in the shared head, ``(n,)``; not every class needs a text.
        shared: ``weight`` ``(n_way, dim)`` and ``bias`` ``(n_way,)``.
        penalty: what half the squared distance of the weights costs, in units of one text's loss.
        bias_penalty: the same for the biases.

    Raises:
        NLPMetaError: if a penalty is not positive.
    """
    if penalty <= 0 or bias_penalty <= 0:
        raise NLPMetaError(f"Penalties must be positive; got {penalty} and {bias_penalty}.")
    centre = features.mean(0)
    rows = (features - centre).cpu().double()  # float64, which some accelerators lack; a user has few texts
    scale = rows.norm(dim=1).mean().clamp(min=1e-6)
    rows = rows / scale
    start = F.linear(features, shared["weight"], shared["bias"]).cpu().double()  # (n, n_way)
    labels = labels.cpu()
    weight = torch.zeros(shared["weight"].shape, dtype=torch.float64, device="cpu", requires_grad=True)
    bias = torch.zeros(len(weight), dtype=torch.float64, device="cpu", requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        fit = F.cross_entropy(start + F.linear(rows, weight, bias), labels, reduction="sum")
        total = fit + penalty / 2 * weight.square().sum() + bias_penalty / 2 * bias.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    moved = (weight.detach() / scale).to(features)
    return {
        "weight": shared["weight"] + moved,
        "bias": shared["bias"] + bias.detach().to(features) - moved @ centre,
    }


@dataclass(frozen=True, eq=False)
class SharedHead:
    """The head that others start from, and its labels."""

    state: TaskState
    labels: tuple[Label, ...]

    def moved(self, features: Tensor, labels: "NDArray[np.generic]") -> TaskState:
        """The head of one who labels texts ``(n, dim)`` as ``labels`` ``(n,)``."""
        number = {label: i for i, label in enumerate(self.labels)}
        numbers = torch.tensor([number[label] for label in labels.tolist()], device=features.device)
        return head_near(features, numbers, self.state)


def check_near(shared: TaskState, user: str, labels: list[object], known: tuple[Label, ...]) -> None:
    """Refuse what cannot start from a shared head.

    Raises:
        NLPMetaError: if the method has no linear head of its own.
        DataError: if a label is not one of the shared head's.
    """
    if set(shared) != {"weight", "bias"}:
        raise NLPMetaError("near= needs the method 'logistic': heads that are weights and biases alone.")
    unknown = [label for label in labels if label not in known]
    if unknown:
        shown = visible(", ".join(repr(label) for label in known[:20]), 60)
        raise DataError(
            f"User {visible(repr(user), 40)} has the label {visible(repr(unknown[0]), 40)}, which the shared head has "
            f"not; it has {shown}."
        )


def facts_of(learner: Learner) -> dict[str, str]:
    """The method and its options, its own weights, and the encoder with its adapters."""
    own = ((name, tensor) for name, tensor in learner.state_dict().items() if not name.startswith("encoder."))
    return {
        "method": learners.name_of(type(learner)),
        "options": json.dumps(dict(learner.config()), sort_keys=True),
        "learner weights": digest_of(own)[:16],
        "encoder": _encoder(learner.encoder),
    }


def _encoder(encoder: TextEncoder) -> str:
    """The digest of its files and adapters; of all weights where it was built in memory (a second for a large one)."""
    if encoder.files is None:
        return state_digest(encoder)[:16]
    settings = json.dumps(reading_facts(encoder))
    return f"{encoder.files.digest[:16]}-{digest_of(adapter_weights(encoder).items(), settings)[:16]}"
