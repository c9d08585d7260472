"""Meta-training that goes on: tasks arrive one after another, and the adapters follow the meta leader."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.encoder.device import Device
from nlpmeta.encoder.frozen_layers import frozen_layer_cache
from nlpmeta.encoder.lora import adapter_weights, freeze_below, lowest_trained_layer
from nlpmeta.episodes import Known, Range, Sampler, generator
from nlpmeta.episodes.index import Index
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.episodes.wrappers import MixtureSampler
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.learners.base import Learner
from nlpmeta.learners.checkpoint import load_checkpoint
from nlpmeta.learners.start import checkpoint_folder
from nlpmeta.metrics.scores import score_episode
from nlpmeta.online.meta_files import Arrival, Kept, OnlineTaskSettings, State, holds_state, read_state, write_state
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import meta_train
from nlpmeta.training.optimise import put, trainable

_BUFFER, _FORGET = 2, 3  # streams of random numbers of their own


@dataclass(frozen=True)
class Review:
    """How the present state does on the tasks that are still kept.

    ``regret`` is by how much it is better than what each was met with, on average; ``forgetting`` by how much worse
    than right after each was learned.
    """

    accuracies: dict[str, float]
    on_arrival: float
    """The mean over all tasks so far, kept or not."""
    regret: float
    forgetting: float


class OnlineMetaLearner:
    """A meta-trained learner that goes on learning, one task at a time, from a buffer of bounded size.

    A task is measured as it arrives (K support texts of each class, scored on others), then learned from: a few steps
    on episodes of it and of the tasks in the buffer. What can go wrong can be taken back with ``rollback``.

    Source: follow the meta leader, Finn, Rajeswaran, Kakade and Levine, ICML 2019 (arXiv:1902.08438), algorithm 1.
    Where we differ: the buffer is bounded (a random older task gives way), and any learner of the package may lead.

    Args:
        learner: what is trained, in place; its encoder has adapters.
        settings: everything else.

    Raises:
        NLPMetaError: if there is nothing to train, or ``settings.layers`` are more than the encoder has.
    """

    def __init__(self, learner: Learner, settings: OnlineTaskSettings | None = None) -> None:
        self.learner, self.settings = learner.eval(), settings or OnlineTaskSettings()
        for weight in adapter_weights(learner.encoder).values():
            weight.requires_grad_(True)
        adapter, own = trainable(learner)
        self._weights = {**adapter, **own}
        if self.settings.layers is not None:
            freeze_below(learner.encoder, self.settings.layers)
        self.arrivals: list[Arrival] = []
        """Every task so far."""
        self._kept: list[Kept] = []
        self._versions: list[dict[str, Tensor]] = []

    @classmethod
    def start(
        cls, checkpoint: str = "default", settings: OnlineTaskSettings | None = None, *, device: Device = "auto"
    ) -> "OnlineMetaLearner":
        """From a checkpoint: the one of the package by default; ``device`` says where it runs and trains.

        Raises:
            NLPMetaError: if there is no such checkpoint, or it has nothing to train.
        """
        return cls(load_checkpoint(checkpoint_folder(checkpoint), device=device), settings)

    def meet(
        self, task: LabeledTexts, *, name: str, test: LabeledTexts | None = None, show_progress: bool = False
    ) -> Arrival:
        """Measure a task, then learn from it.

        Args:
            task: labelled texts of two classes or more.
            name: what it is called in reports; ``name (2)`` where an earlier task is called so.
            test: texts to measure on; without it at most a fifth of the task is set aside for that.
            show_progress: a bar, if standard error is a terminal.

        Raises:
            DataError: if a class has too few texts to be measured and learned from; nothing has changed then.
        """
        number = len(self.arrivals)
        learn, measure = self._parted(task, test, number)
        earlier = self._state()
        with self._lower_states():
            before = self._accuracy(measure)
            if self.settings.steps:
                try:
                    self._learn(learn, number, show_progress)
                except BaseException:
                    put(self._weights, earlier)
                    raise
            after = self._accuracy(measure) if self.settings.steps else before
        self._versions = [*self._versions, earlier][-self.settings.versions :] if self.settings.versions else []
        arrival = Arrival(self._own_name(name), measure.n_way, before, after)
        self.arrivals.append(arrival)
        self._keep(Kept(arrival, learn, measure), number)
        return arrival

    def _own_name(self, name: str) -> str:
        taken, number, own = {arrival.name for arrival in self.arrivals}, 1, name
        while own in taken:
            number += 1
            own = f"{name} ({number})"
        return own

    def review(self) -> Review:
        """Measure all tasks that are still kept once more.

        Raises:
            NLPMetaError: if no task has arrived.
        """
        if not self._kept:
            raise NLPMetaError("No task has arrived yet.")
        with self._lower_states():
            now = [self._accuracy(each.measure) for each in self._kept]
        met = [each.arrival for each in self._kept]
        return Review(
            {arrival.name: accuracy for arrival, accuracy in zip(met, now, strict=True)},
            on_arrival=sum(each.on_arrival for each in self.arrivals) / len(self.arrivals),
            regret=sum(a - arrival.on_arrival for a, arrival in zip(now, met, strict=True)) / len(now),
            forgetting=sum(arrival.after - a for a, arrival in zip(now, met, strict=True)) / len(now),
        )

    def rollback(self, tasks: int = 1) -> list[str]:
        """Take back what was learned from the last tasks, which are forgotten; returns their names.

        Raises:
            NLPMetaError: if so many states are not kept.
        """
        if not 1 <= tasks <= len(self._versions):
            raise NLPMetaError(f"{len(self._versions)} states are kept to go back to; {tasks} were requested.")
        put(self._weights, self._versions[-tasks])
        self._versions = self._versions[:-tasks]
        gone = [arrival.name for arrival in self.arrivals[-tasks:]]
        dropped = self.arrivals[-tasks:]
        self.arrivals = self.arrivals[:-tasks]
        self._kept = [each for each in self._kept if not any(each.arrival is one for one in dropped)]
        return gone

    def save(self, folder: Path) -> None:
        """Write a folder that ``--checkpoint`` takes and ``load`` goes on from; what was there is replaced.

        The folder holds the texts of the tasks in the buffer.

        Raises:
            NLPMetaError: if the folder holds files that are not of an earlier state.
            WorkFailedError: if it cannot be written; what was there stays.
        """
        write_state(folder, self.learner, State(self.settings, self.arrivals, self._kept, self._versions))

    @classmethod
    def load(
        cls, folder: Path, settings: OnlineTaskSettings | None = None, *, device: Device = "auto"
    ) -> "OnlineMetaLearner":
        """What ``save`` wrote; ``settings`` takes the place of those that were saved.

        Raises:
            NLPMetaError: if there is no such folder, or it is a checkpoint that is not of this kind.
            ModelFolderError: if it is damaged.
        """
        learner = load_checkpoint(folder, device=device)
        if not holds_state(folder):
            raise NLPMetaError(f"{folder} is no state of online meta-training; start one with OnlineMetaLearner.start.")
        state = read_state(folder, cls(learner)._weights)
        self = cls(learner, settings or state.settings)
        self.arrivals, self._kept, self._versions = state.arrivals, state.kept, state.versions
        return self

    @contextmanager
    def _lower_states(self) -> Iterator[None]:
        """Within the block, the states of layers that do not learn come from a cache, if there are such layers."""
        if self.settings.layers is None or not lowest_trained_layer(self.learner.encoder):
            yield
            return
        with frozen_layer_cache(self.learner.encoder, "float16"):
            yield

    def _accuracy(self, measure: Episode) -> float:
        """The share of query texts that are right after adapting to the support; by the cache within such a block."""
        learner = self.learner.eval()
        embed = None if learner.encoder.frozen_layers is None else torch.no_grad()(learner.encoder.forward)
        return score_episode(learner, measure, embed).accuracy

    def _parted(self, task: LabeledTexts, test: LabeledTexts | None, number: int) -> tuple[LabeledTexts, Episode]:
        """The texts to learn from and the episode to measure by; no text is in both query and learning."""
        n_query = self.settings.n_query if test is not None else max(1, min(self.settings.n_query, len(task) // 5))
        sampler = KShotSampler(
            task, n_shot=self.settings.n_shot, seed=self.settings.seed, test=test, rare="keep", max_query=n_query
        )
        measure = sampler.episode(number)
        known = Known(measure.query)
        rows = [row for row, there in enumerate(known.has_rows(task)) if not there]
        if not rows:
            raise DataError("No text of the task is left to learn from.")
        learn = task.select(rows).without_empty_classes()
        _shape(learn, self.settings.n_way)
        return learn, measure

    def _learn(self, newest: LabeledTexts, number: int, show_progress: bool) -> None:
        settings = self.settings
        seed = int(generator(settings.seed, number, stream=_BUFFER).integers(2**31))
        older = [self._episodes(each.learn, seed) for each in self._kept]
        samplers: list[Sampler] = [self._episodes(newest, seed)]
        if older and settings.newest_share < 1:
            samplers.append(MixtureSampler(older, seed=seed))
        weights = [settings.newest_share, 1 - settings.newest_share][: len(samplers)]
        rates = {"learning_rate": settings.learning_rate, "head_learning_rate": 10 * settings.learning_rate}
        how = TrainSettings(steps=settings.steps, seed=seed, warmup=1, final_rate=1.0, ema=0.0, **rates)
        sampler = MixtureSampler(samplers, weights=weights, seed=seed)
        meta_train(self.learner, sampler, settings=how, device=self.learner.encoder.device, show_progress=show_progress)

    def _episodes(self, task: LabeledTexts, seed: int) -> EpisodeSampler:
        n_way, n_shot = _shape(task, self.settings.n_way)
        return EpisodeSampler([task], n_way=n_way, n_shot=n_shot, n_query=1, seed=seed)

    def _keep(self, kept: Kept, number: int) -> None:
        """The newest task, and of the others a random one less where the buffer is full."""
        if len(self._kept) >= self.settings.buffer:
            rng = generator(self.settings.seed, number, stream=_FORGET)
            self._kept.pop(int(rng.integers(len(self._kept))))
        self._kept.append(kept)

    def _state(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self._weights.items()}


def _shape(task: LabeledTexts, most_ways: int) -> tuple[Range, Range]:
    """Ways and shots of the episodes that a task is rich enough for.

    Raises:
        DataError: if there are not two classes of two texts.
    """
    counts = sorted(Index(task).counts().values(), reverse=True)
    rich = int(np.sum(np.asarray(counts) >= 2))
    if rich < 2:
        raise DataError(f"A task to learn from has two classes with two texts or more; this one has {rich}.")
    shots = min(4, counts[min(rich, max(2, rich // 2)) - 1] - 1)
    enough = int(np.sum(np.asarray(counts) >= shots + 1))
    return Range(2, max(2, min(most_ways, enough))), Range(1, shots)
