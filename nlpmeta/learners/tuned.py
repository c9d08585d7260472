"""Fine-tuning for hundreds of examples: from the meta-trained adapters, for as long as held-out examples gain."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.episodes import held_out_rows, most_have
from nlpmeta.learners.base import Learner, Option, Support, TaskState, Texts, learners
from nlpmeta.learners.inner_loop import (
    ADAPTER,
    BIAS,
    WEIGHT,
    LossOf,
    adapted_depth,
    batches,
    check_steps,
    class_loss,
    scores_of_owners,
    task_features,
)
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.progress import track_within
from nlpmeta.settings import check_positive

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

BATCH = 16
"""Texts a step."""
WARM_UP = 10
"""The steps in which the rates rise; then they stay, and the weights of the last pass are averaged."""
MOST_PASSES = 10
"""How often each text is learned at most."""
INVERSE_PENALTY = 3.0
"""Of the logistic regression that the head starts from."""
TEMPERATURES = np.logspace(-1, 1, 41).tolist()
"""What scores may be divided by in the end."""
LEAST_STEPS = 25
"""Fewer are not worth the seconds, unless there are no texts for more."""
PER_SECOND, PER_SECOND_ACCELERATED = 7e10, 5e12
"""Operations that a forecast expects of two cores and of an accelerator, in small batches: estimates."""
HELD_OUT, LEAST_HELD_OUT, LOOKS = 5, 5, 5
"""One text in so many is held out, of fewer one, if most classes have as many; their loss is looked at so often."""


def are_enough(counts: Iterable[int], *, several: bool = False) -> bool:
    """Whether so many examples of each class are enough to hold some of each out before fine-tuning.

    Of a class of which none were held out nobody would see that fine-tuning had lost it.
    """
    known = list(counts)
    return most_have(known, LEAST_HELD_OUT) and min(known) >= (LEAST_HELD_OUT if several else 2)


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """How many steps to take and what scores are divided by; from ``rows`` that were held out and their scores.

    ``scores`` ``(n_rows, n_way)`` are divided already; ``state`` is what so many steps on the other texts taught.
    """

    steps: int
    over: float
    rows: tuple[int, ...] = ()
    scores: Tensor = torch.empty(0, device="cpu")
    state: TaskState | None = None


@learners.register("tuned")
class FineTuned(Learner):
    """Trains the adapters and a linear head on the support, from meta-trained adapters and logistic regression.

    Source: LoRA (Hu et al., ICLR 2022, arXiv:2106.09685) by AdamW; the weights of the last pass are averaged (Izmailov
    et al., UAI 2018, arXiv:1803.05407), in place of a rate that falls, so that more steps go on from fewer; classes
    weigh the same. Where most classes have five texts and none has one, a fifth is held out first: the number of steps
    is the one after which they are most likely, and the temperature the one under which they are. What was judged so is
    kept as it is. Where that is no step, the head is logistic regression; without adapters it alone is trained.
    """

    inputs = "tokens"
    gradient_in_adapt = True
    differentiable = False

    def __init__(
        self,
        encoder: "TextEncoder",
        *,
        inner_steps: int = 100,
        adapter_rate: float = 1e-3,
        head_rate: float = 0.05,
        layers: int | None = None,
        name_weight: float = 2.0,
    ) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors; its adapters are what is trained.
            inner_steps: the most gradient steps, ``BATCH`` texts each.
            adapter_rate: the highest rate of the adapters.
            head_rate: the highest rate of the head.
            layers: of how many layers, from the top, the adapters are trained; by default of all.
            name_weight: how many texts the name of a class counts as at the start; 0 does not read names.

        Raises:
            NLPMetaError: if a number is out of its range, or there are not so many layers.
        """
        super().__init__(encoder)
        check_positive(adapter_rate=adapter_rate, head_rate=head_rate, name_weight=name_weight or None)
        check_steps(inner_steps)
        self.inner_steps, self.adapter_rate, self.head_rate = inner_steps, adapter_rate, head_rate
        self.layers, self.name_weight = adapted_depth(encoder, layers), name_weight

    @property
    def reads_names(self) -> bool:
        return self.name_weight > 0 and not self.encoder.pairs

    def config(self) -> dict[str, Option]:
        names = ("inner_steps", "adapter_rate", "head_rate", "name_weight", "layers")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def stepping(self, inner_steps: int) -> "FineTuned":
        """The same learner, all weights shared, with another limit of steps.

        Raises:
            NLPMetaError: if it is negative.
        """
        return type(self)(self.encoder, **{**self.config(), "inner_steps": inner_steps}).eval()  # type: ignore[arg-type]

    @torch.no_grad()
    def adapt(self, support: Support) -> TaskState:
        support = in_order(support)
        tried = self.rehearsed(support)
        return self.learned(support, tried or Rehearsal(self.steps_for(support.texts), 1.0))

    def steps_for(self, texts: Sequence[str]) -> int:
        """The most steps on so many texts."""
        return min(self.inner_steps, -(-MOST_PASSES * len(texts) // BATCH))

    def steps_within(self, seconds: float, texts: Sequence[str]) -> int:
        """How many steps may be taken in so many seconds; 0 if these are too few to be worth it.

        The seconds are forecast (``seconds_for``), so that the same call gives the same model on every machine.
        """
        most, at_least = self.steps_for(texts), self.seconds_for(texts, 0)
        found = min(most, int((seconds - at_least) / (self.seconds_for(texts, 1) - at_least)))
        return found if found >= self.least_steps(texts) else 0

    def least_steps(self, texts: Sequence[str]) -> int:
        """The fewest steps on so many texts that are worth it: ``LEAST_STEPS``, and all texts read once."""
        return min(self.steps_for(texts), max(LEAST_STEPS, -(-len(texts) // BATCH)))

    def seconds_for(self, texts: Sequence[str], steps: int) -> float:
        """About how long so many steps and looks at what is held out take: on two cores, or on an accelerator."""
        config = self.encoder.backbone.config
        weights = 12 * config.num_hidden_layers * config.hidden_size**2
        tokens = sum(map(len, self.encoder.tokenize(texts))) / len(texts)
        a_text = 2 * weights * tokens / (PER_SECOND if self.encoder.device.type == "cpu" else PER_SECOND_ACCELERATED)
        looked_at = (LOOKS + 1) * len(texts) / HELD_OUT
        return float(a_text * (looked_at + 2 * steps * BATCH))

    @torch.no_grad()
    def rehearsed(self, support: Support) -> "Rehearsal | None":
        """What texts that are held out say of learning the others; ``None`` if there are too few for that."""
        rows, rest = _parted(support)
        if not rows:
            return None
        out, steps = _rows(support, rows), self.steps_for(support.texts)
        states = self.trained(rest.texts, self._start(rest), steps, class_loss(rest), looks=LOOKS)
        scores = [self.logits(state, out) for state in states]
        losses = [min((float(F.cross_entropy(each / t, out.labels)), t) for t in TEMPERATURES) for each in scores]
        best = min(range(len(losses)), key=losses.__getitem__)
        over, n_steps = losses[best][1], round(best * steps / max(len(states) - 1, 1))
        return Rehearsal(n_steps, over, tuple(rows), scores[best] / over, states[best])

    @torch.no_grad()
    def learned(self, support: Support, tried: "Rehearsal") -> TaskState:
        """What a rehearsal taught, with its temperature; without its ``state`` the steps are taken again."""
        rows, rest = _parted(support)
        part, state = rest if rows and tried.steps else support, tried.state
        if state is None or not tried.steps:
            state = self.trained(part.texts, self._start(part), tried.steps, class_loss(part))[-1]
        return state | {name: state[name] / tried.over for name in (WEIGHT, BIAS)}

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        one = torch.zeros(len(queries), dtype=torch.long, device=state[WEIGHT].device)
        stacked = {name: value[None] for name, value in state.items() if name.startswith(ADAPTER)}
        features = task_features(self.encoder, stacked, self.encoder.tokenize(queries.texts), one)
        return F.linear(F.normalize(features, dim=1), state[WEIGHT], state[BIAS])

    def logits_of_owners(
        self, states: Sequence[TaskState], owners: Sequence[int], texts: Sequence[str]
    ) -> list[Tensor]:
        """As the function ``logits_of_owners``."""
        return scores_of_owners(self.encoder, states, owners, texts)

    def _start(self, support: Support) -> TaskState:
        """The stored adapters, and logistic regression on what they make of the support."""
        head = LogisticHead(self.encoder, inverse_penalty=INVERSE_PENALTY, name_weight=self.name_weight)
        features = F.normalize(self.embed(support), dim=1)
        names = support.names if self.reads_names else None
        if names is not None:
            names = replace(names, features=F.normalize(self.embed(names), dim=1))
        found = head.adapt(replace(support, features=features, names=names))
        return self.with_head(found["weight"], found["bias"])

    def with_head(self, weight: Tensor, bias: Tensor) -> TaskState:
        """The stored adapters beside a linear head, weight ``(n_way, dim)`` and bias ``(n_way,)``."""
        weights = adapter_weights(self.encoder, self.layers)
        adapters = {ADAPTER + name: value.detach() for name, value in weights.items()}
        return {**adapters, WEIGHT: weight, BIAS: bias}

    def trained(
        self,
        texts: Sequence[str],
        start: TaskState,
        steps: int,
        loss_of: LossOf,
        *,
        looks: int = 1,
        falls: bool = False,
    ) -> list[TaskState]:
        """The states at the start and at ``looks`` moments of ``steps`` steps: means over the pass or half before each.

        Args:
            texts: what is learned.
            start: adapters and head.
            steps: ``BATCH`` texts each.
            loss_of: from scores ``(n, n_way)`` and the rows of the texts that they are of, the loss ``()``.
            looks: how many states to keep.
            falls: whether the rate falls linearly to zero, and nothing is averaged.
        """
        leaves = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
        adapters = {name.removeprefix(ADAPTER): leaf for name, leaf in leaves.items() if name.startswith(ADAPTER)}
        groups = [
            {"params": list(adapters.values()), "lr": self.adapter_rate},
            {"params": [leaves[WEIGHT], leaves[BIAS]], "lr": self.head_rate},
        ]
        optimiser = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.01)
        over, rate = (1, partial(_rate, steps=steps)) if falls else (len(texts) / BATCH, _rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        tokens, states, mean = self.encoder.tokenize(texts), [start], {n: v.detach().clone() for n, v in start.items()}
        at = {round((i + 1) * steps / looks) for i in range(looks)}
        with track_within("Fine-tuning", steps) as advance:
            for step, rows in zip(range(1, steps + 1), batches(len(texts), BATCH), strict=False):
                with torch.enable_grad():
                    features = self.encoder.embed_tokens([tokens[row] for row in rows], adapter=adapters)
                    scores = F.linear(F.normalize(features, dim=1), leaves[WEIGHT], leaves[BIAS])
                    loss = loss_of(scores, rows)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                advance(1)
                for name, leaf in leaves.items():
                    mean[name].lerp_(leaf.detach(), 1 / max(min(step / 2, over), 1))
                if step in at:
                    states.append({name: value.clone() for name, value in mean.items()})
        return states


def _rate(step: int, steps: int | None = None) -> float:
    """The share of the highest rate at a step, counted from 0; of so many it falls after a tenth, else it stays."""
    warm = WARM_UP if steps is None else max(1, round(0.1 * steps))
    return min((step + 1) / warm, 1.0 if steps is None else max(steps - step, 0) / max(steps - warm, 1))


def order_of(support: Support) -> list[int]:
    """The rows of a support by class and text, so that the order in which the texts came has no part."""
    return sorted(range(len(support)), key=lambda row: (int(support.labels[row]), support.texts[row]))


def in_order(support: Support) -> Support:
    """The same support in the order of ``order_of``."""
    return _rows(support, order_of(support))


def _parted(support: Support) -> tuple[list[int], Support]:
    """The rows of a support in its order that a rehearsal holds out, none if there are too few, and what is left."""
    rows = held_out_rows(support.texts, support.labels.tolist(), one_in=HELD_OUT, least=LEAST_HELD_OUT)
    return rows, _rows(support, sorted(set(range(len(support))) - set(rows)))


def _rows(support: Support, rows: Sequence[int]) -> Support:
    kept = list(rows)
    return replace(
        support,
        texts=tuple(support.texts[row] for row in kept),
        features=None if support.features is None else support.features[kept],
        labels=support.labels[kept],
        weights=None,
        stand_in=None,
    )
