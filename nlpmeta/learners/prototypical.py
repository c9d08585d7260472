"""Prototypical networks: the metric-based learner."""

from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.errors import UnknownNameError
from nlpmeta.learners.abilities import with_rows
from nlpmeta.learners.base import (
    Learner,
    Option,
    Support,
    TaskState,
    Texts,
    class_means,
    class_weights,
    learners,
    squared_distances,
)
from nlpmeta.settings import check_positive

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

Metric = Literal["euclidean", "cosine"]


@learners.register("prototypical")
class PrototypicalNetwork(Learner):
    """Scores a text by its squared distance, or its cosine, to the mean support vector of each class.

    Source: Snell, Swersky and Zemel, NeurIPS 2017, equation 2 (arXiv:1703.05175): the distance is squared, as in the
    paper. Where we differ: scores are divided by a temperature, which can be meta-trained; with unit vectors the
    squared distance spans no more than 0 to 4, too flat for a softmax over many classes. With ``names``, the name of a
    class is one more support text of it, which counts as much as a learned number of texts.
    """

    independent_classes = True
    learns_from_names = True
    weighs = True

    def __init__(
        self,
        encoder: "TextEncoder",
        *,
        metric: Metric = "euclidean",
        temperature: float = 0.02,
        names: bool = False,
        name_weight: float = 1.0,
    ) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors.
            metric: squared Euclidean distance, or cosine similarity.
            temperature: what scores are divided by at the start; learned in meta-training.
            names: read the names of the classes, where they are words.
            name_weight: how many texts a name counts as at the start; learned in meta-training.

        Raises:
            UnknownNameError: if the metric is neither.
            NLPMetaError: if temperature or name weight is not positive.
        """
        super().__init__(encoder)
        if metric not in get_args(Metric):
            raise UnknownNameError("metric", metric, get_args(Metric))
        check_positive(temperature=temperature, name_weight=name_weight)
        self.metric: Metric = metric
        self.log_temperature = nn.Parameter(torch.tensor(temperature, device=encoder.device).log())
        weight = torch.tensor(name_weight, device=encoder.device).log()
        self.log_name_weight = nn.Parameter(weight) if names else None

    @property
    def reads_names(self) -> bool:
        return self.log_name_weight is not None

    @property
    def name_weight(self) -> float | None:
        """How many texts the name of a class counts as; ``None`` if names are not read."""
        return None if self.log_name_weight is None else float(self.log_name_weight.detach().exp())

    def adapt(self, support: Support) -> TaskState:
        means = class_means(self.embed(support), support.labels, support.n_way, support.weights)
        if self.log_name_weight is None or support.names is None:
            return {"prototypes": means}
        weight = self.log_name_weight.exp()
        texts = class_weights(support.labels, support.n_way, support.weights).to(means)
        share = weight / (weight + texts).unsqueeze(1)
        return {"prototypes": means.lerp(self.embed(support.names), share)}

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        features, prototypes = self.embed(queries), state["prototypes"]
        if self.metric == "cosine":
            scores = F.normalize(features, dim=1) @ F.normalize(prototypes, dim=1).T
        else:
            scores = -squared_distances(features, prototypes)
        return scores / self.log_temperature.exp()

    def contributions(self, state: TaskState, support: Support, queries: Texts) -> Tensor:
        """As ``SumsOverSupport``: a prototype is a sum, and so are its cosine and its squared distance."""
        texts = class_weights(support.labels, support.n_way, support.weights).to(state["prototypes"])
        own = texts.new_ones(len(support)) if support.weights is None else support.weights.to(texts)
        rows, labels, parts = self.embed(support), support.labels, own / texts[support.labels]
        if self.log_name_weight is not None and support.names is not None:
            share = self.log_name_weight.exp() / (self.log_name_weight.exp() + texts)
            rows = torch.cat([rows, self.embed(support.names)])
            parts = torch.cat([parts * (1 - share[labels]), share])
            labels = torch.cat([labels, torch.arange(support.n_way, device=labels.device)])
        features, means = self.embed(queries), state["prototypes"][labels]
        if self.metric == "cosine":
            found = F.normalize(features, dim=1) @ (rows / means.norm(dim=1, keepdim=True).clamp(min=1e-12)).T
        else:
            found = 2 * features @ rows.T - (rows * means).sum(1) - features.square().sum(1, keepdim=True)
        found = (parts * found / self.log_temperature.exp()).unsqueeze(2)
        return with_rows(found * F.one_hot(labels, support.n_way).to(found), support)

    def config(self) -> dict[str, Option]:
        return {"metric": self.metric, "names": self.reads_names}
