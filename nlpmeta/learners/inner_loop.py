"""The inner loop on several tasks at once: an adapter and a head for each, and one set of frozen weights for all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.encoder.lora import lowest_trained_layer
from nlpmeta.encoder.tokenizing import length_batches
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Support, TaskState, balanced_weights

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder, Tokens

Rates = Literal["step", "layer"]
LossOf: TypeAlias = Callable[[Tensor, list[int]], Tensor]
"""From scores ``(n, n_way)`` and the rows of the texts that they are of, the loss ``()``."""
MOST_INNER_STEPS = 10_000
ADAPTER, WEIGHT, BIAS = "adapter/", "head/weight", "head/bias"
CHUNK_TOKENS, CHUNK_TOKENS_TWICE = 4096, 1024
"""Tokens whose activations are in memory at a time: for a gradient, and for one that is differentiated once more."""
_NEVER = -1e9


@dataclass(frozen=True, eq=False)
class TaskTexts:
    """Texts of several tasks in one row: ``task_of`` ``(n,)`` says whose each is, ``labels`` ``(n,)`` its class there.

    ``weights`` ``(n,)`` sum to 1 over each task, with every class of a task weighing the same; ``n_way`` has the number
    of classes of each task. Ways and shots may differ from task to task.
    """

    tokens: "Tokens"
    labels: Tensor
    task_of: Tensor
    weights: Tensor
    n_way: Tensor

    @classmethod
    def of(cls, encoder: "TextEncoder", parts: Sequence[Support]) -> "TaskTexts":
        """The texts of ``parts``, one task each, as tokens."""
        device = parts[0].labels.device
        sizes = torch.tensor([len(part) for part in parts], device=device)
        return cls(
            encoder.tokenize([text for part in parts for text in part.texts]),
            torch.cat([part.labels for part in parts]),
            torch.arange(len(parts), device=device).repeat_interleave(sizes),
            torch.cat([balanced_weights(part.labels, part.n_way) / len(part) for part in parts]).to(device),
            torch.tensor([part.n_way for part in parts], device=device),
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def chunks(self, chunk_tokens: int) -> Iterator["TaskTexts"]:
        """The same texts in groups of similar length with at most so many tokens, padding included."""
        lengths = [len(ids) for ids in self.tokens]
        for group in length_batches(lengths, batch_tokens=chunk_tokens, pass_cost=chunk_tokens):
            rows = torch.tensor(group, device=self.labels.device)
            tokens = [self.tokens[row] for row in group]
            yield TaskTexts(tokens, self.labels[rows], self.task_of[rows], self.weights[rows], self.n_way)


def task_scores(encoder: "TextEncoder", states: Mapping[str, Tensor], texts: TaskTexts) -> Tensor:
    """Class scores ``(n, widest)``: those of classes that a task does not have are so low that their share is 0.

    Args:
        encoder: texts to vectors.
        states: adapters and heads of the tasks, stacked, ``(n_tasks, ...)``.
        texts: of the same tasks.
    """
    return head_scores(task_features(encoder, states, texts.tokens, texts.task_of), states, texts)


def task_features(encoder: "TextEncoder", states: Mapping[str, Tensor], tokens: "Tokens", task_of: Tensor) -> Tensor:
    """Embeddings ``(n, dim)``, each by the adapter of its task."""
    adapter = {name.removeprefix(ADAPTER): value for name, value in states.items() if name.startswith(ADAPTER)}
    if not adapter:
        return encoder.embed_tokens(tokens)
    if len(next(iter(adapter.values()))) == 1:  # one adapter for all texts is cheaper than one for each
        return encoder.embed_tokens(tokens, adapter={name: value[0] for name, value in adapter.items()})
    return encoder.embed_tokens(tokens, adapter=adapter, adapter_of=task_of)


def scores_of_owners(
    encoder: "TextEncoder", states: Sequence[TaskState], owners: Sequence[int], texts: Sequence[str]
) -> list[Tensor]:
    """``abilities.logits_of_owners`` for states that hold an adapter and a head: one pass for all texts."""
    names = [name for name in states[0] if name.startswith(ADAPTER)]
    each = {name: torch.stack([state[name] for state in states]) for name in names}
    owner = torch.tensor(owners, device=encoder.device)
    features = F.normalize(task_features(encoder, each, encoder.tokenize(texts), owner), dim=1)
    heads = (states[owner] for owner in owners)
    return [F.linear(row, state[WEIGHT], state[BIAS]) for row, state in zip(features, heads, strict=True)]


def head_scores(features: Tensor, states: Mapping[str, Tensor], texts: TaskTexts) -> Tensor:
    """``task_scores`` from the embeddings ``(n, dim)`` of the texts."""
    weight, bias = states[WEIGHT], states[BIAS]
    if len(weight) == 1:
        return F.linear(F.normalize(features, dim=1), weight[0], bias[0])
    scores = torch.einsum("nd,nwd->nw", F.normalize(features, dim=1), weight[texts.task_of]) + bias[texts.task_of]
    beyond = torch.arange(weight.size(1), device=weight.device) >= texts.n_way[texts.task_of].unsqueeze(1)
    return scores.masked_fill(beyond, _NEVER)


def class_loss(support: Support) -> LossOf:
    """Cross-entropy on the labels of a support; its classes weigh the same."""
    weights = balanced_weights(support.labels, support.n_way).to(support.labels.device)

    def loss(scores: Tensor, rows: list[int]) -> Tensor:
        losses = F.cross_entropy(scores, support.labels[rows], reduction="none")
        return (losses * weights[rows]).sum() / weights[rows].sum()

    return loss


def task_losses(scores: Tensor, texts: TaskTexts) -> Tensor:
    """The mean cross-entropy of each task, ``(n_tasks,)``; classes of a task weigh the same."""
    losses = texts.weights * F.cross_entropy(scores, texts.labels, reduction="none")
    return losses.new_zeros(len(texts.n_way)).index_add(0, texts.task_of, losses)


def first_order_step(
    encoder: "TextEncoder", states: TaskState, texts: TaskTexts, rates: Tensor, *, seen: list[Tensor] | None = None
) -> TaskState:
    """``states - rates * gradient`` with a gradient that carries no graph; ``rates`` has one for each tensor.

    Source: Finn, Abbeel and Levine, ICML 2017 (arXiv:1703.03400), section 5.2. Nothing of the passes through the
    encoder is kept. The losses ``(n_tasks,)`` before the step go to ``seen``.
    """
    before = torch.zeros(len(texts.n_way), device=rates.device)
    found = [torch.zeros_like(value) for value in states.values()]
    leaves = {name: value.detach().requires_grad_() for name, value in states.items()}
    for chunk in texts.chunks(CHUNK_TOKENS):
        with torch.enable_grad():
            losses = task_losses(task_scores(encoder, leaves, chunk), chunk)
            for total, part in zip(found, torch.autograd.grad(losses.sum(), list(leaves.values())), strict=True):
                total += part
        before += losses.detach()
    if seen is not None:
        seen.append(before)
    return _moved(states, found, rates)


def step_from(
    features: Tensor,
    states: TaskState,
    texts: TaskTexts,
    rates: Tensor,
    *,
    keep: bool,
    seen: list[Tensor] | None = None,
) -> TaskState:
    """``first_order_step`` from embeddings ``(n, dim)`` of its texts that have a graph from the adapters in ``states``.

    Args:
        features: of the texts.
        states: adapters and heads.
        texts: as in ``first_order_step``.
        rates: as there.
        keep: whether the graph is gone back through once more.
        seen: as there.
    """
    leaves = {name: v if name.startswith(ADAPTER) else v.detach().requires_grad_() for name, v in states.items()}
    with torch.enable_grad():
        losses = task_losses(head_scores(features, leaves, texts), texts)
        found = torch.autograd.grad(losses.sum(), list(leaves.values()), retain_graph=keep)
    if seen is not None:
        seen.append(losses.detach())
    return _moved(states, found, rates)


@torch.no_grad()
def losses_of(encoder: "TextEncoder", states: TaskState, texts: TaskTexts, features: Tensor | None = None) -> Tensor:
    """The loss of each task, ``(n_tasks,)``; from the embeddings of its texts, where they are known."""
    scores = task_scores(encoder, states, texts) if features is None else head_scores(features, states, texts)
    return task_losses(scores, texts)


def best_of(states: Sequence[TaskState], losses: Sequence[Tensor]) -> TaskState:
    """The state with the lowest loss of one task, the first of equals; the last where losses are missing."""
    if len(losses) < len(states):
        return states[-1]
    return states[min(range(len(losses)), key=lambda step: float(losses[step]))]


def check_steps(inner_steps: int, early_weight: float = 0.0) -> None:
    """See that there can be so many inner steps, and that the weight is a share.

    Raises:
        NLPMetaError: if not.
    """
    if not 0 <= inner_steps <= MOST_INNER_STEPS:
        raise NLPMetaError(f"inner_steps must be from 0 to {MOST_INNER_STEPS}; got {inner_steps}.")
    if not 0 <= early_weight < 1:
        raise NLPMetaError(f"early_weight is a share from 0 to below 1; got {early_weight}.")


def exact_step(encoder: "TextEncoder", states: TaskState, texts: TaskTexts, rates: Tensor) -> TaskState:
    """``first_order_step`` whose derivative is exact, with no more than ``states`` kept for it.

    Going back, the step is taken again and its gradient differentiated in the direction that is asked for, a
    Hessian-vector product (Pearlmutter, 1994), chunk by chunk: memory grows with neither steps nor texts.
    """
    stepped = _ExactStep.apply(encoder, texts, tuple(states), rates, *states.values())  # type: ignore[no-untyped-call]
    return dict(zip(states, stepped, strict=True))


class _ExactStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: "torch.autograd.function.FunctionCtx",
        encoder: "TextEncoder",
        texts: TaskTexts,
        names: tuple[str, ...],
        rates: Tensor,
        *values: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.encoder, ctx.texts, ctx.names = encoder, texts, names  # type: ignore[attr-defined]
        ctx.save_for_backward(rates, *values)
        return tuple(first_order_step(encoder, dict(zip(names, values, strict=True)), texts, rates).values())

    @staticmethod
    def backward(ctx: "torch.autograd.function.FunctionCtx", *above: Tensor) -> tuple[Tensor | None, ...]:
        rates, *values = ctx.saved_tensors  # type: ignore[attr-defined]
        encoder, texts, names = ctx.encoder, ctx.texts, ctx.names  # type: ignore[attr-defined]
        below = [one.clone() for one in above]
        slope = torch.zeros_like(rates)
        leaves = {name: value.detach().requires_grad_() for name, value in zip(names, values, strict=True)}
        inputs = list(leaves.values())
        twice = encoder.differentiable_twice()
        for chunk in texts.chunks(CHUNK_TOKENS_TWICE):
            with torch.enable_grad():
                loss = task_losses(task_scores(twice, leaves, chunk), chunk).sum()
                gradients = torch.autograd.grad(loss, inputs, create_graph=True)
                along = torch.stack([(one * up).sum() for one, up in zip(gradients, above, strict=True)])
                products = torch.autograd.grad((rates.detach() * along).sum(), inputs)
            slope -= along.detach()
            for total, product in zip(below, products, strict=True):
                total -= product
        return None, None, None, slope, *below


def _moved(states: TaskState, gradients: Sequence[Tensor], rates: Tensor) -> TaskState:
    return {
        name: value - rate * gradient
        for (name, value), gradient, rate in zip(states.items(), gradients, rates, strict=True)
    }


def adapted_depth(encoder: "TextEncoder", asked: int | None) -> int | None:
    """How many layers, from the top, are adapted; ``None`` for all.

    Raises:
        NLPMetaError: if there are not so many.
    """
    depth, lowest = int(encoder.backbone.config.num_hidden_layers), lowest_trained_layer(encoder)
    if asked is None:
        return depth - lowest if 0 < lowest < depth else None
    if not 1 <= asked <= depth:
        raise NLPMetaError(f"layers must be from 1 to {depth}, the layers of this encoder; got {asked}.")
    return None if asked == depth else asked


def rate_groups(names: "Mapping[str, Tensor] | tuple[()]", rates: Rates) -> dict[str, int]:
    """The number of the rate of each adapter weight: one for all, or one for each layer."""
    if rates == "step":
        return dict.fromkeys(names, 0)
    layers = {name: next((int(part) for part in name.split(".") if part.isdigit()), 0) for name in names}
    place = {layer: i for i, layer in enumerate(sorted(set(layers.values())))}
    return {name: place[layer] for name, layer in layers.items()}


def batches(n_texts: int, size: int) -> Iterator[list[int]]:
    """Rows of so many texts, all of them once before any comes again, without end."""
    rng, order = np.random.default_rng(0), list[int]()
    while True:
        while len(order) < min(size, n_texts):
            order += rng.permutation(n_texts).tolist()
        yield order[:size]
        order = order[size:]


def even_weights(queries: Sequence[Support]) -> Tensor:
    """The weights of a plain mean over the texts of each task, in one row."""
    return torch.cat([query.labels.new_full((len(query),), 1 / len(query), dtype=torch.float) for query in queries])
