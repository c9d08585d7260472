"""A model folder as a transformer and its tokenizer: nothing of it is run, and nothing that is missing is made up."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nlpmeta.encoder.model_folder import POOLED, check_sizes, model_config
from nlpmeta.encoder.weights import EncoderFiles
from nlpmeta.errors import ModelFolderError
from nlpmeta.progress import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_files(files: EncoderFiles) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The transformer and the tokenizer of an encoder's folder, on the CPU and in float32.

    Raises:
        ModelFolderError: if the folder is damaged.
    """
    from transformers import AutoModel, AutoTokenizer

    check_sizes(files.folder)
    options = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    with torch.device("cpu"), quiet_transformers(), _said_plainly(files.folder):
        backbone, found = AutoModel.from_pretrained(
            files.folder, **options, **_no_pooler(files), output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False)
    _check_weights(files.folder, found)
    return backbone, tokenizer


@contextmanager
def _said_plainly(folder: Path) -> Iterator[None]:
    """Turn whatever a folder that is no encoder makes the libraries raise into one sentence."""
    try:
        yield
    except BaseException as error:
        # The tokenizers library panics on some files, with an exception that is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelFolderError(f"The encoder in {folder} cannot be loaded: {reason}") from error


def _check_weights(folder: Path, found: Mapping[str, object]) -> None:
    """See that every weight came from the folder: transformers makes up what is missing or of another shape.

    Raises:
        ModelFolderError: naming the first that did not.
    """
    odd = [*(found.get("missing_keys") or ()), *(found.get("mismatched_keys") or ())]  # type: ignore[misc]
    names = sorted(str(each[0] if isinstance(each, tuple) else each) for each in odd)
    names = [name for name in names if not name.startswith("pooler.")]
    if names:
        raise ModelFolderError(
            f"The weights in {folder} do not fit its config.json; {len(names)} are missing or of another shape, "
            f"such as {names[0]}."
        )


def _no_pooler(files: EncoderFiles) -> dict[str, bool]:
    """BERT's pooler is not part of the embedding and many encoders ship without one."""
    return {"add_pooling_layer": False} if model_config(files.folder).get("model_type") in POOLED else {}
