"""What a gradient-based learner made of one task, as small files: its LoRA factors in PEFT's form, and its head."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nlpmeta.classifier import FewShotClassifier
from nlpmeta.encoder.lora import Storage, adapter_weights, load_adapter, save_adapter
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.files import write_bytes
from nlpmeta.folders import new_folder
from nlpmeta.kept_classifier import LABELS_FILE
from nlpmeta.learners.inner_loop import ADAPTER, BIAS, WEIGHT
from nlpmeta.learners.maml import MAML
from nlpmeta.saved_task import read_labels, write_labels
from nlpmeta.tensors import read_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nlpmeta.encoder.text_encoder import TextEncoder

HEAD_FILE = "head.safetensors"


def save_task(classifier: FewShotClassifier, folder: Path | str, *, storage: Storage = "exact") -> None:
    """Write the adapter and the head that ``classifier`` adapted, and the names of its classes.

    ``peft.PeftModel.from_pretrained(base_encoder, folder)`` reads the adapter, but for ``"int8"``, which ``load_task``
    alone reads: a byte a number and a scale for each row, a quarter of the exact file.

    Args:
        classifier: fitted with a method that takes gradient steps on adapters (``maml``, ``metasgd``, ``reptile``).
        folder: where to; must not exist.
        storage: of the adapter; the head is exact.

    Raises:
        NLPMetaError: if the method adapts no adapters, or the folder exists.
    """
    from safetensors.torch import save

    state, encoder = classifier.state_, classifier.learner_.encoder
    adapter = {name.removeprefix(ADAPTER): value for name, value in state.items() if name.startswith(ADAPTER)}
    if not adapter:
        raise NLPMetaError(
            "This model has no adapter of its own: its method adapts a head alone. "
            "Fit with maml, metasgd or reptile from a checkpoint with adapters."
        )
    with new_folder(Path(folder), overwrite=False) as temporary:
        save_adapter(encoder, temporary, storage=storage, weights=adapter)
        head = {name: state[name].cpu().contiguous() for name in (WEIGHT, BIAS)}
        write_bytes(temporary / HEAD_FILE, save(head))
        write_labels(temporary / LABELS_FILE, classifier.classes_)


def load_task(folder: Path | str, encoder: "TextEncoder") -> FewShotClassifier:
    """The classifier that ``save_task`` wrote, on the encoder that it was adapted from; it can predict.

    Args:
        folder: what ``save_task`` wrote.
        encoder: without adapters; gets the ones in the folder.

    Raises:
        ModelFolderError: if a file is missing, damaged or does not fit the encoder.
    """
    folder = Path(folder)
    load_adapter(encoder, folder)
    classes, head = read_labels(folder / LABELS_FILE), read_tensors(folder / HEAD_FILE)
    _check_head(head, classes, encoder.dim, folder)
    learner = MAML(encoder, inner_steps=0).eval()
    adapter = {ADAPTER + name: weight.detach().clone() for name, weight in adapter_weights(encoder).items()}
    state = {**adapter, **{name: value.to(encoder.device) for name, value in head.items()}}
    return FewShotClassifier.from_state(learner, state, classes)


def _check_head(head: Mapping[str, Tensor], classes: "NDArray[np.generic]", dim: int, folder: Path) -> None:
    shapes = {WEIGHT: (len(classes), dim), BIAS: (len(classes),)}
    found = {name: tuple(value.shape) for name, value in head.items()}
    if found != shapes or any(value.dtype != torch.float32 for value in head.values()):
        raise ModelFolderError(f"{folder / HEAD_FILE} should hold float32 tensors {shapes}; it has {found}.")
