"""Takes in a SetFit model: a sentence-transformers body and a linear head, where the head is no pickle."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from nlpmeta.classifier import FewShotClassifier
from nlpmeta.encoder.model_folder import max_length
from nlpmeta.encoder.text_encoder import MAX_LENGTH, TextEncoder
from nlpmeta.errors import ModelFolderError
from nlpmeta.files import inside, read_json
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.saved_task import check_state
from nlpmeta.tensors import read_tensors

PICKLE, HEADS = "model_head.pkl", ("model_head.safetensors", "head.safetensors")
_WEIGHTS, _BIASES = ("weight", "linear.weight", "coef_"), ("bias", "linear.bias", "intercept_")


def import_setfit(folder: Path | str) -> FewShotClassifier:
    """The classifier in a folder of SetFit, or in one that ``nlpmeta export --to sentence-transformers`` wrote.

    SetFit writes its head as a pickle, ``model_head.pkl``, and a pickle can run any program: it is never read. Where
    you trust it, write the head again as safetensors: ``save_file({"weight": W, "bias": b}, "head.safetensors")`` with
    ``W`` and ``b`` from ``coef_`` and ``intercept_``.

    Raises:
        ModelFolderError: if there is no head but a pickle, or the body does more than mean pooling and unit length.
    """
    folder = Path(folder)
    path = next((inside(folder, name) for name in HEADS if (folder / name).is_file()), None)
    if path is None:
        there = f"only {PICKLE}, a pickle, which is never loaded" if (folder / PICKLE).exists() else "none"
        raise ModelFolderError(
            f"{folder} has no head that can be read ({there}). Write it as head.safetensors with the tensors 'weight' "
            "and 'bias', or adapt anew on the body: FewShotClassifier(encoder=folder)."
        )
    body, normalise = _body(folder)
    most = min(MAX_LENGTH, max_length(body) or MAX_LENGTH)
    encoder = TextEncoder.from_pretrained(str(body), normalise=normalise, max_length=most)
    tensors = read_tensors(path)
    weight = next((tensors[name] for name in _WEIGHTS if name in tensors), None)
    bias = next((tensors[name] for name in _BIASES if name in tensors), None)
    if weight is not None and weight.ndim == 3:
        raise ModelFolderError(
            f"{path} holds a mixture of {len(weight)} heads, as 'nlpmeta export' writes it. Load the model that it was "
            "made from, or export one that was adapted with --method logistic."
        )
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ModelFolderError(f"{path} does not hold a linear head: 'weight' (classes, dim) and 'bias' (classes,).")
    if len(weight) == 1:  # scikit-learn's single row for two classes
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    learner = LogisticHead(encoder).eval()
    state, classes = {"weight": weight.float(), "bias": bias.float()}, _labels(folder, len(weight))
    check_state(learner, state, len(classes), path)
    return FewShotClassifier.from_state(learner, state, classes)


def _body(folder: Path) -> tuple[Path, bool]:
    """The folder of the transformer, and whether embeddings are scaled to unit length."""
    modules = read_json(inside(folder, "modules.json"))
    kinds = {}
    for module in modules if isinstance(modules, list) else []:
        if isinstance(module, Mapping):
            kinds[str(module.get("type")).rpartition(".")[2]] = str(module.get("path", ""))
    if set(kinds) - {"Normalize"} != {"Transformer", "Pooling"}:
        raise ModelFolderError(
            f"{folder} has the modules {sorted(kinds)}; Transformer, Pooling and Normalize are read."
        )
    pooling = read_json(inside(folder, f"{kinds['Pooling']}/config.json"))
    facts = pooling if isinstance(pooling, dict) else {}
    on = {key for key, value in facts.items() if key.startswith("pooling_mode") and value not in (False, None)}
    if on not in ({"pooling_mode_mean_tokens"}, {"pooling_mode"}) or facts.get("pooling_mode", "mean") != "mean":
        raise ModelFolderError(f"{folder} pools otherwise than by the mean ({sorted(on)}), which is not read.")
    setfit = read_json(folder / "config_setfit.json") if (folder / "config_setfit.json").is_file() else {}
    forced = isinstance(setfit, dict) and setfit.get("normalize_embeddings") is True
    return (inside(folder, kinds["Transformer"]) if kinds["Transformer"] else folder), "Normalize" in kinds or forced


def _labels(folder: Path, n_way: int) -> "np.ndarray[tuple[int], np.dtype[np.generic]]":
    for name in ("labels.json", "config_setfit.json"):
        found = read_json(folder / name) if (folder / name).is_file() else {}
        labels = found.get("labels") if isinstance(found, dict) else None
        if isinstance(labels, list) and len(labels) == n_way and len({type(each) for each in labels}) == 1:
            if len(set(map(str, labels))) == n_way and isinstance(labels[0], str | int | float):
                return np.asarray(labels)
    return np.arange(n_way)
