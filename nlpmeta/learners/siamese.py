"""Siamese networks: a learned distance between two texts, trained to tell whether they have the same class."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.learners.base import Learner, Option, Support, TaskState, Texts, learners
from nlpmeta.settings import check_positive

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder


@learners.register("siamese")
class SiameseNetwork(Learner):
    """Scores a class by the mean similarity of a text to its support texts, in a weighted L1 distance that is learned.

    Source: Koch, Zemel and Salakhutdinov, Siamese Neural Networks for One-shot Image Recognition, ICML Deep Learning
    Workshop 2015, section 3: ``p = sigmoid(sum_j a_j |h1_j - h2_j|)``, cross-entropy on pairs. Where we differ: the
    weights of the distance are kept positive, a learned threshold and scale make the similarity out of it, and the
    pairs are all those of an episode's query with its support, pairs of one class weighing as much as the others.
    """

    independent_classes = True

    def __init__(self, encoder: "TextEncoder", *, threshold: float = 0.4, scale: float = 30.0) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors.
            threshold: the distance at which two texts are as likely of one class as not, at the start; learned.
            scale: what the difference to it is multiplied by, at the start; learned.

        Raises:
            NLPMetaError: if threshold or scale is not positive.
        """
        super().__init__(encoder)
        check_positive(threshold=threshold, scale=scale)
        place = encoder.device
        self.log_weights = nn.Parameter(torch.full((encoder.dim,), encoder.dim**-0.5, device=place).log())
        self.log_scale = nn.Parameter(torch.tensor(scale, device=place).log())
        self.threshold = nn.Parameter(torch.tensor(threshold, device=place))

    def adapt(self, support: Support) -> TaskState:
        votes = F.one_hot(support.labels, support.n_way).to(self.log_weights.dtype)
        return {"keys": self.embed(support), "shares": votes / votes.sum(0)}

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        return self._similarity(self.embed(queries), state["keys"]) @ state["shares"]

    def episode_loss(self, support: Support, query: Support) -> Tensor:
        """Cross-entropy on the pairs (query text, support text): same class or not; shape ``()``."""
        scores = self._similarity(self.embed(query), self.embed(support))
        same = query.labels.unsqueeze(1) == support.labels.unsqueeze(0)
        each = F.binary_cross_entropy_with_logits(scores, same.to(scores), reduction="none")
        return (each[same].mean() + each[~same].mean()) / 2

    def config(self) -> dict[str, Option]:
        return {}

    def _similarity(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Log-odds that two texts are of one class, ``(n, m)``; positive for texts nearer than the threshold."""
        weights = self.log_weights.exp()
        distance = torch.cdist((rows * weights).float(), (columns * weights).float(), p=1.0)
        return self.log_scale.exp() * (self.threshold - distance)
