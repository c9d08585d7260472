"""Where an encoder runs: which devices there are, in what precision they embed, and how much goes through at a time."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast, runtime_checkable

import torch
from torch import Tensor, nn
from typing_extensions import Self

from nlpmeta.encoder.tokenizing import BATCH_TOKENS, PASS_COST, length_batches
from nlpmeta.errors import NLPMetaError, WorkFailedError
from nlpmeta.progress import Advance

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from nlpmeta.encoder.vocabulary import Vocabulary

Device: TypeAlias = "str | torch.device"
"""``auto``, or a device as PyTorch names it: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``."""

VARIABLE = "NLPMETA_DEVICE"
"""The environment variable that says what ``auto`` is."""
_ORDER = ("cuda", "mps", "xpu")
_MOST_TOKENS = 1 << 14
"""Padded tokens of a forward pass on an accelerator: more are no faster."""
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


class Placed(Protocol):
    """What an encoder needs to provide here: where it is, and how much it reads at most."""

    @property
    def device(self) -> torch.device: ...
    @property
    def training(self) -> bool: ...
    @property
    def max_length(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def backbone(self) -> "PreTrainedModel": ...


class FrozenLayers(Protocol):
    """Layers below the adapters whose states are known already, see ``frozen_layers.frozen_layer_cache``."""

    def hidden(self, tokens: list[list[int]], mask: Tensor, adapter: Mapping[str, Tensor] | None = None) -> Tensor:
        """The last hidden states of padded texts, ``(n, width, dim)``; ``mask`` ``(n, width)`` marks real tokens."""

    def on(self, backbone: nn.Module) -> "FrozenLayers | None":
        """The same states under a copy of the transformer with other weights above the cut; None if it has others."""


@runtime_checkable
class Later(Protocol):
    """A transformer that is loaded when something first asks for its weights, see ``views.Deferred``."""

    width: int  # of its embeddings
    device: torch.device  # where it will be
    vocabulary: "Vocabulary"  # makes the same ids as its tokenizer, which takes longer to load

    def check(self) -> Path: ...  # the folder of its adapters, which must not have changed
    def load(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]": ...


class LoadedLate(nn.Module):
    """An encoder whose transformer and tokenizer are loaded when they are asked for, if ``later`` says how."""

    backbone: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    later: Later | None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as nn.Module has it
        if name in ("backbone", "tokenizer") and (later := self.__dict__.get("later")) is not None:
            backbone, tokenizer = later.load()
            self._modules.setdefault("backbone", backbone)  # shared with all that share the weights
            return self._modules["backbone"] if name == "backbone" else tokenizer
        return super().__getattr__(name)

    @property
    def pending(self) -> Later | None:
        """What will load the weights, as long as nothing has asked for them."""
        return self.later if "backbone" not in self._modules else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        later = self.pending  # once: another thread may load it at any moment
        device: torch.device = next(self.backbone.parameters()).device if later is None else later.device
        return device

    def train(self, mode: bool = True) -> Self:
        """Training switches on the dropout of adapters only; the frozen transformer always runs without."""
        self.training = mode
        for name, module in () if self.pending else self.backbone.named_modules():
            module.training = mode and ".lora_dropout" in name  # none is on for a moment: others may be reading
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.__getattr__("backbone")  # what is to be moved is loaded first
        return cast("Self", super()._apply(fn, recurse))  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        """A copy, and what is pickled, has weights of its own."""
        self.__getattr__("backbone")
        return {**self.__dict__, "tokenizer": self.tokenizer, "later": None}


def resolve_device(asked: Device = "auto") -> torch.device:
    """The device that ``asked`` stands for.

    ``auto`` is what the variable ``NLPMETA_DEVICE`` names, else CUDA, MPS, XPU or the CPU, the first that is there.

    Raises:
        NLPMetaError: if there is no such device on this machine; the message lists those that there are.
    """
    if isinstance(asked, str):
        asked = asked.strip().lower()
    source = "You requested the device"
    if asked == "auto" and (chosen := os.environ.get(VARIABLE, "").strip().lower()) not in ("", "auto"):
        asked, source = chosen, f"{VARIABLE} names the device"
    known = devices()
    if asked == "auto":
        return torch.device(known[0])
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError) as error:
        raise _absent(source, asked, known) from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.index is None:
        same = [name for name in known if name.partition(":")[0] == device.type]
        if not same:
            raise _absent(source, asked, known)
        return torch.device(same[0])
    if str(device) not in known:
        raise _absent(source, asked, known)
    return device


def devices() -> list[str]:
    """The devices of this machine, the best first; the CPU is always the last."""
    counts = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "xpu": torch.xpu.device_count() if torch.xpu.is_available() else 0,
    }
    return [f"{kind}:{index}" for kind in _ORDER for index in range(counts[kind])] + ["cpu"]


def check_place(encoder: Placed, device: Device, max_length: int | None = None) -> None:
    """Refuse options that a loaded encoder contradicts: an object of the user's is not changed behind their back.

    Raises:
        NLPMetaError: says what the encoder has, and how to change it.
    """
    if device != "auto" and resolve_device(device) != _with_index(encoder.device):
        raise NLPMetaError(
            f"The device {device} was requested, but the encoder that was given is on {encoder.device}. Move it first: "
            f"encoder.to({str(device)!r}); or give the encoder by its name."
        )
    if max_length is not None and max_length != encoder.max_length:
        raise NLPMetaError(
            f"max_length={max_length} was requested, but the encoder that was given reads {encoder.max_length} tokens. "
            f"Load it with TextEncoder.from_pretrained(name, max_length={max_length})."
        )


def embeds_in_bf16(device: torch.device) -> bool:
    """Whether embeddings without gradients are computed in bfloat16 there; they are pooled in float32 everywhere."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    return device.type == "xpu"


def precision(encoder: Placed) -> AbstractContextManager[object]:
    """A block in which the transformer of an encoder in use runs as fast as its device allows.

    In training, and where gradients are computed, the precision is the one that was chosen there.
    """
    if encoder.training or torch.is_grad_enabled() or not embeds_in_bf16(encoder.device):
        return nullcontext()
    return torch.autocast(encoder.device.type, dtype=torch.bfloat16)


def tokens_at_once(encoder: Placed) -> int:
    """The padded tokens of one forward pass that fit the encoder's device, by the memory that is free there."""
    free = _free_bytes(encoder.device)
    if free is None:
        return BATCH_TOKENS
    config = encoder.backbone.config
    width, heads = int(config.hidden_size), int(getattr(config, "num_attention_heads", 1))
    a_token = 64 * width + 8 * heads * encoder.window  # bytes: hidden and inner layers, rows of attention
    return max(BATCH_TOKENS, min(_MOST_TOKENS, free // 2 // a_token))


def pass_cost(device: torch.device) -> int:
    """What one more pass costs there, in tokens: threads make those cheaper; on an accelerator few are no faster."""
    return PASS_COST * torch.get_num_threads() if device.type == "cpu" else _MOST_TOKENS


def embed_in_batches(
    lengths: Sequence[int],
    embed: Callable[[list[int]], Tensor],
    *,
    batch_tokens: int,
    pass_cost: int = PASS_COST,
    advance: Advance | None = None,
) -> Tensor:
    """What ``embed`` makes of groups of rows, ``(len(lengths), ...)`` in the order of the rows.

    Where the memory runs out, this group and all that are left are tried again with half the tokens. With gradients
    they are not: what fills the memory then are the groups that are done.

    Args:
        lengths: tokens of each row; at least one row.
        embed: from the numbers of some rows to their embeddings.
        batch_tokens: padded tokens of a group at most.
        pass_cost: what one more group costs.
        advance: called after every group.

    Raises:
        WorkFailedError: if the memory is not enough for a single text.
    """
    todo = length_batches(lengths, batch_tokens=batch_tokens, pass_cost=pass_cost)
    done, parts = list[int](), list[Tensor]()
    while todo:
        group = todo[0]
        part = _tried(embed, group, lengths)
        if part is None:
            _release_memory()
            batch_tokens = max(1, len(group) * lengths[group[-1]] // 2)
            left = [row for each in todo for row in each]
            short = [lengths[row] for row in left]
            smaller = length_batches(short, batch_tokens=batch_tokens, pass_cost=pass_cost)
            todo = [[left[i] for i in each] for each in smaller]
            continue
        del todo[0]
        done += group
        parts.append(part)
        if advance is not None:
            advance(len(group))
    if len(parts) == 1 and done == sorted(done):
        return parts[0]
    order = torch.tensor(done, device=parts[0].device)
    return torch.cat(parts)[order.argsort()]


def _tried(embed: Callable[[list[int]], Tensor], group: list[int], lengths: Sequence[int]) -> Tensor | None:
    """``embed(group)``; ``None`` if the memory ran out and there is something to be halved."""
    try:
        return embed(group)
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU and MPS raise it plainly
        known = isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)
        if not known or torch.is_grad_enabled():
            raise
        if len(group) == 1:
            raise WorkFailedError(
                f"There is not enough memory for one text of {lengths[group[0]]} tokens. Free some, choose another "
                "device (--device cpu, device='cpu'), or truncate texts (--max-length, max_length)."
            ) from error
        return None


def _release_memory() -> None:
    """Give back what the allocator of an accelerator keeps for later."""
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _free_bytes(device: torch.device) -> int | None:
    """Free memory of an accelerator; ``None`` for the CPU, where batches are as large as its caches like."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "xpu":
        return int(torch.xpu.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return None


def _with_index(device: torch.device) -> torch.device:
    return torch.device(device.type, 0) if device.index is None and device.type != "cpu" else device


def _absent(source: str, asked: Device, known: Sequence[str]) -> NLPMetaError:
    return NLPMetaError(
        f"{source} {str(asked)!r}, which is not available; this machine has: {', '.join(known)}. Choose one of "
        "these, or 'auto' for the best."
    )
