"""What an adapted model comes down to where other libraries take it: encoders without adapters, and linear layers."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.auto.heads import NAMES_ALONE, TUNED, LabelHeads
from nlpmeta.auto.mixture import OneVsRest, mixed
from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.classifier.light import LightEncoder, LightHeads, write_light, write_names
from nlpmeta.classifier.streaming import check_state
from nlpmeta.encoder.compiling import Agreement, compile_encoder, compiled_name
from nlpmeta.encoder.engines import CompiledEncoder, CompiledName, Engine, precision_of
from nlpmeta.encoder.files import max_length
from nlpmeta.encoder.merged import INNER, lower_layers, plain_backbone, scales_with, with_weights
from nlpmeta.encoder.text_encoder import MAX_LENGTH, TextEncoder
from nlpmeta.encoder.views import ScaledEncoder
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.learners.abilities import THRESHOLDS
from nlpmeta.learners.base import Learner, TaskState, Texts
from nlpmeta.learners.inner_loop import BIAS, WEIGHT
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.storage.files import inside, read_json
from nlpmeta.storage.manifest import mapping, read_manifest
from nlpmeta.storage.tensors import read_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from nlpmeta.auto.method import AutoHead

_PROBES, _CLOSE = 64, 1e-5


@dataclass(frozen=True, eq=False)
class LinearHeads:
    """Linear heads and how their probabilities are mixed: the mean by ``shares``, then a ``temperature``.

    Scores ``features @ weight.T + bias`` of each head: weight ``(n_heads, n_way, dim)``, bias ``(n_heads, n_way)``;
    shares ``(n_heads,)`` of sum 1. ``normalise`` says whether features are scaled to unit length first.
    """

    weight: Tensor
    bias: Tensor
    shares: Tensor
    temperature: float
    normalise: bool

    def logits(self, features: Tensor) -> Tensor:
        """From embeddings ``(n, dim)`` to scores ``(n, n_way)``."""
        scores = torch.einsum("nd,hwd->hnw", features, self.weight) + self.bias.unsqueeze(1)
        return mixed(scores.log_softmax(2), self.shares) / self.temperature

    def probabilities(self, features: Tensor) -> Tensor:
        """Of the classes, ``(n, n_way)``; their sum is 1."""
        return self.logits(features).softmax(1)


def exported_heads(learner: Learner, state: TaskState) -> LinearHeads | LabelHeads:
    """What gives the same probabilities as ``learner`` with ``state``.

    Raises:
        NLPMetaError: as ``linear_heads``, where each text gets one label.
    """
    found = learner.predictor(state)
    return found.heads if isinstance(found, OneVsRest) and not found.is_tuned else linear_heads(learner, state)


@torch.no_grad()
def linear_heads(learner: Learner, state: TaskState) -> LinearHeads:
    """The linear layers that give the same probabilities as ``learner`` with ``state``; one but for mixtures.

    They are read off the scores of unit vectors and compared with the learner on random ones, so that any head that is
    linear can be exported, whatever it is called. A constant that all classes share drops out of the softmax.

    Raises:
        NLPMetaError: if a head is not linear (neighbours, siamese and matching networks).
    """
    if f"{TUNED}/{WEIGHT}" in state:
        raise NLPMetaError("A part of this model was fine-tuned beside its heads; adapt without --budget to export it.")
    if THRESHOLDS in state:
        raise NLPMetaError("This model gives several labels per text, which no linear head does.")
    if WEIGHT in state:  # MAML and its family: the head beside the adapters of the task
        weight, bias = state[WEIGHT].detach().cpu(), state[BIAS].detach().cpu()
        return LinearHeads(weight.unsqueeze(0), bias.unsqueeze(0), torch.ones(1, device="cpu"), 1.0, normalise=True)
    if learner.inputs == "embeddings":
        views = len(learner.predictor(state).adapter_scales)
        width = views * int(learner.encoder.backbone.config.hidden_size)
        units = torch.cat([torch.zeros(1, width, device="cpu"), torch.eye(width, device="cpu")])
        scores, shares, temperature = _parts(learner, state, units)
        scores = scores - scores.mean(2, keepdim=True)
        weight, bias = (scores[:, 1:] - scores[:, :1]).transpose(1, 2).contiguous(), scores[:, 0].clone()
        for normalise in {learner.encoder.normalise: None, True: None}:
            heads = LinearHeads(weight, bias, shares, float(temperature), normalise)
            if _agrees(heads, learner, state, views):
                return heads
    raise NLPMetaError(
        f"The head of this model ({type(learner).__name__}) is not linear, and other libraries take no other. "
        "Adapt with --method auto, prototypical, ridge, logistic or maml."
    )


def _agrees(heads: LinearHeads, learner: Learner, state: TaskState, views: int) -> bool:
    draw = torch.Generator("cpu").manual_seed(0)
    probes = torch.randn(_PROBES, heads.weight.shape[2], generator=draw, device="cpu")
    if heads.normalise:
        probes = torch.cat([F.normalize(part, dim=1) for part in probes.chunk(views, dim=1)], dim=1)
    scores, shares, temperature = _parts(learner, state, probes)
    theirs = mixed(scores.log_softmax(2), shares) / temperature
    return bool((heads.probabilities(probes) - theirs.softmax(1)).abs().max() < _CLOSE)


def _parts(learner: Learner, state: TaskState, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    texts = Texts(("",) * len(features), features.to(learner.encoder.device))
    scores, shares, temperature = (part.float().cpu() for part in learner.predictor(state).parts(texts))
    return scores, shares, temperature


def plain_encoders(learner: Learner, state: TaskState) -> "list[PreTrainedModel]":
    """A copy of the encoder for each view of ``state``, with the adapters added into the weights and gone."""
    adapted = {name.removeprefix("adapter/"): value for name, value in state.items() if name.startswith("adapter/")}
    backbone = with_weights(learner.encoder.backbone, adapted)
    return [_plain(backbone, view) for view in learner.predictor(state).adapter_scales]


def _plain(backbone: "PreTrainedModel", view: float) -> "PreTrainedModel":
    plain = cast("PreTrainedModel", plain_backbone(backbone, scales_with(backbone, view)))
    return copy.deepcopy(lower_layers(plain) if view == INNER else plain).requires_grad_(False)


def compile_model(classifier: FewShotClassifier, engine: Engine, folder: Path | None = None) -> Agreement | None:
    """Compile the encoder of a model as its heads read it, and keep the heads for predictions without PyTorch.

    Args:
        classifier: an adapted model.
        engine: ``onnx`` or ``onnx-int8``.
        folder: where the model is saved; without it, or where a head is not linear, the encoder alone is compiled.

    Returns:
        How the compiled encoder compares with PyTorch; ``None`` if there was one already.

    Raises:
        NLPMetaError: if the model embeds with adapters of its own task (MAML), or a package is missing.
        WorkFailedError: if the compiled encoder differs too much, or the cache cannot be written.
    """
    learner, state = classifier.learner_, classifier.state_
    if learner.inputs != "embeddings":
        raise NLPMetaError(f"{type(learner).__name__} embeds with weights of each task, which cannot be compiled.")
    encoder = _read_by(classifier)
    name = compiled_name(encoder, precision_of(engine))
    if name is None or encoder.files is None:
        raise NLPMetaError("This encoder was built in memory; only one that was loaded can be compiled.")
    found = None if CompiledEncoder.is_sound(name) else compile_encoder(encoder, precision_of(engine))
    one = not encoder.pairs and not classifier.fitted_.gives_sets
    if folder is not None and one and _names_encoder(folder, encoder.files.digest):
        try:
            linear = linear_heads(learner, state)
        except NLPMetaError:  # neighbours and the like: predictions load PyTorch, and embed with what was compiled
            return found
        weight, bias, shares = (part.float().numpy() for part in (linear.weight, linear.bias, linear.shares))
        if linear.normalise == encoder.normalise:
            heads = LightHeads(weight, bias, shares, linear.temperature)
            write_light(folder, heads, classifier.classes_, _light(encoder, name))
    return found


def compile_names(learner: Learner, checkpoint: Path, engine: Engine) -> Agreement | None:
    """Compile what ``auto`` reads of the names of classes, for answers by these alone without PyTorch.

    Args:
        learner: ``auto``, as it starts from the checkpoint.
        checkpoint: its folder.
        engine: ``onnx`` or ``onnx-int8``.

    Returns:
        How the compiled encoder compares with PyTorch; ``None`` if there was one already.

    Raises:
        NLPMetaError: if a package is missing.
        WorkFailedError: if the compiled encoder differs too much, or the cache cannot be written.
    """
    auto = cast("AutoHead", learner)
    read, encoder, profile = auto.candidates[NAMES_ALONE], auto.encoder, auto.priors
    if isinstance(encoder, ScaledEncoder):
        encoder = encoder.select(read.scales)
    name = compiled_name(encoder, precision_of(engine))
    found = (
        None if name is not None and CompiledEncoder.is_sound(name) else compile_encoder(encoder, precision_of(engine))
    )
    if name is not None and encoder.normalise:
        ways = sorted({*profile.temperature.ways, *profile.head_temperatures.ways})
        temperatures = {n_way: (auto.names_over(n_way), float(profile.temperature.at(1, n_way))) for n_way in ways}
        write_names(checkpoint, _light(encoder, name), temperatures)
    return found


def has_compiled(classifier: FewShotClassifier) -> bool | None:
    """Whether the encoder of a model is compiled as its heads read it; ``None`` if it cannot be."""
    if classifier.learner_.inputs != "embeddings" or _read_by(classifier).files is None:
        return None
    name = compiled_name(_read_by(classifier), "float32")
    return name is not None and name.there is not None


def _read_by(classifier: FewShotClassifier) -> TextEncoder:
    """The encoder in the views that the heads of the model read."""
    encoder, scales = classifier.learner_.encoder, classifier.fitted_.predictor.adapter_scales
    return encoder.select(scales) if isinstance(encoder, ScaledEncoder) else encoder


def _light(encoder: TextEncoder, name: CompiledName) -> LightEncoder:
    return LightEncoder(name, encoder.prefix, encoder.max_length, encoder.most_tokens, encoder.windows)


def _names_encoder(folder: Path, digest: str) -> bool:
    """Whether the model in ``folder`` was adapted on the encoder with this digest."""
    return mapping(read_manifest(folder)["encoder"]).get("digest") == digest


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
            "and 'bias', or re-adapt on the body: FewShotClassifier(encoder=folder)."
        )
    body, normalise = _body(folder)
    most = min(MAX_LENGTH, max_length(body) or MAX_LENGTH)
    encoder = TextEncoder.from_pretrained(str(body), normalise=normalise, max_length=most, pooling="mean")
    tensors = read_tensors(path)
    weight = next((tensors[name] for name in _WEIGHTS if name in tensors), None)
    bias = next((tensors[name] for name in _BIASES if name in tensors), None)
    if weight is not None and weight.ndim == 3:
        raise ModelFolderError(
            f"{path} holds a mixture of {len(weight)} heads, as 'nlpmeta export' writes it. Load the model that it was "
            "made from, or export one that was adapted with --method logistic."
        )
    linear = weight is not None and weight.ndim == 2 and len(weight) > 0
    if weight is None or bias is None or not linear or bias.shape != weight.shape[:1]:
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
