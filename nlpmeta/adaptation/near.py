"""A user's head near a shared one: what everybody taught, moved by what one person says."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.adaptation.packing import Label
from nlpmeta.errors import DataError, NLPMetaError, visible
from nlpmeta.learners.base import TaskState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PENALTY, BIAS_PENALTY = 3.0, 0.5
"""Chosen on half of the users of popquorn (the even ones); benchmarks/adapter_store.py reports the other half."""
_STEPS = 60


def head_near(
    features: Tensor, labels: Tensor, shared: TaskState, *, penalty: float = PENALTY, bias_penalty: float = BIAS_PENALTY
) -> TaskState:
    """Logistic regression whose weights are drawn to a shared head instead of to zero.

    Source: regularised multi-task learning, Evgeniou and Pontil, KDD 2004, equation 5, with the logistic loss for the
    hinge loss. Features are centred and scaled on the user's own texts, so that the penalties mean the same with every
    encoder.

    Args:
        features: embeddings of the user's texts, ``(n, dim)``.
        labels: their classes, numbered as in the shared head, ``(n,)``; not every class needs a text.
        shared: ``weight`` ``(n_way, dim)`` and ``bias`` ``(n_way,)``.
        penalty: what half the squared distance of the weights costs, in units of one text's loss.
        bias_penalty: the same for the biases.

    Raises:
        NLPMetaError: if a penalty is not positive.
    """
    if penalty <= 0 or bias_penalty <= 0:
        raise NLPMetaError(f"Penalties must be positive; got {penalty} and {bias_penalty}.")
    centre = features.mean(0)
    rows = (features - centre).cpu().double()  # float64, which some accelerators lack; a user has few texts
    scale = rows.norm(dim=1).mean().clamp(min=1e-6)
    rows = rows / scale
    start = F.linear(features, shared["weight"], shared["bias"]).cpu().double()  # (n, n_way)
    labels = labels.cpu()
    weight = torch.zeros(shared["weight"].shape, dtype=torch.float64, device="cpu", requires_grad=True)
    bias = torch.zeros(len(weight), dtype=torch.float64, device="cpu", requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        fit = F.cross_entropy(start + F.linear(rows, weight, bias), labels, reduction="sum")
        total = fit + penalty / 2 * weight.square().sum() + bias_penalty / 2 * bias.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    moved = (weight.detach() / scale).to(features)
    return {
        "weight": shared["weight"] + moved,
        "bias": shared["bias"] + bias.detach().to(features) - moved @ centre,
    }


@dataclass(frozen=True, eq=False)
class SharedHead:
    """The head that others start from, and its labels."""

    state: TaskState
    labels: tuple[Label, ...]

    def moved(self, features: Tensor, labels: "NDArray[np.generic]") -> TaskState:
        """The head of one who labels texts ``(n, dim)`` as ``labels`` ``(n,)``."""
        number = {label: i for i, label in enumerate(self.labels)}
        numbers = torch.tensor([number[label] for label in labels.tolist()], device=features.device)
        return head_near(features, numbers, self.state)


def check_near(shared: TaskState, user: str, labels: list[object], known: tuple[Label, ...]) -> None:
    """Refuse what cannot start from a shared head.

    Raises:
        NLPMetaError: if the method has no linear head of its own.
        DataError: if a label is not one of the shared head's.
    """
    if set(shared) != {"weight", "bias"}:
        raise NLPMetaError("near= needs the method 'logistic': heads that are weights and biases alone.")
    unknown = [label for label in labels if label not in known]
    if unknown:
        shown = visible(", ".join(repr(label) for label in known[:20]), 60)
        raise DataError(
            f"User {visible(repr(user), 40)} has the label {visible(repr(unknown[0]), 40)}, which the shared head has "
            f"not; it has {shown}."
        )
