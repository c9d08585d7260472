"""Model-agnostic meta-learning over LoRA adapters, and the members of its family that differ by an option."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.errors import UnknownNameError
from nlpmeta.learners.base import BatchLoss, Learner, Option, Support, TaskState, Texts, learners
from nlpmeta.learners.inner_loop import (
    ADAPTER,
    BIAS,
    CHUNK_TOKENS,
    WEIGHT,
    Rates,
    TaskTexts,
    adapted_depth,
    best_of,
    check_steps,
    even_weights,
    exact_step,
    first_order_step,
    losses_of,
    rate_groups,
    scores_of_owners,
    step_from,
    task_features,
    task_losses,
    task_scores,
)
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.settings import check_positive

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

TaskBatching = Literal["auto", "loop", "vectorised"]
_SMALL = 50  # texts a task up to which several go through at once: 1.3 times as fast, in twice the memory


@learners.register("maml")
class MAML(PrototypicalNetwork):
    """Takes gradient steps on the support set, from an initial adapter and head that are meta-learned for it.

    Source: Finn, Abbeel and Levine, ICML 2017 (arXiv:1703.03400), algorithm 1; first order as in their section 5.2: the
    inner gradients carry no graph, so that ``new = old - rate * gradient`` has the identity as its derivative. The head
    starts from the prototypes (Triantafillou et al., ICLR 2020, arXiv:1903.03096, section 3: Proto-MAML), here those of
    the cosine with a learned temperature, so that any number of ways works and no inner step at all is exactly the
    prototypical network. Inner rates are learned for every step (Antoniou et al., ICLR 2019, arXiv:1810.09502,
    section 4: LSLR), and with ``rates="layer"`` for every layer as well. What is adapted are the LoRA adapters of the
    encoder and the head; without adapters in the encoder the head alone. Classes weigh the same in the inner loss.
    Where we differ: in use the steps end where the loss on the support is lowest, as rates that were learned on other
    tasks may be too large for this one; training takes all steps.
    """

    inputs = "tokens"
    gradient_in_adapt = True
    weighs = False
    independent_classes = False
    learns_from_names = False
    usual_steps: ClassVar[int] = 3
    usual_head_only: ClassVar[bool] = False
    usual_rates: ClassVar[Rates] = "step"
    trains_own_weights: ClassVar[bool] = True  # rates, temperature and name weight, and not the adapters alone

    def __init__(
        self,
        encoder: "TextEncoder",
        *,
        inner_steps: int | None = None,
        adapter_rate: float = 0.03,
        head_rate: float = 5.0,
        first_order: bool = True,
        head_only: bool | None = None,
        rates: Rates | None = None,
        layers: int | None = None,
        early_weight: float = 0.0,
        task_batching: TaskBatching = "auto",
        temperature: float = 0.05,
        names: bool = False,
        name_weight: float = 1.0,
    ) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors; its adapters are what is adapted.
            inner_steps: gradient steps on a support set; like ``head_only`` and ``rates``, what is usual for the class.
            adapter_rate: inner rate of the adapters at the start; learned.
            head_rate: inner rate of the head at the start; learned.
            first_order: leave out how the inner gradients depend on the start.
            head_only: adapt the head and leave the adapters as they were meta-trained.
            rates: a rate for every step, or for every step and layer.
            layers: of how many layers, from the top, the adapters are adapted; by default of all that are not frozen.
            early_weight: share of the query loss that is taken before the last inner step, evenly over the steps
                (Antoniou et al., section 4: multi-step loss). Where we differ: the share stays as it is.
            task_batching: tasks of a training step one by one, side by side, or side by side where they are small.
            temperature: of the head that adaptation starts from.
            names: read the names of the classes.
            name_weight: how many texts a name counts as at the start.

        Raises:
            NLPMetaError: if a number is out of its range, or there are not so many layers.
            UnknownNameError: if ``task_batching`` is none of the three.
        """
        inner_steps = self.usual_steps if inner_steps is None else inner_steps
        super().__init__(encoder, metric="cosine", temperature=temperature, names=names, name_weight=name_weight)
        check_positive(adapter_rate=adapter_rate, head_rate=head_rate)
        check_steps(inner_steps, early_weight)
        if task_batching not in get_args(TaskBatching):
            raise UnknownNameError("task_batching", task_batching, get_args(TaskBatching))
        self.inner_steps, self.first_order, self.early_weight = inner_steps, first_order, early_weight
        self.task_batching: TaskBatching = task_batching
        self.head_only = self.usual_head_only if head_only is None else head_only
        self.rates: Rates = self.usual_rates if rates is None else rates
        self.layers = adapted_depth(encoder, layers)
        self._group = rate_groups(self._adapted(), self.rates)
        shape = max(inner_steps, 1), max(self._group.values(), default=0) + 1
        adapter_rates, head_rates = (
            torch.full(size, rate, device=encoder.device).log()
            for size, rate in ((shape, adapter_rate), (shape[:1], head_rate))
        )
        self.log_adapter_rates = nn.Parameter(adapter_rates) if self._group else None
        self.log_head_rates = nn.Parameter(head_rates)
        for name, own in () if self.trains_own_weights else self.named_parameters():
            own.requires_grad_(name.startswith("encoder.") and own.requires_grad)

    @classmethod
    def on(cls, trained: Learner) -> "MAML":
        if not isinstance(trained, PrototypicalNetwork):
            return cls(trained.encoder)
        weight, temperature = trained.name_weight, float(trained.log_temperature.detach().exp())
        return cls(trained.encoder, temperature=temperature, names=weight is not None, name_weight=weight or 1.0)

    def stepping(self, inner_steps: int) -> "MAML":
        """The same learner, all weights shared, with another number of inner steps.

        Raises:
            NLPMetaError: if it is negative.
        """
        check_steps(inner_steps)
        twin = copy.copy(self)
        twin.inner_steps = inner_steps
        return twin

    def adapt(self, support: Support) -> TaskState:
        seen: list[Tensor] = []
        states = self._steps([support], None if self.training else seen)
        return {name: value[0] for name, value in best_of(states, seen).items()}

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        one = torch.zeros(len(queries), dtype=torch.long, device=state[WEIGHT].device)
        texts = TaskTexts(self.encoder.tokenize(queries.texts), one, one, one, one[:1] + len(state[WEIGHT]))
        return task_scores(self.encoder, {name: value[None] for name, value in state.items()}, texts)

    def config(self) -> dict[str, Option]:
        return {
            "inner_steps": self.inner_steps,
            "first_order": self.first_order,
            "head_only": self.head_only,
            "rates": self.rates,
            "early_weight": self.early_weight,
            "names": self.reads_names,
            **({} if self.layers is None else {"layers": self.layers}),
        }

    def together(self, n_texts: Sequence[int]) -> list[list[int]]:
        small = sum(n_texts) <= _SMALL * len(n_texts)
        if self.task_batching == "vectorised" or (self.task_batching == "auto" and small):
            return [list(range(len(n_texts)))]
        return super().together(n_texts)

    def logits_of_owners(
        self, states: Sequence[TaskState], owners: Sequence[int], texts: Sequence[str]
    ) -> list[Tensor]:
        return scores_of_owners(self.encoder, states, owners, texts)

    def batch_loss(self, tasks: Sequence[tuple[Support, Support]]) -> BatchLoss:
        if type(self).episode_loss is not Learner.episode_loss:  # Reptile, whose loss is not that of the query
            return super().batch_loss(tasks)
        return BatchLoss.of(self.losses_and_logits(tasks), [query for _, query in tasks])

    def losses_and_logits(self, tasks: Sequence[tuple[Support, Support]]) -> list[tuple[Tensor, Tensor]]:
        """The query loss ``()`` of each task and the scores ``(n_query, n_way)``, all tasks side by side."""
        steps = self._steps([support for support, _ in tasks])
        queries = [query for _, query in tasks]
        texts = replace(TaskTexts.of(self.encoder, queries), weights=even_weights(queries))
        scores = task_scores(self.encoder, steps[-1], texts)
        losses = task_losses(scores, texts)
        if self.early_weight and self.inner_steps:
            early = [task_losses(task_scores(self.encoder, states, texts), texts) for states in steps[:-1]]
            losses = losses.lerp(torch.stack(early).mean(0), self.early_weight)
        return [(losses[i], scores[texts.task_of == i, : query.n_way]) for i, query in enumerate(queries)]

    def _steps(self, supports: Sequence[Support], seen: list[Tensor] | None = None) -> list[TaskState]:
        """The states of all tasks, stacked, at the start and after each step; losses of first order to ``seen``."""
        texts, trains = TaskTexts.of(self.encoder, supports), torch.is_grad_enabled()
        take = exact_step if (exact := trains and not self.first_order) else partial(first_order_step, seen=seen)
        # In training the graph of the first pass is kept anyway; elsewhere it may be as large as that of a chunk.
        small = trains or self.head_only or sum(map(len, texts.tokens)) <= CHUNK_TOKENS
        once = small and self.inner_steps > 0 and not exact
        with torch.set_grad_enabled(trains or (once and not self.head_only)):
            start, features = self._start(supports, once=once)
        states = [start if trains else {name: value.detach() for name, value in start.items()}]
        for step in range(self.inner_steps):
            rates = torch.stack([self._rate(name, step) for name in start])
            if once and (step == 0 or self.head_only):  # without adapters the embeddings stay what they are
                states.append(step_from(features, states[-1] if step else start, texts, rates, keep=trains, seen=seen))
            else:
                states.append(take(self.encoder, states[-1], texts, rates))
        if seen:
            seen.append(losses_of(self.encoder, states[-1], texts, features if once and self.head_only else None))
        return states

    def _start(self, supports: Sequence[Support], *, once: bool) -> tuple[TaskState, Tensor]:
        """The stored adapters, once for each task, and the heads that its prototypes make; the supports' embeddings.

        With ``once`` these have a graph from each task's own copy of the adapters, for the gradient of its first step.
        """
        pairs = [(each, each.names.texts if each.names is not None and self.reads_names else ()) for each in supports]
        sizes = [len(part) for pair in pairs for part in pair]
        # Copies in the graph: the head's start depends on the stored weights, which inner gradients must not follow.
        state = {ADAPTER + name: torch.stack([value] * len(supports)) for name, value in self._adapted().items()}
        for value in state.values() if once else ():
            value.requires_grad_()  # of those that are frozen, too
        tokens = self.encoder.tokenize([text for support, names in pairs for text in support.texts + names])
        owner = torch.cat([torch.full((size,), i // 2, device=self.encoder.device) for i, size in enumerate(sizes)])
        embedded = task_features(self.encoder, state if once else {}, tokens, owner)
        parts = torch.split(embedded, sizes)
        widest, heads = max(support.n_way for support in supports), []
        for (support, names), features, spoken in zip(pairs, parts[::2], parts[1::2], strict=True):
            known = replace(support, features=features, names=Texts(names, spoken) if names else None)
            prototypes = super().adapt(known)["prototypes"]
            heads.append(F.pad(F.normalize(prototypes, dim=1), (0, 0, 0, widest - support.n_way)))
        weight = torch.stack(heads) / self.log_temperature.exp()
        return {**state, WEIGHT: weight, BIAS: weight.new_zeros(weight.shape[:2])}, torch.cat(parts[::2])

    def _adapted(self) -> dict[str, nn.Parameter]:
        """The stored weights that the inner loop starts from, without the head."""
        return {} if self.head_only else adapter_weights(self.encoder, self.layers)

    def _rate(self, name: str, step: int) -> Tensor:
        """The rate of a tensor at a step; steps beyond those that were trained go on with the last one's."""
        step = min(step, len(self.log_head_rates) - 1)
        if self.log_adapter_rates is None or not name.startswith(ADAPTER):
            return self.log_head_rates[step].exp()
        return self.log_adapter_rates[step, self._group[name.removeprefix(ADAPTER)]].exp()


@learners.register("anil")
class ANIL(MAML):
    """MAML whose inner loop adapts the head alone.

    Source: Raghu, Raghu, Bengio and Vinyals, ICLR 2020 (arXiv:1909.09157), section 4. The adapters are meta-trained
    through it, as the prototypes, and so the start of the head, come from them.
    """

    usual_steps, usual_head_only = 10, True


@learners.register("metasgd")
class MetaSGD(MAML):
    """MAML with a learned rate for every layer and step.

    Source: Li, Zhou, Chen and Li, 2017 (arXiv:1707.09835), equation 1. Where we differ: a rate for each layer and step,
    not for each weight, of which a few hundred tasks teach too little.
    """

    usual_rates = "layer"


@learners.register("reptile")
class Reptile(MAML):
    """Moves the initial adapters towards what the inner loop makes of them.

    Source: Nichol, Achiam and Schulman, 2018 (arXiv:1803.02999), algorithm 1. The loss is half the squared distance to
    the adapted weights, held fixed; its gradient is ``start - adapted``, so that a plain gradient step with rate
    ``epsilon`` is the paper's update. Support and query are learned from alike. Temperature and rates are not trained.
    """

    usual_steps, trains_own_weights = 5, False

    def episode_loss(self, support: Support, query: Support) -> Tensor:
        """Half the squared distance between the adapters and what both sides of the episode make of them, ``()``."""
        both = Support(
            support.texts + query.texts, None, torch.cat([support.labels, query.labels]), support.n_way, support.names
        )
        with torch.no_grad():
            adapted = self.adapt(both)
        gaps = ((value - adapted[ADAPTER + name]).square().sum() for name, value in self._adapted().items())
        return sum(gaps, torch.zeros((), device=self.encoder.device)) / 2
