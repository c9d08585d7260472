"""LoRA adapters on an encoder: a few trainable matrices beside the frozen weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from nlpmeta.encoder.files import CONFIG_FILE, WEIGHTS_FILE, last_names, linear_layers
from nlpmeta.encoder.merged import ADAPTER as NAME
from nlpmeta.encoder.merged import adapted_layers, read_rows
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import ModelFolderError, NLPMetaError, WorkFailedError
from nlpmeta.settings import Settings
from nlpmeta.storage.files import read_json
from nlpmeta.storage.tensors import digest_of, from_int8, read_tensors, to_int8

if TYPE_CHECKING:
    from peft import LoraConfig

_PEFT_PREFIX, _SCALE = "base_model.model.", ".scale"
Storage = Literal["exact", "float16", "int8"]


class AdapterSettings(Settings):
    """What adapters look like and where they sit.

    Source: LoRA, Hu et al., ICLR 2022 (arXiv:2106.09685), equation 3.
    """

    rank: int = Field(16, ge=1, le=4096, description="LoRA rank")
    alpha: float = Field(32.0, gt=0, le=1e6, description="LoRA alpha: the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="LoRA dropout, in training")
    modules: tuple[str, ...] | None = Field(
        None, min_length=1, description="target modules, by the last part of their names; null for all linear layers"
    )
    layers: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="only the top N layers; null for all. With start, the rest is frozen",
    )


def add_adapter(encoder: TextEncoder, settings: AdapterSettings, *, seed: int) -> None:
    """Put fresh adapters into ``encoder``, which then embeds as before (B = 0) but can be trained.

    Raises:
        NLPMetaError: if it has adapters already, has fewer layers than asked, or no module of these names.
    """
    from peft import inject_adapter_in_model

    if has_adapter(encoder):
        raise NLPMetaError("This encoder has an adapter already; load the encoder again to start from a fresh one.")
    config = _peft_config(encoder, settings)
    try:
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):  # peft draws a start, which is replaced below
            inject_adapter_in_model(config, encoder.backbone, adapter_name=NAME)
    except ValueError as error:
        named, known = (
            " or ".join(settings.modules or ()),
            ", ".join(last_names(linear_layers(encoder.backbone))) or "none",
        )
        raise NLPMetaError(f"No linear layer of this encoder is named {named}; it has {known}.") from error
    read_rows(encoder.backbone)
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, weight in adapter_weights(encoder).items():
        with torch.no_grad():
            if ".lora_A." in name:  # the same distribution as peft's, from a generator of our own
                bound = 1 / math.sqrt(weight.shape[1])
                weight.copy_(torch.empty(weight.shape, device="cpu").uniform_(-bound, bound, generator=generator))
    encoder.eval()


def has_adapter(encoder: TextEncoder) -> bool:
    """Whether adapters sit in ``encoder``."""
    return encoder.pending is not None or bool(adapted_layers(encoder.backbone))


def adapter_weights(encoder: TextEncoder, layers: int | None = None) -> dict[str, nn.Parameter]:
    """The adapters' weights by their names in the backbone, in a fixed order; only of the top ``layers``, if given."""
    lowest = 0 if layers is None else int(encoder.backbone.config.num_hidden_layers) - layers
    found = ((name, weight) for name, weight in encoder.backbone.named_parameters() if ".lora_" in name)
    return {name: weight for name, weight in found if lowest == 0 or _layer_of(name) >= lowest}


def lowest_trained_layer(encoder: TextEncoder) -> int:
    """The number of layers from the bottom that no adapter changes while training: none is there, or it is frozen."""
    return min(_trained_layers(encoder), default=int(encoder.backbone.config.num_hidden_layers))


def freeze_below(encoder: TextEncoder, n_layers: int) -> None:
    """Let only the adapters of the top ``n_layers`` layers train on; those below stay as they are.

    Raises:
        NLPMetaError: if the encoder has fewer layers, or no adapter among these.
    """
    if n_layers > (depth := int(encoder.backbone.config.num_hidden_layers)):
        raise NLPMetaError(f"Adapters in the top {n_layers} layers were requested; this encoder has {depth}.")
    for name, weight in adapter_weights(encoder).items():
        weight.requires_grad_(_layer_of(name) >= depth - n_layers)
    if not _trained_layers(encoder):
        raise NLPMetaError(f"The top {n_layers} layers of this encoder have no adapter that could be trained on.")


def frozen_adapters_digest(encoder: TextEncoder) -> str:
    """Digest of the adapters below the lowest layer that trains; empty where there are none."""
    lowest = lowest_trained_layer(encoder)
    frozen = [(name, weight) for name, weight in adapter_weights(encoder).items() if _layer_of(name) < lowest]
    return digest_of(frozen) if frozen else ""


def _layer_of(name: str) -> int:
    return next(int(part) for part in name.split(".") if part.isdigit())


def _trained_layers(encoder: TextEncoder) -> set[int]:
    return {_layer_of(name) for name, weight in adapter_weights(encoder).items() if weight.requires_grad}


def save_adapter(encoder: TextEncoder, folder: Path, *, storage: Storage = "exact") -> None:
    """Write plain PEFT files: ``PeftModel.from_pretrained(base_encoder, folder)`` gives the same embeddings.

    ``"float16"`` halves the file; the embeddings then move by about one part in a thousand. ``"exact"`` takes float16
    where that loses nothing, as with adapters that were stored so before, and float32 elsewhere. ``"int8"`` stores a
    byte a number and a float16 scale a row; PEFT cannot read that, ``load_adapter`` can.

    Args:
        encoder: whose adapters they are.
        folder: where to.
        storage: in what precision.
    """
    from safetensors.torch import save

    from nlpmeta.storage.files import write_bytes, write_json

    named = {
        _PEFT_PREFIX + name.replace(f".{NAME}.", "."): weight.detach().cpu().contiguous()
        for name, weight in adapter_weights(encoder).items()
    }
    if storage == "int8":
        packed = {name: to_int8(weight, half=True) for name, weight in named.items()}
        stored = {name: whole for name, (whole, _) in packed.items()}
        stored |= {name + _SCALE: scale for name, (_, scale) in packed.items()}
    else:
        fits = all(bool((w == w.half().float()).all()) for w in named.values())
        dtype = torch.float16 if storage == "float16" or fits else torch.float32
        stored = {name: weight.to(dtype) for name, weight in named.items()}
    if not all(bool(value.isfinite().all()) for value in stored.values() if value.is_floating_point()):
        raise WorkFailedError(f"The adapter has weights that {storage} cannot hold, so {folder} was not written.")
    write_bytes(folder / WEIGHTS_FILE, save(stored, metadata={"format": "pt"}))
    write_json(folder / CONFIG_FILE, _config_json(encoder))


def _from_bytes(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: from_int8(value, stored[name + _SCALE]) if name + _SCALE in stored else value
        for name, value in stored.items()
        if not name.endswith(_SCALE)
    }


def load_adapter(encoder: TextEncoder, folder: Path) -> None:
    """Put the adapters of a PEFT folder into ``encoder``; their weights are kept in float32.

    Raises:
        ModelFolderError: if a file is missing or damaged, or does not fit this encoder.
        NLPMetaError: if the encoder has adapters already.
    """
    from peft import inject_adapter_in_model

    if has_adapter(encoder):
        raise NLPMetaError("This encoder has an adapter already; load the encoder again to use another one.")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder} has no {name}.")
    stored = read_tensors(folder / WEIGHTS_FILE)
    if any(name.endswith(_SCALE) and not bool((value > 0).all()) for name, value in stored.items()):
        raise ModelFolderError(f"{folder / WEIGHTS_FILE} is damaged: a scale of its rows is not above zero.")
    try:
        stored = _from_bytes(stored)
    except RuntimeError as error:
        raise ModelFolderError(f"{folder / WEIGHTS_FILE} is damaged: its scales do not fit its rows.") from error
    config = read_config(folder / CONFIG_FILE, stored)
    try:
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(config, encoder.backbone, adapter_name=NAME)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ModelFolderError(f"The adapter in {folder} is damaged or not for this encoder: {error}") from error
    read_rows(encoder.backbone)
    _fill(adapter_weights(encoder), stored, folder)
    encoder.eval()


def _fill(weights: Mapping[str, nn.Parameter], stored: Mapping[str, Tensor], folder: Path) -> None:
    names = {name: _PEFT_PREFIX + name.replace(f".{NAME}.", ".") for name in weights}
    if set(names.values()) != set(stored):
        odd = sorted(set(names.values()) ^ set(stored))
        raise ModelFolderError(
            f"The adapter in {folder} does not fit this encoder; {len(odd)} weights, such as {odd[0]}."
        )
    with torch.no_grad():
        for name, weight in weights.items():
            if weight.shape != stored[names[name]].shape:
                raise ModelFolderError(f"{names[name]} in {folder} has the shape of another encoder.")
            weight.copy_(stored[names[name]])


def _peft_config(encoder: TextEncoder, settings: AdapterSettings) -> "LoraConfig":
    from peft import LoraConfig

    depth = int(encoder.backbone.config.num_hidden_layers)
    if settings.layers is not None and settings.layers > depth:
        raise NLPMetaError(f"Adapters in the top {settings.layers} layers were requested; this encoder has {depth}.")
    paths = linear_layers(encoder.backbone)
    modules = list(settings.modules or last_names(paths))
    if not modules:
        kind = type(encoder.backbone).__name__
        raise NLPMetaError(f"The {depth} layers of {kind} have no linear layers that adapters could be put into.")
    top = None if settings.layers is None else list(range(depth - settings.layers, depth))
    if top and paths and paths[0].split(".")[1].isdigit():  # layers.0: peft only finds layers that are in something
        chosen = [path for path in paths if _layer_of(path) in top and path.rpartition(".")[2] in modules]
        modules, top = chosen or modules, None
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft annotates int and takes any number
        lora_dropout=settings.dropout,
        target_modules=modules,
        layers_to_transform=top,
        task_type="FEATURE_EXTRACTION",
        base_model_name_or_path=encoder.files.name if encoder.files is not None else None,
    )


def _config_json(encoder: TextEncoder) -> dict[str, object]:
    """What peft would write: its configuration with sets as sorted lists, marked as being for inference."""
    config = cast("dict[str, LoraConfig]", encoder.backbone.peft_config)[NAME]
    values: dict[str, object] = config.to_dict()  # type: ignore[no-untyped-call]
    values["inference_mode"] = True
    return {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}


_FREE = ("peft_type", "task_type", "inference_mode", "revision", "peft_version", "auto_mapping")
"""Words about the adapter that change nothing in how it is computed."""


def read_config(path: Path, stored: Mapping[str, Tensor]) -> "LoraConfig":
    """The configuration in ``path`` for the weights ``stored``.

    Patterns, modules to import and other kinds of adapters are refused: a pattern can take for ever to match, and
    peft imports the modules that some keys name.

    Raises:
        ModelFolderError: if it is damaged, not plain LoRA, or does not fit the weights.
    """
    from peft import LoraConfig

    values = read_json(path)
    if not isinstance(values, dict) or values.get("peft_type") != "LORA":
        raise ModelFolderError(f"{path} is not the configuration of a LoRA adapter.")
    usual: dict[str, object] = LoraConfig().to_dict()  # type: ignore[no-untyped-call]
    for key, value in values.items():
        harmless = value in (None, False, {}, []) or value == usual.get(key)
        if key not in (*_PlainLora.model_fields, *_FREE) and not harmless:
            raise ModelFolderError(f"{path} sets {key[:60]!r}, which is not part of plain LoRA; it was not loaded.")
    try:
        plain = _PlainLora.model_validate(values)
    except ValidationError as error:
        raise ModelFolderError(f"{path} is damaged ({error.error_count()} values). Save the model again.") from error
    ranks = {tensor.shape[0] for name, tensor in stored.items() if name.endswith("lora_A.weight") and tensor.ndim == 2}
    if ranks != {plain.r}:
        raise ModelFolderError(f"{path} does not fit the weights beside it. Save the model again.")
    return LoraConfig(
        r=plain.r,
        lora_alpha=plain.lora_alpha,  # type: ignore[arg-type]  # peft annotates int and takes any number
        lora_dropout=plain.lora_dropout,
        target_modules=plain.target_modules,
        layers_to_transform=plain.layers_to_transform,
        use_rslora=plain.use_rslora,
        task_type="FEATURE_EXTRACTION",
        base_model_name_or_path=plain.base_model_name_or_path,
    )


class _PlainLora(BaseModel):
    model_config = ConfigDict(strict=True)

    r: int = Field(ge=1, le=4096)
    lora_alpha: float = Field(gt=0, le=1e6)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[Annotated[str, Field(pattern=r"^\w[\w.]{0,199}$")]] = Field(min_length=1, max_length=1000)
    layers_to_transform: list[Annotated[int, Field(ge=0, le=10_000)]] | None = None
    use_rslora: bool = False
    base_model_name_or_path: str | None = None
