"""The learner that weighs heads on the adapted and on the frozen encoder by what the support set says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.encoder.lora import has_adapter
from nlpmeta.encoder.views import ADAPTED, FROZEN, Views
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, Option, Support, TaskState, Texts, class_means, learners
from nlpmeta.learners.experience import experience
from nlpmeta.learners.heads import WITHOUT_NAMES, Candidate, candidates, features_of, held_out_scores, n_folds
from nlpmeta.learners.judging import Judged, held_out_likelihood, judged_on, leads, still_judged
from nlpmeta.learners.likeness import usual_likeness
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.stacking import mixed, stacked

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

SMALLEST_SHARE = 0.05
"""A head that would count for less is left out."""
WORTH_A_VIEW = 0.25
"""A view of the encoder is left out if its heads count for less together: a prediction then costs half."""


@learners.register("auto")
class AutoHead(Learner):
    """A mixture of heads, weighted by how likely they make held-out folds of the support set.

    The heads see the adapted encoder, the frozen one, or both side by side, with or without the names of the classes;
    among them there is always logistic regression on the frozen encoder, for tasks that meta-training did harm to. The
    weights are those of stacking (``stacking.stacked``) around a prior: the weights that were best on auxiliary tasks
    with as many shots and ways (``experience.json``). With one text of some class nothing can be held out and the prior
    decides alone; names are then read only if they alone find the class of more support texts than chance.

    The scores of each head are divided by the temperature at which the held-out folds are most likely; those of the
    mixture by one more, which was right on the auxiliary tasks. Classes with more examples than others have their lead
    taken back (``judging.leads``). The state keeps the tensors of a head under ``<name>/``, so that it says itself what
    was chosen, and how likely held-out texts were, for label sets.
    """

    differentiable = False

    def __init__(self, encoder: "TextEncoder", *, temperature: float = 0.05, name_weight: float = 1.0) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors; with adapters, it is also seen without them.
            temperature: of the prototypical network among the heads.
            name_weight: how many texts the name of a class counts as, for that network.

        Raises:
            NLPMetaError: if one of the two is not positive.
        """
        two = has_adapter(encoder)
        super().__init__(Views(encoder) if two else encoder)
        self.temperature, self.name_weight = temperature, name_weight
        self.experience = experience().views(two)
        self.candidates = candidates(encoder, two_views=two, temperature=temperature, name_weight=name_weight)

    @classmethod
    def on(cls, trained: Learner) -> "AutoHead":
        if not isinstance(trained, PrototypicalNetwork):
            return cls(trained.encoder)
        temperature = float(trained.log_temperature.detach().exp())
        return cls(trained.encoder, temperature=temperature, name_weight=trained.name_weight or 1.0)

    @property
    def reads_names(self) -> bool:
        return True

    @torch.no_grad()
    def adapt(self, support: Support) -> TaskState:
        known = self.known(support)
        return self.adapt_to(known, self.judge(known))

    def adapt_to(self, known: Support, judged: Judged) -> TaskState:
        """``adapt`` to a support whose heads are judged already."""
        weights = self.weights(judged, known)
        every = zip(judged.heads, weights.tolist(), judged.temperatures, strict=True)
        state = self._fitted(known, {name: (weight, over) for name, weight, over in every if weight > 0})
        temperature = float(state["mixture/temperature"])
        state["mixture/held_out"] = held_out_likelihood(judged, weights, known.labels, temperature)
        state["mixture/judged"] = judged_on(known)
        return state

    @torch.no_grad()
    def readapt(self, support: Support, before: TaskState) -> TaskState:
        """Fit the heads again; judge them again, which takes most of the time, only if much has changed.

        That is if the examples have become 1.5 times as many or as few since the heads were judged, if something can be
        held out for the first time, or if the names of the classes have come to say something or ceased to.
        """
        known = self.known(support)
        if not still_judged(before.get("mixture/judged"), judged_on(known)):
            return self.adapt_to(known, self.judge(known))
        heads = {
            name: (float(before[f"{name}/share"]), float(before[f"{name}/scores_over"])) for name in self.heads(before)
        }
        kept = {key: before[key] for key in ("mixture/held_out", "mixture/judged")}
        return self._fitted(known, heads) | kept

    def _fitted(self, known: Support, heads: Mapping[str, tuple[float, float]]) -> TaskState:
        """The heads that have a share, by name with what their scores are divided by, and what the mixture needs."""
        state: TaskState = {}
        place = known.labels.device
        for name, (share, over) in heads.items():
            candidate = self.candidates[name]
            facts = {"share": torch.tensor(share, device=place), "scores_over": torch.tensor(over, device=place)}
            inner = candidate.head.adapt(self.seen(known, candidate)) | facts
            state |= {f"{name}/{key}": value for key, value in inner.items()}
        state["mixture/leads"] = leads(known.labels, known.n_way)
        n_shot = len(known) / known.n_way
        temperature = float(self.experience.temperature.at(n_shot, known.n_way))
        state["mixture/temperature"] = torch.tensor(temperature, device=place)
        features, n_views = self.read(known, state), max(1, len(self.factors(state)) * isinstance(self.encoder, Views))
        means = class_means(features, known.labels, known.n_way)
        state["mixture/prototypes"] = means
        usual = usual_likeness(features, known.labels, means, n_views=n_views)
        if usual is not None:
            state["mixture/usual_likeness"] = usual
        state["mixture/n_shot"] = torch.tensor(n_shot, device=place)
        return state

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        scores, shares, temperature = self.parts(state, queries)
        return mixed(scores.log_softmax(2), shares) / temperature

    def parts(self, state: TaskState, queries: Texts) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of every head ``(n_heads, n_query, n_way)``, its share ``(n_heads,)``, the mixture's temperature."""
        if queries.features is None:
            queries = self.queries(state, queries.texts)
        scores, shares, lead = [], [], state.get("mixture/leads", 0.0)
        for name in self.heads(state):
            inner = {key.partition("/")[2]: value for key, value in state.items() if key.startswith(f"{name}/")}
            scores.append(self.score(name, inner, queries, self.factors(state)) / inner["scores_over"] - lead)
            shares.append(inner.get("share", scores[-1].new_ones(())))  # a model of an older release has one head
        return torch.stack(scores), torch.stack(shares), state.get("mixture/temperature", scores[0].new_ones(()))

    def queries(self, state: TaskState, texts: Sequence[str]) -> Texts:
        """Texts with the embeddings that the chosen heads read: a view that none of them sees is not computed."""
        if not isinstance(self.encoder, Views):
            return super().queries(state, texts)
        return Texts(tuple(texts), self.encoder.select(self.factors(state)).encode(texts))

    def choice(self, state: TaskState) -> str:
        return max(self.heads(state), key=lambda name: float(state.get(f"{name}/share", 1.0)))

    def views(self, state: TaskState) -> tuple[float, ...]:
        return self.factors(state)

    def config(self) -> dict[str, Option]:
        return {"temperature": self.temperature, "name_weight": self.name_weight}

    def score(self, name: str, inner: TaskState, queries: Texts, computed: tuple[float, ...] | None = None) -> Tensor:
        """Scores ``(n_query, n_way)`` of one head; ``computed`` are the views in ``queries``."""
        candidate = self.candidates[name]
        features = self._columns(queries.features, candidate, computed)
        return candidate.head.logits(inner, replace(queries, features=features))

    def heads(self, state: TaskState) -> list[str]:
        """The names of the heads in ``state``, always in the same order, so that sums over them are the same.

        Raises:
            NLPMetaError: if one of them is not known to this release.
        """
        names = list(dict.fromkeys(key.partition("/")[0] for key in state))
        found = [name for name in names if name != "mixture"]
        for name in found:
            if name not in self.candidates:
                raise NLPMetaError(
                    f"This model was adapted with a head {name!r} that is not known here. Adapt it again."
                )
        return [name for name in self.candidates if name in found]

    def known(self, support: Support) -> Support:
        """The support with its embeddings, and without names that seem to say nothing about the classes."""
        names = support.names and replace(support.names, features=self.embed(support.names))
        known = replace(support, features=self.embed(support), names=names)
        first = self.seen(known, next(iter(self.candidates.values())))
        doubtful = names is not None and n_folds(support) < 2 and not _names_help(first)
        return replace(known, names=None) if doubtful else known

    def heads_for(self, known: Support) -> tuple[str, ...]:
        """The names of the heads that differ on this support."""
        return tuple(name for name in self.candidates if known.names is not None or name != WITHOUT_NAMES)

    def judge(self, known: Support) -> Judged:
        """Hold out folds of the support for each head, and find the temperature of its scores."""
        heads, folds = self.heads_for(known), n_folds(known)
        if folds < 2:
            return Judged(heads, tuple(self.experience.one_shot_temperatures[name] for name in heads), None)
        views = {name: self.seen(known, self.candidates[name]) for name in heads}
        scores = [held_out_scores(self.candidates[name].head, views[name], folds) for name in heads]
        return Judged.of(heads, scores, known.labels)

    def weights(self, judged: Judged, known: Support) -> Tensor:
        """The weight of each head, 0 for those that are left out, shape ``(n_heads,)``."""
        prior = self.experience.prior_of(judged.heads, len(known) / known.n_way, known.n_way)
        weights = prior
        if judged.held_out is not None:
            # The fewer classes, the less alike are tasks of that size, and the more likely one needs an unusual head.
            open_minded = prior + (1 / len(prior) - prior) / known.n_way
            weights = stacked(judged.held_out, known.labels, open_minded, strength=self.experience.strength)
        if isinstance(self.encoder, Views):
            for factor in (FROZEN, ADAPTED):
                reads = torch.tensor(
                    [factor in self.candidates[name].factors for name in judged.heads], device=weights.device
                )
                if float(weights[reads].sum()) < WORTH_A_VIEW * float(weights.sum()):
                    weights = weights * ~reads
        weights = weights * (weights >= min(SMALLEST_SHARE * float(weights.sum()), float(weights.max())))
        return (weights / weights.sum()).to(features_of(known))

    def seen(self, support: Support, candidate: Candidate) -> Support:
        """The support as a candidate sees it."""
        names = support.names and replace(support.names, features=self._columns(support.names.features, candidate))
        return replace(support, features=self._columns(support.features, candidate), names=names)

    def read(self, texts: Texts, state: TaskState) -> Tensor:
        """The embeddings of ``texts`` in the views that the heads in ``state`` read, and no others."""
        features = features_of(texts)
        if not isinstance(self.encoder, Views) or features.size(1) < self.encoder.dim:
            return features
        return torch.cat([features[:, self.encoder.columns(factor)] for factor in self.factors(state)], dim=1)

    def factors(self, state: TaskState) -> tuple[float, ...]:
        """The views that the heads in ``state`` read."""
        read = {factor for name in self.heads(state) for factor in self.candidates[name].factors}
        return tuple(sorted(read, reverse=True))  # the adapted one first, as in ``Views``

    def _columns(
        self, features: Tensor | None, candidate: Candidate, computed: tuple[float, ...] | None = None
    ) -> Tensor | None:
        """The part of ``features`` that a candidate sees; ``computed`` are their views where it may not be all."""
        if features is None or not isinstance(self.encoder, Views):
            return features
        views = self.encoder
        if computed is not None and features.size(1) < views.dim:
            views = views.select(computed)
        return torch.cat([features[:, views.columns(factor)] for factor in candidate.factors], dim=1)


def _names_help(support: Support) -> bool:
    """Whether the names alone find the class of more support texts than chance would."""
    if support.names is None:
        return False
    queries, names = (F.normalize(features_of(each), dim=1) for each in (support, support.names))
    right = int(((queries @ names.T).argmax(1) == support.labels).sum())
    return right * support.n_way > len(support)
