"""Matching networks: attention over the support."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.learners.base import Learner, Option, Support, TaskState, Texts, learners
from nlpmeta.settings import check_positive

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

_SMALLEST = 1e-37  # the logarithm of what is smaller is not finite


@learners.register("matching")
class MatchingNetwork(Learner):
    """Adds up the attention that a text pays to the support texts of each class.

    Source: Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra, NeurIPS 2016, equations 1 and 2 (arXiv:1606.04080):
    attention is the softmax of cosines. Where we differ: cosines are divided by a learned temperature; the attention of
    a class is a mean over its texts, so that larger classes have no advantage (with equal shots this is the paper's
    sum); and there are no full context embeddings, which make a text's embedding depend on the order of the support.
    """

    independent_classes = True

    def __init__(self, encoder: "TextEncoder", *, temperature: float = 0.05) -> None:
        """Build from an encoder; ``temperature`` divides the cosines at the start and is learned.

        Raises:
            NLPMetaError: if it is not positive.
        """
        super().__init__(encoder)
        check_positive(temperature=temperature)
        self.log_temperature = nn.Parameter(torch.tensor(temperature, device=encoder.device).log())

    def adapt(self, support: Support) -> TaskState:
        votes = F.one_hot(support.labels, support.n_way).to(self.log_temperature.dtype)
        return {"keys": F.normalize(self.embed(support), dim=1), "shares": votes / votes.sum(0)}

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        cosines = (F.normalize(self.embed(queries), dim=1) @ state["keys"].T).float()
        scores = cosines / self.log_temperature.exp()
        highest = scores.detach().amax(1, keepdim=True)
        attention = (scores - highest).exp() @ state["shares"]
        return attention.clamp(min=_SMALLEST).log() + highest

    def config(self) -> dict[str, Option]:
        return {}
