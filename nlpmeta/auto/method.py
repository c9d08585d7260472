"""The learner that weighs heads on the adapted and on the frozen encoder by what the support set says of them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpmeta.auto.heads import (
    CLASS_PRIOR,
    MISLEADING,
    NAME_WEIGHT,
    NAMED,
    NAMES_ALONE,
    TUNED,
    Candidate,
    candidates,
    candidates_of_many,
    columns_of,
    compared,
    disbelief,
    features_of,
    has_many,
    scales_of,
    seen,
)
from nlpmeta.auto.judging import (
    CrossValidation,
    beside,
    held_out_likelihood,
    judge,
    judged_on,
    leads,
    mixture_temperature,
    n_folds,
    still_judged,
    weights,
)
from nlpmeta.auto.mixture import Mixture, OneVsRest, mixed, usual_likeness
from nlpmeta.auto.priors import shipped_priors
from nlpmeta.auto.several import MOST_STEPS, TIMES, learn_several, several_beside_tuned
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.encoder.lora import has_adapter
from nlpmeta.encoder.views import ADAPTED, VIEWS, ScaledEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.abilities import is_several
from nlpmeta.learners.base import Embed, Learner, Option, Support, TaskState, Texts, class_means, learners
from nlpmeta.learners.inner_loop import BIAS, MOST_INNER_STEPS
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.tuned import FineTuned, Rehearsal, are_enough, in_order, order_of
from nlpmeta.settings import check_positive

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder


@learners.register("auto")
class AutoHead(Learner):
    """A mixture of heads, weighted by how likely they make held-out folds of the support set.

    The heads see the adapted encoder, the frozen one, or both side by side, with or without the names of the classes;
    among them there is always logistic regression on the frozen encoder, for tasks that meta-training did harm to, and
    on the adapted encoder's lower layers, for tasks that the form of a text decides. The weights are those of stacking
    (``judging.stacked``) around a prior: the weights that were best on auxiliary tasks with as many shots and ways
    (``priors.json``). A class with one text is never held out; where half of them have one text nothing is, and the
    prior decides alone. Names are then read unless they alone make the labels of the support texts clearly less likely
    than chance.

    Where some class has no example its name stands in for one. Nothing can be held out then, and the prototypes that
    read names decide alone; the mixture was worse on the classes without examples.

    The scores of each head are divided by the temperature at which the held-out folds are most likely, and those of the
    mixture by one more; both are held on to what was right on the auxiliary tasks. Classes with more examples than
    others have their lead taken back (``judging.leads``). The state keeps the tensors of a head under ``<name>/``, so
    that it says itself what was chosen, and how likely held-out texts were, for label sets.

    With a ``budget`` of seconds the encoder is fine-tuned too (``FineTuned``), where most classes have five texts, none
    has one, and the seconds are enough. A fifth of the texts, which neither the heads nor that learned from, decides
    what share it gets beside the heads (``judging.beside``).
    """

    differentiable = False
    learns_from_names = True
    class_prior: tuple[float, ...] | None = None  # how often each class occurs, of sum 1; None for equally often

    def __init__(
        self,
        encoder: "TextEncoder",
        *,
        temperature: float = 0.05,
        name_weight: float = 1.0,
        budget: float = 0.0,
    ) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors; with adapters, it is also seen without them.
            temperature: of the prototypical network among the heads.
            name_weight: how many texts the name of a class counts as, for that network.
            budget: the seconds that fine-tuning may take, by its forecast; 0 does without.

        Raises:
            NLPMetaError: if a number is out of its range, or there is a budget and nothing to fine-tune.
        """
        check_positive(budget=budget or None)
        if budget and not has_adapter(encoder):
            raise NLPMetaError("A budget is for fine-tuning adapters, and this encoder has none: leave it out.")
        two = has_adapter(encoder)
        super().__init__(ScaledEncoder(encoder, VIEWS) if two else encoder)
        self.temperature, self.name_weight, self.budget = temperature, name_weight, budget
        self.priors = shipped_priors().profile(two_views=two)
        self.candidates = candidates(encoder, two_views=two, temperature=temperature, name_weight=name_weight)
        self._every = self.candidates | candidates_of_many(encoder, self.candidates)

    @classmethod
    def on(cls, trained: Learner) -> "AutoHead":
        if not isinstance(trained, PrototypicalNetwork):
            return cls(trained.encoder)
        temperature = float(trained.log_temperature.detach().exp())
        return cls(trained.encoder, temperature=temperature, name_weight=trained.name_weight or 1.0)

    def within(self, budget: float) -> "AutoHead":
        """The same method, all weights shared, with so many seconds for fine-tuning.

        Raises:
            NLPMetaError: if they are negative.
        """
        return type(self)(self.encoder, **{**self.config(), "budget": budget}).eval()  # type: ignore[arg-type]

    def expecting(self, class_prior: tuple[float, ...] | None) -> "AutoHead":
        """The same method, all weights shared, for tasks whose classes occur so often."""
        other = self.within(self.budget)
        other.class_prior = class_prior
        return other

    @cached_property
    def tuned(self) -> FineTuned:
        """What fine-tunes, on the encoder that the heads read."""
        plain = self.encoder.plain() if isinstance(self.encoder, ScaledEncoder) else self.encoder
        return FineTuned(plain, inner_steps=MOST_INNER_STEPS, name_weight=NAME_WEIGHT).eval()

    @property
    def reads_names(self) -> bool:
        return not self.encoder.pairs  # a name is no pair that others could be compared with

    @torch.no_grad()
    def adapt(self, support: Support) -> TaskState:
        known = self.known(support)
        return self.adapt_to(known, self.judge(known))

    def adapt_to(self, known: Support, judged: CrossValidation) -> TaskState:
        """``adapt`` to a support whose heads are judged already."""
        shares = self.weights(judged, known)
        every = zip(judged.heads, shares.tolist(), judged.temperatures, strict=True)
        held_out = None if judged.held_out is None else mixed(judged.held_out, shares)
        usual = float(self.priors.temperature.at(len(known) / known.n_way, known.n_way))
        temperature = mixture_temperature(held_out, known.labels, usual)
        state = self._fitted(known, {name: (share, over) for name, share, over in every if share > 0}, temperature)
        state["mixture/held_out"] = held_out_likelihood(held_out, known.labels, temperature)
        state["mixture/judged"] = judged_on(known)
        if not self.budget or held_out is None:
            return state
        steps = self.tuned.steps_within(self.budget, known.texts)
        return self._beside_tuned(state, known, held_out, steps) if steps else state

    def _beside_tuned(self, state: TaskState, known: Support, heads: Tensor, steps: int) -> TaskState:
        """The heads and a fine-tuned part, if that makes texts likelier which neither learned from.

        Args:
            state: of the heads.
            known: the support.
            heads: their log probabilities of held-out texts, which are all, ``(n_support, n_way)``.
            steps: of fine-tuning at most.
        """
        rows = order_of(known)
        tried = self.tuned.stepping(steps).rehearsed(self._as_tuned(known))
        if tried is None or not tried.steps:
            return state
        out = torch.tensor([rows[row] for row in tried.rows], device=known.labels.device)
        found = beside(heads[out] / state["mixture/temperature"], tried.scores, known.labels[out])
        if found is None:
            return state
        share, likely = found
        heads_left = {key: value * (1 - share) for key, value in state.items() if key.endswith("/share")}
        state = state | heads_left | {"mixture/held_out": likely}
        return state | self._tuned_part(state, known, share, tried)

    def _as_tuned(self, known: Support) -> Support:
        """The support as fine-tuning reads it: in its order, with the embeddings that it starts from."""
        return in_order(seen(self.encoder, known, Candidate(self.tuned, (ADAPTED,))))

    def _tuned_part(self, state: TaskState, known: Support, share: float, tried: Rehearsal) -> TaskState:
        """Fine-tuning with all of the support, so that what the mixture does to the scores of its heads is undone."""
        found = self.tuned.learned(self._as_tuned(known), tried)
        over = 1 / state["mixture/temperature"]
        found[BIAS] = found[BIAS] + state["mixture/leads"].to(found[BIAS]) * over
        facts = {"share": share, "scores_over": over, "steps": tried.steps, "over": tried.over}
        tensors = {name: torch.as_tensor(value, device=over.device) for name, value in facts.items()}
        return {f"{TUNED}/{name}": value for name, value in (found | tensors).items()}

    @torch.no_grad()
    def readapt(self, support: Support, before: TaskState) -> TaskState:
        """Fit the heads again; judge them again, which takes most of the time, only if much has changed.

        That is if the examples have become 1.5 times as many or as few since the heads were judged, if something can be
        held out for the first time, or if the names of the classes have come to say something or ceased to. A part that
        was fine-tuned is so again, in as many steps.
        """
        known = self.known(support)
        if not still_judged(before.get("mixture/judged"), judged_on(known)):
            return self.adapt_to(known, self.judge(known))
        mixture = Mixture.of(self, self._known_to(before), before)
        heads = {h.name: (float(h.share), float(h.scores_over)) for h in mixture.heads if h.candidate.scales}
        kept = {key: before[key] for key in ("mixture/held_out", "mixture/judged")}
        state = self._fitted(known, heads, float(mixture.temperature)) | kept
        if not mixture.is_tuned:
            return state
        steps, over, share = (before[f"{TUNED}/{name}"] for name in ("steps", "over", "share"))
        return state | self._tuned_part(state, known, float(share), Rehearsal(int(steps), float(over)))

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        return self.predictor(state).logits(queries)

    def adapt_several(self, data: MultiLabelTexts, embed: Embed, *, features: Tensor | None = None) -> TaskState:
        """What is known of a task whose texts have several labels; see ``several.learn_several``."""
        state = learn_several(self, data, embed, features)
        enough = self.budget > 0 and are_enough(data.counts().values(), several=True)
        steps = self.tuned.stepping(MOST_STEPS).steps_within(self.budget / TIMES, data.texts) if enough else 0
        return several_beside_tuned(self.tuned, self, state, data, embed, steps) if steps else state

    def predictor(self, state: TaskState) -> "Mixture | OneVsRest":
        known = self._known_to(state)
        return OneVsRest.of(self, known, state) if is_several(state) else Mixture.of(self, known, state)

    def problem_of(self, state: TaskState) -> str:
        return self.predictor(state).problem()

    def _known_to(self, state: TaskState) -> Mapping[str, Candidate]:
        """All heads that a state may hold; what fine-tunes needs the weights and is made only where it is there."""
        tuned = any(name.startswith(f"{TUNED}/") for name in state)
        return self._every | ({TUNED: Candidate(self.tuned, ())} if tuned else {})

    def config(self) -> dict[str, Option]:
        budget: dict[str, Option] = {"budget": self.budget} if self.budget else {}
        return {"temperature": self.temperature, "name_weight": self.name_weight, **budget}

    def known(self, support: Support) -> Support:
        """The support with its embeddings, and without names that seem to say nothing about the classes."""
        names = support.names and replace(support.names, features=self.embed(support.names))
        known = replace(support, features=self.embed(support), names=names)
        if n_folds(support) < 2 and disbelief(self.as_first_seen(known), self.names_over(known.n_way)) > MISLEADING:
            return replace(known, names=None)
        return known

    def as_first_seen(self, known: Support) -> Support:
        """The support as the first head sees it, which reads the adapted encoder."""
        return seen(self.encoder, known, next(iter(self.candidates.values())))

    def names_over(self, n_way: float) -> float:
        """What cosines to the names alone of so many classes are divided by."""
        return self.temperature * self.priors.temperatures_of(1, n_way)[NAMES_ALONE]

    def heads_for(self, known: Support) -> dict[str, Candidate]:
        """The heads that differ on this support, by name; one alone was meta-trained on names in place of examples."""
        if known.stand_in is not None:
            return {NAMES_ALONE: self.candidates[NAMES_ALONE]}
        every = self._every if has_many(known) and n_folds(known) > 1 else self.candidates
        return {name: each for name, each in every.items() if known.names is not None or name not in NAMED}

    def judge(self, known: Support) -> CrossValidation:
        """What the support says of the heads; see ``judging.judge``."""
        return judge(self.encoder, self.heads_for(known), known, self.priors)

    def weights(self, judged: CrossValidation, known: Support) -> Tensor:
        """The weight of each head, 0 for those that are left out, shape ``(n_heads,)``."""
        return weights(self.encoder, self._every, known, self.priors, judged)

    def _fitted(self, known: Support, heads: Mapping[str, tuple[float, float]], temperature: float) -> TaskState:
        """The heads that have a share, by name with what their scores are divided by, and what the mixture needs."""
        state: TaskState = {}
        place, encoder = known.labels.device, self.encoder
        for name, (share, over) in heads.items():
            candidate = self._every[name]
            facts = {"share": torch.tensor(share, device=place), "scores_over": torch.tensor(over, device=place)}
            inner = candidate.head.adapt(seen(encoder, known, candidate)) | facts
            state |= {f"{name}/{key}": value for key, value in inner.items()}
        state["mixture/leads"] = leads(known.labels, known.n_way)
        if self.class_prior is not None:
            state[CLASS_PRIOR] = torch.tensor(self.class_prior, device=place)
        state["mixture/temperature"] = torch.tensor(temperature, device=place)
        scales = compared(scales_of([self._every[name] for name in heads]))
        features = columns_of(encoder, features_of(known), scales, computed=scales)
        n_views = len(scales) if isinstance(encoder, ScaledEncoder) else 1
        state["mixture/prototypes"] = means = class_means(features, known.labels, known.n_way)
        if (usual := usual_likeness(features, known.labels, means, n_views=n_views)) is not None:
            state["mixture/usual_likeness"] = usual
        state["mixture/n_shot"] = torch.tensor(len(known) / known.n_way, device=place)
        return state
