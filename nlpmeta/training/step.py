"""One optimiser step: episodes of this process, their loss and weight, its gradient, the update; and its memory."""

import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from nlpmeta.data import Episode
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.encoder.tokenizing import BATCH_TOKENS, length_batches
from nlpmeta.episodes import Sampler
from nlpmeta.learners.base import Learner
from nlpmeta.training import TrainSettings
from nlpmeta.training.objective import losses
from nlpmeta.training.optimise import DivergedError, Guard, average_gradients, precision, rate_factor
from nlpmeta.training.passes import KnownPass, TextPass, TokenCache

_COUNTS = ("texts", "tokens")  # summed over processes, not averaged


GroupBy = Literal["lang", "domain"]


def group_of(episode: Episode, by: GroupBy) -> str:
    """The language or domain of most query texts; empty where the data do not say."""
    column = episode.query.langs if by == "lang" else episode.query.domains
    return Counter(column).most_common(1)[0][0] if column else ""


class GroupWeights:
    """Groups whose loss is high come to count for more, by a factor of ``exp(rate * loss)`` a step, relative to others.

    Source: group DRO, Sagawa, Koh, Hashimoto and Liang, ICLR 2020 (arXiv:1911.08731), algorithm 1. Where we differ: a
    loss changes the weight of the steps after it, not of its own, and a group that comes up for the first time counts
    as much as the average.
    """

    def __init__(self, rate: float, logs: dict[str, Tensor]) -> None:
        """Start from ``logs``, the logarithm of each group's weight, which is kept up to date in place."""
        self._rate, self._logs = rate, logs

    def factor(self, group: str) -> float:
        """What the gradient of an episode of this group is multiplied by; 1 on average over the groups."""
        if group not in self._logs:
            return 1.0
        highest = max(map(float, self._logs.values()))
        shares = {name: math.exp(float(log) - highest) for name, log in self._logs.items()}
        return len(shares) * shares[group] / sum(shares.values())

    def update(self, losses: Iterable[tuple[str, float]]) -> None:
        """Note the losses of a step, of every process, in their order."""
        for group, loss in losses:
            before = self._logs.get(group)
            if before is None:
                known = [float(log) for log in self._logs.values()]
                highest = max(known, default=0.0)  # kept out of the exponential, which a high one would not fit into
                mean = sum(math.exp(log - highest) for log in known) / len(known) if known else 1.0
                before = torch.tensor(highest + math.log(mean))
            self._logs[group] = before + self._rate * loss
        mean = sum(map(float, self._logs.values())) / len(self._logs) if self._logs else 0.0
        for group in self._logs:  # only differences count; they stay small numbers this way
            self._logs[group] = self._logs[group] - mean


class Stepper:
    """Takes steps; all that changes is in the weights and the optimiser."""

    def __init__(
        self,
        learner: Learner,
        sampler: Sampler,
        settings: TrainSettings,
        accelerator: Accelerator,
        tokens: TokenCache,
        known: EmbeddingTable | None,
        optimizer: torch.optim.Optimizer,
        weights: Mapping[str, nn.Parameter],
        groups: GroupWeights | None = None,
    ) -> None:
        self.learner, self.sampler, self.settings = learner, sampler, settings
        self._accelerator, self._tokens, self._known, self._weights = accelerator, tokens, known, weights
        self._group_weights, self._guard = groups, Guard(settings)
        self._losses: list[tuple[str, float]] = []
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._optimizer = accelerator.prepare_optimizer(optimizer)

    def take(self, step: int) -> dict[str, float | int]:
        """Step number ``step``; returns what is logged of it.

        Raises:
            DivergedError: if its loss, gradient or weights are not finite; the optimiser takes no step by such numbers.
        """
        self._optimizer.zero_grad()
        try:
            totals = self._accumulated(step)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # a solver was given no numbers
            raise DivergedError(step + 1, "an equation of the loss is", self.settings) from error
        average_gradients(self._weights, self._accelerator)
        factor = rate_factor(step, self.settings)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        norm = self._accelerator.clip_grad_norm_(list(self._weights.values()), self.settings.max_grad_norm)
        metrics = self._metrics(totals, float(norm if norm is not None else 0.0), factor)
        scaled = self._accelerator.scaler is not None
        skips = self._guard.check(step, float(metrics["loss"]), float(metrics["grad_norm"]), scaled=scaled)
        self._optimizer.step()
        self._guard.check_weights(step, self._weights)
        return {**metrics, "skipped": 1} if skips else metrics

    def _accumulated(self, step: int) -> dict[str, float]:
        """Add up the gradients of a step's episodes; returns the sums of what is logged."""
        totals: dict[str, float] = {}
        for turn in range(self.settings.accumulate):
            episodes = self._episodes(step, turn)
            for group in self._groups(episodes):
                self._add(group, len(group) / len(episodes), totals)
            if self._group_weights is not None:
                every = gather_object(self._losses)
                self._guard.check_losses(step, every)
                self._group_weights.update(every)
                self._losses = []
        return totals

    def _episodes(self, step: int, turn: int) -> list[Episode]:
        """This process's share of the episodes of one forward and backward pass."""
        size, world = self.settings.episodes_per_step, self._accelerator.num_processes
        first = (step * self.settings.accumulate + turn) * size
        return [self.sampler.episode(first + i) for i in range(self._accelerator.process_index, size, world)]

    def groups_of(self, step: int) -> list[list[Episode]]:
        """The groups of episodes of the first turn of a step; each is one forward and backward pass."""
        return self._groups(self._episodes(step, 0))

    def tokens_of(self, episodes: list[Episode]) -> int:
        """Tokens of the distinct texts of a group, padding aside."""
        return sum(map(len, self._tokens(self._texts(episodes))))

    def tokens_at_once(self, episodes: list[Episode]) -> int:
        """Those of them whose activations are in memory together."""
        tokens = self.tokens_of(episodes)
        return tokens if self.learner.inputs == "tokens" else min(tokens, self.settings.chunk_tokens)

    def padded_at_once(self, episodes: list[Episode]) -> int:
        """The same with the padding of batches, for which memory is taken as for any other token."""
        if self.learner.inputs == "tokens":  # support and query are embedded apart, and a text that is in both twice
            supports = [text for each in episodes for text in self.learner.texts_of(each.support)]
            return self._padded(supports) + self._padded([text for each in episodes for text in each.query.texts])
        return min(self._padded(self._texts(episodes)), self.settings.chunk_tokens)

    def _padded(self, texts: Sequence[str]) -> int:
        lengths = [len(ids) for ids in self._tokens(texts)]
        budget = min(BATCH_TOKENS, self.settings.chunk_tokens)
        groups = length_batches(lengths, batch_tokens=budget, pass_cost=self.learner.encoder.pass_cost)
        return sum(len(rows) * lengths[rows[-1]] for rows in groups)

    def _groups(self, episodes: list[Episode]) -> list[list[Episode]]:
        """Episodes whose loss is computed together; one by one where each has a weight of its own."""
        if self._group_weights is not None:
            return [[episode] for episode in episodes]
        sizes = [len(episode.support) + len(episode.query) for episode in episodes]
        return [[episodes[i] for i in group] for group in self.learner.together(sizes)]

    def _add(self, episodes: list[Episode], share: float, totals: dict[str, float]) -> None:
        """Add the gradient of ``share`` times the mean loss over ``episodes``, and its log lines to ``totals``.

        Where memory runs out, the halves of the group are taken one after the other: the same gradient.
        """
        factor = 1.0
        if self._group_weights is not None:
            factor = self._group_weights.factor(group_of(episodes[0], self.settings.group_by))
        kept = self._gradients_so_far() if len(episodes) > 1 else {}
        try:
            values = self.gradients(episodes, share * factor)
        except RuntimeError as error:
            if len(episodes) == 1 or not should_reduce_batch_size(error):
                raise
        else:
            if self._group_weights is not None:
                self._losses += [(group_of(each, self.settings.group_by), values["episodic"]) for each in episodes]
            for name, value in values.items():
                totals[name] = totals.get(name, 0.0) + value * (1.0 if name in _COUNTS else share)
            return
        for name, weight in self._weights.items():
            weight.grad = kept.get(name)
        half = len(episodes) // 2
        for part in (episodes[:half], episodes[half:]):
            self._add(part, share * len(part) / len(episodes), totals)

    def _gradients_so_far(self) -> dict[str, torch.Tensor]:
        return {name: weight.grad.clone() for name, weight in self._weights.items() if weight.grad is not None}

    def gradients(self, episodes: list[Episode], share: float) -> dict[str, float]:
        """Add the gradient of ``share`` times the mean loss over ``episodes``, divided by the number of turns."""
        texts = self._encode(episodes) if self.learner.inputs == "embeddings" else None
        with precision(self._accelerator):
            parts = losses(self.learner, episodes, texts, self.settings, self._accelerator)
        self._accelerator.backward(parts.to_minimise * (share / self.settings.accumulate))
        if texts is None:
            return parts.values
        texts.backward()
        return {**parts.values, "texts": float(texts.n_texts), "tokens": float(texts.n_tokens)}

    def _texts(self, episodes: list[Episode]) -> list[str]:
        return list(dict.fromkeys(text for e in episodes for text in self.learner.texts_of(e.support) + e.query.texts))

    def _encode(self, episodes: list[Episode]) -> TextPass | KnownPass:
        texts = self._texts(episodes)
        if self._known is not None:
            return KnownPass(self._known, texts)
        return TextPass(
            self.learner.encoder,
            self._tokens,
            texts,
            accelerator=self._accelerator,
            keep_tokens=self.settings.chunk_tokens,
        )

    def _metrics(self, totals: dict[str, float], norm: float, factor: float) -> dict[str, float | int]:
        names = sorted(totals)
        device = self._accelerator.device
        sums = torch.tensor([totals[name] for name in names], device=device, dtype=torch.float64)
        if self._accelerator.num_processes > 1:
            sums = self._accelerator.reduce(sums, reduction="sum")
        mean = 1 / (self.settings.accumulate * self._accelerator.num_processes)
        values = dict(zip(names, sums.tolist(), strict=True))
        counts: dict[str, float | int] = {name: int(values.pop(name)) for name in _COUNTS if name in values}
        means = {name: value * mean for name, value in values.items()}
        return {**means, "rate": self._rates[0] * factor, "grad_norm": norm, **counts}


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The bytes of tensors that come into being in a block, at the moment when there are most."""

    def __init__(self, known: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._held = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return
        self._held.add(key)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._held.discard(key)
        self._now -= size
