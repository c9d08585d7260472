"""The configuration of an adapter from an untrusted folder, taken only where it is plain LoRA."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlpmeta.errors import ModelFolderError
from nlpmeta.storage.files import read_json

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor

_FREE = ("peft_type", "task_type", "inference_mode", "revision", "peft_version", "auto_mapping")
"""Words about the adapter that change nothing in how it is computed."""


def read_config(path: Path, stored: "Mapping[str, Tensor]") -> "LoraConfig":
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
