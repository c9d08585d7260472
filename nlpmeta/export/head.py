"""What an adapted model comes down to where other libraries take it: encoders without adapters, and linear layers."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.encoder.merged import plain_backbone, scales_with, with_weights
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, TaskState, Texts
from nlpmeta.learners.inner_loop import BIAS, WEIGHT
from nlpmeta.learners.mixture import mixed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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


@torch.no_grad()
def linear_heads(learner: Learner, state: TaskState) -> LinearHeads:
    """The linear layers that give the same probabilities as ``learner`` with ``state``; one but for mixtures.

    They are read off the scores of unit vectors and compared with the learner on random ones, so that any head that is
    linear can be exported, whatever it is called. A constant that all classes share drops out of the softmax.

    Raises:
        NLPMetaError: if a head is not linear (neighbours, siamese and matching networks).
    """
    if WEIGHT in state:  # MAML and its family: the head beside the adapters of the task
        weight, bias = state[WEIGHT].detach().cpu(), state[BIAS].detach().cpu()
        return LinearHeads(weight.unsqueeze(0), bias.unsqueeze(0), torch.ones(1, device="cpu"), 1.0, normalise=True)
    if learner.inputs == "embeddings":
        views = len(learner.predictor(state).views)
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
    return bool((heads.logits(probes).softmax(1) - theirs.softmax(1)).abs().max() < _CLOSE)


def _parts(learner: Learner, state: TaskState, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    texts = Texts(("",) * len(features), features.to(learner.encoder.device))
    scores, shares, temperature = (part.float().cpu() for part in learner.predictor(state).parts(texts))
    return scores, shares, temperature


def plain_encoders(learner: Learner, state: TaskState) -> "list[PreTrainedModel]":
    """A copy of the encoder for each view of ``state``, with the adapters added into the weights and gone."""
    adapted = {name.removeprefix("adapter/"): value for name, value in state.items() if name.startswith("adapter/")}
    backbone = with_weights(learner.encoder.backbone, adapted)
    return [_plain(backbone, factor) for factor in learner.predictor(state).views]


def _plain(backbone: "PreTrainedModel", factor: float) -> "PreTrainedModel":
    plain = copy.deepcopy(plain_backbone(backbone, scales_with(backbone, factor)))
    return cast("PreTrainedModel", plain).requires_grad_(False)
