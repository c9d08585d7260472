"""What an adapted model comes down to where other libraries take it: encoders without adapters, and a linear layer."""

import copy
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.encoder.lora import adapter_merged, adapter_scaled, adapter_weights
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, TaskState, Texts
from nlpmeta.learners.maml import MAML

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

_PROBES, _CLOSE = 64, 1e-5


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Scores ``features @ weight.T + bias``: weight ``(n_way, dim)``, bias ``(n_way,)``.

    ``normalise`` says whether features are scaled to unit length first.
    """

    weight: Tensor
    bias: Tensor
    normalise: bool


@torch.no_grad()
def linear_head(learner: Learner, state: TaskState) -> LinearHead:
    """The linear layer that gives the same probabilities as ``learner`` with ``state``.

    It is read off the scores of unit vectors and compared with the learner on random ones, so that any head that is
    linear can be exported, whatever it is called. A constant that all classes share drops out of the softmax.

    Raises:
        NLPMetaError: if the head is not linear (neighbours, siamese and matching networks).
    """
    if isinstance(learner, MAML):
        return LinearHead(state["head/weight"].detach(), state["head/bias"].detach(), normalise=True)
    if learner.inputs == "embeddings":
        views = len(learner.views(state))
        width = int(learner.encoder.backbone.config.hidden_size)
        scores = _centred(_scores(learner, state, torch.cat([torch.zeros(1, views * width), torch.eye(views * width)])))
        for normalise in {learner.encoder.normalise: None, True: None}:
            head = LinearHead((scores[1:] - scores[0]).T.contiguous(), scores[0].clone(), normalise)
            if _agrees(head, learner, state, views):
                return head
    raise NLPMetaError(
        f"The head of this model ({type(learner).__name__}) is not linear, and other libraries take no other. "
        "Adapt with --method auto, prototypical, ridge, logistic or maml."
    )


def _agrees(head: LinearHead, learner: Learner, state: TaskState, views: int) -> bool:
    dim = head.weight.shape[1]
    probes = torch.randn(_PROBES, dim, generator=torch.Generator().manual_seed(0))
    if head.normalise:
        probes = torch.cat([F.normalize(part, dim=1) for part in probes.chunk(views, dim=1)], dim=1)
    ours = F.linear(probes, head.weight, head.bias).softmax(1)
    theirs = _scores(learner, state, probes).softmax(1)
    return bool((ours - theirs).abs().max() < _CLOSE)


def _scores(learner: Learner, state: TaskState, features: Tensor) -> Tensor:
    texts = Texts(("",) * len(features), features.to(learner.encoder.device))
    return learner.logits(state, texts).float().cpu()


def _centred(scores: Tensor) -> Tensor:
    return scores - scores.mean(1, keepdim=True)


def plain_encoders(learner: Learner, state: TaskState) -> "list[PreTrainedModel]":
    """A copy of the encoder for each view of ``state``, with the adapters added into the weights and gone."""
    adapted = {name.removeprefix("adapter/"): value for name, value in state.items() if name.startswith("adapter/")}
    with _with_weights(learner.encoder, adapted):
        return [_plain(learner.encoder, factor) for factor in learner.views(state)]


def _plain(encoder: TextEncoder, factor: float) -> "PreTrainedModel":
    with adapter_scaled(encoder, factor), adapter_merged(encoder):
        backbone = copy.deepcopy(encoder.backbone)
    for name, module in list(backbone.named_modules()):
        if hasattr(module, "lora_A"):
            parent, _, last = name.rpartition(".")
            base: nn.Module = module.get_base_layer()
            setattr(backbone.get_submodule(parent), last, base)
    for left in ("peft_config", "_hf_peft_config_loaded"):
        if left in backbone.__dict__:
            delattr(backbone, left)
    frozen: PreTrainedModel = backbone.requires_grad_(False)
    frozen.train(False)
    return frozen


@contextmanager
def _with_weights(encoder: TextEncoder, adapted: Mapping[str, Tensor]) -> "Iterator[None]":
    """The adapters that a task has of its own, for a block."""
    weights = adapter_weights(encoder)
    before = {name: weights[name].data for name in adapted}
    try:
        for name, value in adapted.items():
            weights[name].data = value.detach()
        yield
    finally:
        for name, value in before.items():
            weights[name].data = value
