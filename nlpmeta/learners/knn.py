"""Nearest neighbours: the learner that learns nothing, kept as a baseline."""

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, Option, Support, TaskState, Texts, balanced_weights, learners

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

_SMOOTHING = 1e-3  # votes: a class without a neighbour keeps a small probability


@learners.register("knn")
class NearestNeighbours(Learner):
    """The ``k`` support texts with the highest cosine vote for their class, nearer ones a little more.

    Source: Cover and Hart, IEEE Transactions on Information Theory 13(1), 1967; votes weighted by similarity after
    Dudani, 1976. Where we differ: a vote counts less in a class with more support texts.
    """

    differentiable = False

    def __init__(self, encoder: "TextEncoder", *, k: int = 5) -> None:
        """Build from an encoder; ``k`` neighbours vote (all of them where the support is smaller).

        Raises:
            NLPMetaError: if ``k`` is not positive.
        """
        super().__init__(encoder)
        if k < 1:
            raise NLPMetaError(f"k must be at least 1; got {k}.")
        self.k = k

    def adapt(self, support: Support) -> TaskState:
        votes = F.one_hot(support.labels, support.n_way) * balanced_weights(support.labels, support.n_way).unsqueeze(1)
        keys = F.normalize(self.embed(support).detach(), dim=1)
        return {"keys": keys, "values": votes.to(keys)}

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        similarity = F.normalize(self.embed(queries), dim=1) @ state["keys"].T
        nearest = similarity.topk(min(self.k, len(state["keys"])), dim=1)
        closeness = (nearest.values - nearest.values[:, :1]).exp().unsqueeze(2)  # 1 for the nearest, less for others
        votes = (closeness * state["values"][nearest.indices]).sum(1)
        return (votes / votes.sum(1, keepdim=True) + _SMOOTHING).log()

    def problem_of(self, state: TaskState) -> str:
        votes = state["values"]
        return "" if bool((votes >= 0).all() and (votes.sum(1) > 0).all()) else "a text has no vote, or less than none"

    def config(self) -> dict[str, Option]:
        return {"k": self.k}
