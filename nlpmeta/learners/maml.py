"""Model-agnostic meta-learning over LoRA adapters, and the members of its family that differ by an option."""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.encoder.batches import length_batches
from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.encoder.owners import encode_for_owners
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, Option, Support, TaskState, Texts, balanced_weights, learners
from nlpmeta.learners.prototypical import PrototypicalNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nlpmeta.encoder.text_encoder import TextEncoder, Tokens

Rates = Literal["step", "layer"]
_ADAPTER, _WEIGHT, _BIAS = "adapter/", "head/weight", "head/bias"
_CHUNK_TOKENS = 4096


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
    """

    inputs = "tokens"
    gradient_in_adapt = True
    independent_classes = False
    usual_steps: ClassVar[int] = 3
    usual_head_only: ClassVar[bool] = False
    usual_rates: ClassVar[Rates] = "step"
    trains_own_weights: ClassVar[bool] = True
    """Whether rates, temperature and name weight have a gradient in the loss, or the adapters alone."""

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
            first_order: leave out how the inner gradients depend on the start; second order keeps all steps in memory.
            head_only: adapt the head and leave the adapters as they were meta-trained.
            rates: a rate for every step, or for every step and layer.
            temperature: of the head that adaptation starts from.
            names: read the names of the classes.
            name_weight: how many texts a name counts as at the start.

        Raises:
            NLPMetaError: if a rate is not positive or ``inner_steps`` is negative.
        """
        inner_steps = self.usual_steps if inner_steps is None else inner_steps
        super().__init__(encoder, metric="cosine", temperature=temperature, names=names, name_weight=name_weight)
        if inner_steps < 0 or adapter_rate <= 0 or head_rate <= 0:
            raise NLPMetaError(
                f"inner_steps must be at least 0 and rates positive; got {inner_steps}, {adapter_rate}, {head_rate}."
            )
        self.inner_steps, self.first_order = inner_steps, first_order
        self.head_only = self.usual_head_only if head_only is None else head_only
        self.rates: Rates = self.usual_rates if rates is None else rates
        self._group = _groups(() if self.head_only else adapter_weights(encoder), self.rates)
        shape = max(inner_steps, 1), max(self._group.values(), default=0) + 1
        self.log_adapter_rates = nn.Parameter(torch.full(shape, adapter_rate).log()) if self._group else None
        self.log_head_rates = nn.Parameter(torch.full(shape[:1], head_rate).log())
        if not self.trains_own_weights:
            for name, own in self.named_parameters():
                own.requires_grad_(name.startswith("encoder.") and own.requires_grad)

    @classmethod
    def on(cls, trained: Learner) -> "MAML":
        if not isinstance(trained, PrototypicalNetwork):
            return cls(trained.encoder)
        weight, temperature = trained.name_weight, float(trained.log_temperature.detach().exp())
        return cls(trained.encoder, temperature=temperature, names=weight is not None, name_weight=weight or 1.0)

    def adapt(self, support: Support) -> TaskState:
        # Copies in the graph: the head's start depends on the stored weights, which inner gradients must not follow.
        adapter = {} if self.head_only else adapter_weights(self.encoder)
        fast = {name: weight.clone() for name, weight in adapter.items()}
        prototypes = super().adapt(support)["prototypes"]
        weight = F.normalize(prototypes, dim=1) / self.log_temperature.exp()
        state = {**{_ADAPTER + name: value for name, value in fast.items()}, _WEIGHT: weight}
        state[_BIAS] = weight.new_zeros(support.n_way)
        tokens = self.encoder.tokenize(support.texts)
        for step in range(self.inner_steps):
            gradients = self._gradients(state, tokens, support)
            state = {name: value - self._rate(name, step) * gradients[name] for name, value in state.items()}
        return state

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        return self._scores(state, self.encoder.tokenize(queries.texts))

    def queries(self, state: TaskState, texts: Sequence[str]) -> Texts:
        return Texts(tuple(texts))

    def config(self) -> dict[str, Option]:
        return {
            "inner_steps": self.inner_steps,
            "first_order": self.first_order,
            "head_only": self.head_only,
            "rates": self.rates,
            "names": self.reads_names,
        }

    def logits_of_owners(
        self, states: Sequence[TaskState], owners: Sequence[int], texts: Sequence[str]
    ) -> list[Tensor]:
        names = [name for name in states[0] if name.startswith(_ADAPTER)]
        each = {name.removeprefix(_ADAPTER): torch.stack([state[name] for state in states]) for name in names}
        features = F.normalize(encode_for_owners(self.encoder, texts, each, owners), dim=1)
        heads = (states[owner] for owner in owners)
        return [F.linear(row, state[_WEIGHT], state[_BIAS]) for row, state in zip(features, heads, strict=True)]

    def _scores(self, state: Mapping[str, Tensor], tokens: "Tokens") -> Tensor:
        fast = {name.removeprefix(_ADAPTER): value for name, value in state.items() if name.startswith(_ADAPTER)}
        features = self.encoder.embed_tokens(tokens, adapter=fast or None)
        return F.linear(F.normalize(features, dim=1), state[_WEIGHT], state[_BIAS])

    def _gradients(self, state: Mapping[str, Tensor], tokens: "Tokens", support: Support) -> dict[str, Tensor]:
        """The gradient of the inner loss in every tensor of ``state``; without a graph in first order."""
        weights = balanced_weights(support.labels, support.n_way) / len(support)
        if not self.first_order and torch.is_grad_enabled():
            return self._second_order_gradients(state, tokens, support, weights)
        total = {name: torch.zeros_like(value) for name, value in state.items()}
        leaves = {name: value.detach().requires_grad_() for name, value in state.items()}
        for group in length_batches([len(ids) for ids in tokens], batch_tokens=_CHUNK_TOKENS):
            rows = torch.tensor(group, device=support.labels.device)
            with torch.enable_grad():
                scores = self._scores(leaves, [tokens[row] for row in group])
                losses = F.cross_entropy(scores, support.labels[rows], reduction="none")
                found = torch.autograd.grad((weights[rows] * losses).sum(), list(leaves.values()))
            for name, gradient in zip(leaves, found, strict=True):
                total[name] += gradient
        return total

    def _second_order_gradients(
        self, state: Mapping[str, Tensor], tokens: "Tokens", support: Support, weights: Tensor
    ) -> dict[str, Tensor]:
        inputs = {k: value if value.requires_grad else value.detach().requires_grad_() for k, value in state.items()}
        with _differentiable_twice(self.encoder):
            losses = F.cross_entropy(self._scores(inputs, tokens), support.labels, reduction="none")
            found = torch.autograd.grad((weights * losses).sum(), list(inputs.values()), create_graph=True)
        return dict(zip(inputs, found, strict=True))

    def _rate(self, name: str, step: int) -> Tensor:
        """The rate of a tensor at a step; steps beyond those that were trained go on with the last one's."""
        step = min(step, len(self.log_head_rates) - 1)
        if self.log_adapter_rates is None or not name.startswith(_ADAPTER):
            return self.log_head_rates[step].exp()
        return self.log_adapter_rates[step, self._group[name.removeprefix(_ADAPTER)]].exp()


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
        start = {_ADAPTER + name: value for name, value in adapter_weights(self.encoder).items()}
        return sum(((start[name] - adapted[name]).square().sum() for name in start), torch.zeros(())) / 2


def _groups(names: "Mapping[str, Tensor] | tuple[()]", rates: Rates) -> dict[str, int]:
    """The number of the rate of each adapter weight: one for all, or one for each layer."""
    if rates == "step":
        return dict.fromkeys(names, 0)
    layers = {name: next((int(part) for part in name.split(".") if part.isdigit()), 0) for name in names}
    place = {layer: i for i, layer in enumerate(sorted(set(layers.values())))}
    return {name: place[layer] for name, layer in layers.items()}


@contextmanager
def _differentiable_twice(encoder: "TextEncoder") -> "Iterator[None]":
    """An attention that has a second derivative, for a block: the fused one has none."""
    backbone = encoder.backbone
    before = backbone.config._attn_implementation
    backbone.set_attn_implementation("eager")
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)
