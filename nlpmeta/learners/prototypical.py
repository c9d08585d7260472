"""Learners by distance: prototypical networks; nearest neighbours, matching and siamese networks."""

from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.errors import NLPMetaError, UnknownNameError
from nlpmeta.learners.abilities import with_rows
from nlpmeta.learners.base import (
    Learner,
    Option,
    Support,
    TaskState,
    Texts,
    balanced_weights,
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
        return self.log_name_weight is not None and not self.encoder.pairs

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
        return {"metric": self.metric, "names": self.log_name_weight is not None}


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
