"""A transformer with its adapters added into the weights: made once, shared by all threads, and only read."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nlpmeta.encoder.tokenizing import Guard
from nlpmeta.errors import ModelFolderError

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from transformers import PreTrainedModel

Module = TypeVar("Module", bound=nn.Module)
_Value = TypeVar("_Value")
ADAPTER = "default"
_MOST = 2  # copies kept of one transformer: an adapted weight is in memory once more for each that is not frozen
_PEFT_LEFTOVERS = ("peft_config", "_hf_peft_config_loaded")
INNER, INNER_SHARE = -1.0, 2 / 3
"""Views are named by the scale of the adapters. This one is the view with the scale 1 of the lower layers alone, two
thirds of them: these know of the form of a text what the last ones have forgotten for its meaning."""


def adapted_layers(backbone: nn.Module) -> "dict[str, LoraLayer]":
    """The layers that adapters sit in, by path."""
    return {
        path: cast("LoraLayer", module)
        for path, module in backbone.named_modules()
        if hasattr(module, "lora_A") and ADAPTER in getattr(module, "scaling", {})
    }


def merged_backbone(backbone: nn.Module, view: float | None = None) -> nn.Module:
    """``backbone`` to embed with only, as fast as without adapters: a copy, or itself if it has none.

    It shares all weights but those that adapters change, and is the same at every call until a weight or a scale has
    changed; ``backbone`` stays as it is. Embeddings agree with those of separate adapters to the rounding of float32.

    Args:
        backbone: the transformer.
        view: the scale of the adapters, 0 for the frozen weights and 1 as they were trained, or ``INNER``; ``None`` as
            they are now.

    Raises:
        ModelFolderError: if a merged weight would not be finite.
    """
    if "peft_config" not in backbone.__dict__:  # which peft leaves where it puts adapters
        return backbone
    with _guard:
        if (known := _known.get(backbone)) is None:
            known = _known[backbone] = _Known(adapted_layers(backbone), {})
        scales = tuple(_scale(layer, scale_of(view)) for layer in known.layers.values())
        found = known.copies.pop(scales, None)
        if found is None or not found.is_current():
            found = _Copy.of(backbone, known.layers, scales)
        known.copies[scales] = found  # the newest stand last
        while len(known.copies) > _MOST:
            del known.copies[next(iter(known.copies))]
        return found.lower if view == INNER else found.backbone


def scale_of(view: float | None) -> float | None:
    """The scale of the adapters in a view."""
    return 1.0 if view == INNER else view


def lower_layers(backbone: "PreTrainedModel") -> "PreTrainedModel":
    """A copy of a transformer with its lower layers alone, ``INNER_SHARE`` of them; the weights are shared."""
    twin, depth = _with_config(backbone), int(backbone.config.num_hidden_layers)
    twin.config.num_hidden_layers = kept = max(1, round(INNER_SHARE * depth))
    for name, value in list(vars(twin.config).items()):
        if "layer" in name and isinstance(value, list) and len(value) == depth:  # what kind each is of
            setattr(twin.config, name, value[:kept])
    for part in list(twin.modules()):
        for name, below in part._modules.items():
            if isinstance(below, nn.ModuleList) and len(below) == depth:
                part._modules[name] = nn.ModuleList(below[:kept])
    return twin


@torch.inference_mode(False)
@torch.no_grad()
def plain_backbone(backbone: nn.Module, scales: Sequence[float] | None = None) -> nn.Module:
    """A copy without adapters, which are added into its weights; ``scales`` has one for each layer that has some.

    Raises:
        ModelFolderError: if a merged weight would not be finite.
    """
    layers = adapted_layers(backbone)
    used = [_scale(layer, None) for layer in layers.values()] if scales is None else scales
    parts = {path: _plain(path, layer, scale) for (path, layer), scale in zip(layers.items(), used, strict=True)}
    twin = deep(with_parts(backbone, parts))
    for name in _PEFT_LEFTOVERS:
        twin.__dict__.pop(name, None)
    for module in twin.modules():
        module.training = False
    return twin


def scales_with(backbone: nn.Module, view: float | None) -> list[float]:
    """What the adapters of each layer are multiplied by in a view; ``None`` as they are."""
    return [_scale(layer, scale_of(view)) for layer in adapted_layers(backbone).values()]


def _scale(layer: "LoraLayer", scale: float | None) -> float:
    if scale is None:
        return float(layer.scaling[ADAPTER])
    rank = layer.r[ADAPTER]
    return float(scale * layer.lora_alpha[ADAPTER] / (math.sqrt(rank) if layer.use_rslora.get(ADAPTER) else rank))


def _plain(path: str, layer: "LoraLayer", scale: float) -> nn.Module:
    plain = shallow(layer.get_base_layer())
    if scale != 0:
        # In float32 whatever a block around this computes in, by the same operations as peft's.
        with torch.autocast(layer.weight.device.type, enabled=False):
            down, up = _thin(layer)
            delta = up @ down * scale
            weight = layer.weight.detach() + delta.to(layer.weight.dtype)
        if weight.device.type != "meta" and not bool(weight.isfinite().all()):
            raise ModelFolderError(f"The adapter of {path} holds numbers that are not finite. Load or train it again.")
        plain._parameters["weight"] = nn.Parameter(weight, requires_grad=False)
    return plain


def _thin(layer: "LoraLayer") -> tuple[Tensor, Tensor]:
    """The two thin matrices of an adapter: ``(rank, in)`` and ``(out, rank)``."""
    down, up = (part[ADAPTER].weight for part in (layer.lora_A, layer.lora_B))
    return cast("Tensor", down), cast("Tensor", up)


class _Slot(NamedTuple):
    """A weight as it was, and where it is to be found."""

    place: Mapping[str, Tensor | None]
    name: str
    weight: Tensor
    at: int
    version: int
    trains: bool

    @classmethod
    def every(cls, backbone: nn.Module, *, without: "Sequence[Tensor]") -> "tuple[_Slot, ...]":
        """All weights but some."""
        left_out = {id(weight) for weight in without}
        places: list[Mapping[str, Tensor | None]] = [p for m in backbone.modules() for p in (m._parameters, m._buffers)]
        return tuple(
            cls(place, name, weight, weight.data_ptr(), _version(weight), weight.requires_grad)
            for place in places
            for name, weight in place.items()
            if weight is not None and id(weight) not in left_out
        )


@dataclass(frozen=True, eq=False)
class _Copy:
    """A merged copy and what it was made of.

    The numbers of the adapters are compared too, as ``weight.data += 1`` leaves no other trace: all of adapters that
    may train, and the first row of each matrix of those that may not, which takes a tenth of the time.
    """

    backbone: nn.Module
    slots: tuple[_Slot, ...]
    seen: tuple[Tensor, ...]
    numbers: Tensor

    @cached_property
    def lower(self) -> nn.Module:
        """The copy's lower layers alone."""
        return lower_layers(cast("PreTrainedModel", self.backbone))

    @classmethod
    def of(cls, backbone: nn.Module, layers: "dict[str, LoraLayer]", scales: tuple[float, ...]) -> "_Copy":
        thin = tuple(weight for layer in layers.values() for weight in _thin(layer))
        adapted = any(scales)  # the frozen view does not depend on adapters
        slots = _Slot.every(backbone, without=() if adapted else thin)
        seen = tuple(each.detach().flatten() if each.requires_grad else each.detach()[0] for each in thin)
        numbers = torch.cat(seen)  # before the copy is made: what changes meanwhile is then seen at the next call
        return cls(plain_backbone(backbone, scales), slots, seen if adapted else (), numbers)

    def is_current(self) -> bool:
        for place, name, weight, at, version, trains in self.slots:  # some hundred, at every call
            if place.get(name) is not weight or weight.data_ptr() != at or _version(weight) != version:
                return False
            if weight.requires_grad != trains:
                return False
        return not self.seen or self.numbers.is_meta or torch.equal(torch.cat(self.seen), self.numbers)


@dataclass(frozen=True, eq=False)
class _Known:
    layers: "dict[str, LoraLayer]"
    copies: dict[tuple[float, ...], _Copy]


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


_guard = Guard()
_known: "WeakKeyDictionary[nn.Module, _Known]" = WeakKeyDictionary()


def shallow(module: Module) -> Module:
    """A copy with the same parts and the same weights, in dictionaries of its own, as are its hooks."""
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__, _forward_hooks=module._forward_hooks.copy())
    for name in ("_modules", "_parameters", "_buffers"):
        twin.__dict__[name] = dict(module.__dict__[name])
    return twin


def deep(module: Module) -> Module:
    """A copy whose parts are copies too, down to the weights, which are shared."""
    twin = shallow(module)
    for name, part in module._modules.items():
        twin._modules[name] = None if part is None else deep(part)
    return twin


def with_parts(module: Module, parts: Mapping[str, nn.Module]) -> Module:
    """A copy with each of ``parts`` at its path; all else is shared."""
    twin = shallow(module)
    for name, below in _by_child(parts).items():
        if "" in below:
            twin._modules[name] = below[""]
        else:
            twin._modules[name] = with_parts(_part(module, name), below)
    return twin


def with_attention(backbone: "PreTrainedModel", kind: str) -> "PreTrainedModel":
    """A copy that computes its attention another way; the configuration, which says which, is the copy's own."""
    twin = _with_config(backbone)
    twin.set_attn_implementation(kind)
    return twin


def _with_config(backbone: "PreTrainedModel") -> "PreTrainedModel":
    """A copy with a configuration of its own; the weights are shared."""
    twin, config = deep(backbone), copy.deepcopy(backbone.config)
    for part in twin.modules():
        if getattr(part, "config", None) is backbone.config:
            part.config = config  # type: ignore[assignment]  # of a transformer, and no part of it
    return twin


def with_weights(module: Module, weights: Mapping[str, Tensor]) -> Module:
    """A copy with each of ``weights`` in place of the one of that name; all else is shared.

    What ``torch.func.functional_call`` does, but that changes the module for as long as it runs, for every thread.
    """
    twin = shallow(module)
    for name, below in _by_child(weights).items():
        if "" in below:
            twin._parameters[name] = below[""]  # type: ignore[assignment]  # any tensor will do to compute with
        else:
            twin._modules[name] = with_weights(_part(module, name), below)
    return twin


def _by_child(values: Mapping[str, _Value]) -> dict[str, dict[str, _Value]]:
    """Values by path as values by the rest of the path, by its first name; the rest is empty where it ends."""
    found: dict[str, dict[str, _Value]] = {}
    for path, value in values.items():
        first, _, rest = path.partition(".")
        found.setdefault(first, {})[rest] = value
    return found


def _part(module: nn.Module, name: str) -> nn.Module:
    part = module._modules[name]
    assert part is not None  # noqa: S101  # the path was read from this module
    return part


class RowLinear(nn.Linear):
    """A linear layer whose weight may be one for every row of a batch: ``(n, out, in)`` for inputs ``(n, width, in)``.

    Weights of that shape come from ``functional_call``: the texts of many tasks, each with the adapter of its task, go
    through the frozen weights in one product.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if self.weight.dim() == 2 else input @ self.weight.transpose(1, 2)


def read_rows(backbone: nn.Module) -> None:
    """Let the thin matrices of the adapters take a weight for every row."""
    for layer in adapted_layers(backbone).values():
        for thin in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]):
            thin.__class__ = RowLinear  # peft built them; all but ``forward`` stays
