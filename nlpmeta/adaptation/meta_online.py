"""Meta-training that goes on: tasks arrive one after another, and the adapters follow the meta leader."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from nlpmeta.checkpoint import Json, load_checkpoint, read_manifest, write_learner
from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError
from nlpmeta.evaluation import score_episode
from nlpmeta.files import new_folder, read_json, write_bytes, write_json
from nlpmeta.learners.base import Learner
from nlpmeta.manifest import write_manifest
from nlpmeta.sampling import EpisodeSampler, KShotSampler, MixtureSampler, Range, Sampler, generator
from nlpmeta.sampling.index import Index
from nlpmeta.sampling.leaks import Known
from nlpmeta.settings import Settings
from nlpmeta.starting import checkpoint_folder
from nlpmeta.tensors import read_tensors
from nlpmeta.training import TrainSettings, meta_train
from nlpmeta.training.optimise import put, trainable

STATE_FILE, TASKS_FILE, VERSIONS_FILE = "online.json", "online-tasks.json", "online-versions.safetensors"
_BUFFER, _FORGET = 2, 3  # streams of random numbers of their own


class OnlineTaskSettings(Settings):
    """How much is learned from each task that arrives, and what is kept of it."""

    steps: int = Field(10, ge=0, description="optimiser steps after each task")
    learning_rate: float = Field(1e-4, gt=0, description="rate of the adapters' weights")
    newest_share: float = Field(0.5, gt=0, le=1, description="share of the episodes that are of the newest task")
    buffer: int = Field(
        20, ge=1, description="tasks that are kept to learn from again; beyond it one is drawn and dropped"
    )
    n_shot: int = Field(5, ge=1, description="support texts of each class when a task is measured")
    n_query: int = Field(100, ge=1, description="texts that a task is measured on")
    n_way: int = Field(20, ge=2, description="most classes of an episode that is learned from")
    versions: int = Field(5, ge=0, description="earlier states that can be gone back to")
    seed: int = Field(0, ge=0, description="decides everything that is drawn")


@dataclass(frozen=True)
class Arrival:
    """What became of one task; accuracies are those of the K-shot task that it makes."""

    name: str
    n_way: int
    on_arrival: float
    """Before anything was learned from it."""
    after: float
    """Right after."""


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


@dataclass(frozen=True, eq=False)
class _Kept:
    arrival: Arrival
    learn: LabeledTexts
    measure: Episode


class OnlineMetaLearner:
    """A meta-trained learner that goes on learning, one task at a time, from a buffer of bounded size.

    A task is measured as it arrives (K support texts of each class, scored on others), then learned from: a few steps
    on episodes of it and of the tasks in the buffer. What can go wrong can be taken back with ``rollback``.

    Source: follow the meta leader, Finn, Rajeswaran, Kakade and Levine, ICML 2019 (arXiv:1902.08438), algorithm 1.
    Where we differ: the buffer is bounded (a random older task gives way), and any learner of the package may lead.

    Args:
        learner: what is trained, in place; its encoder has adapters.
        settings: everything else.
    """

    def __init__(self, learner: Learner, settings: OnlineTaskSettings | None = None) -> None:
        self.learner, self.settings = learner.eval(), settings or OnlineTaskSettings()
        for weight in adapter_weights(learner.encoder).values():
            weight.requires_grad_(True)
        adapter, own = trainable(learner)
        self._weights = {**adapter, **own}
        self.arrivals: list[Arrival] = []
        """Every task so far."""
        self._kept: list[_Kept] = []
        self._versions: list[dict[str, Tensor]] = []

    @classmethod
    def start(cls, checkpoint: str = "default", settings: OnlineTaskSettings | None = None) -> "OnlineMetaLearner":
        """From a checkpoint: the one of the package by default.

        Raises:
            NLPMetaError: if there is no such checkpoint, or it has nothing to train.
        """
        return cls(load_checkpoint(checkpoint_folder(checkpoint)), settings)

    def meet(self, task: LabeledTexts, *, name: str, test: LabeledTexts | None = None) -> Arrival:
        """Measure a task, then learn from it.

        Args:
            task: labelled texts of two classes or more.
            name: what it is called in reports.
            test: texts to measure on; without it at most a fifth of the task is set aside for that.

        Raises:
            DataError: if a class has too few texts to be measured and learned from; nothing has changed then.
        """
        number = len(self.arrivals)
        learn, measure = self._parted(task, test, number)
        before = score_episode(self.learner.eval(), measure).accuracy
        earlier = self._state()
        if self.settings.steps:
            try:
                self._learn(learn, number)
            except BaseException:
                put(self._weights, earlier)
                raise
        self._versions = [*self._versions, earlier][-self.settings.versions :] if self.settings.versions else []
        after = score_episode(self.learner.eval(), measure).accuracy if self.settings.steps else before
        arrival = Arrival(name, measure.n_way, before, after)
        self.arrivals.append(arrival)
        self._keep(_Kept(arrival, learn, measure), number)
        return arrival

    def review(self) -> Review:
        """Measure all tasks that are still kept once more.

        Raises:
            NLPMetaError: if no task has arrived.
        """
        if not self._kept:
            raise NLPMetaError("No task has arrived yet.")
        now = [score_episode(self.learner.eval(), each.measure).accuracy for each in self._kept]
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
            raise NLPMetaError(f"{len(self._versions)} states are kept to go back to; {tasks} were asked for.")
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
            WorkFailedError: if it cannot be written; what was there stays.
        """
        from safetensors.torch import save

        with new_folder(folder, overwrite=True) as temporary:
            described = write_learner(temporary, self.learner)
            state: dict[str, Json] = {
                "settings": self.settings.model_dump(mode="json"),
                "arrivals": [asdict(arrival) for arrival in self.arrivals],
                "kept": [self.arrivals.index(each.arrival) for each in self._kept],
            }
            write_json(temporary / STATE_FILE, state)
            write_json(temporary / TASKS_FILE, [_task_json(each) for each in self._kept])
            versions = {f"{i}/{name}": value for i, one in enumerate(self._versions) for name, value in one.items()}
            write_bytes(temporary / VERSIONS_FILE, save({name: value.contiguous() for name, value in versions.items()}))
            facts: dict[str, Json] = {**(self.learner.encoder.trained or {}), "online_tasks": len(self.arrivals)}
            write_manifest(temporary, {"kind": "checkpoint", **described, "training": facts})

    @classmethod
    def load(cls, folder: Path, settings: OnlineTaskSettings | None = None) -> "OnlineMetaLearner":
        """What ``save`` wrote; ``settings`` takes the place of those that were saved.

        Raises:
            NLPMetaError: if there is no such folder, or it is a checkpoint that is not of this kind.
            ModelFolderError: if it is damaged.
        """
        read_manifest(folder)
        if not (folder / STATE_FILE).is_file():
            raise NLPMetaError(f"{folder} is no state of online meta-training; start one with OnlineMetaLearner.start.")
        learner = load_checkpoint(folder)
        try:
            state, tasks = read_json(folder / STATE_FILE), read_json(folder / TASKS_FILE)
            self = cls(learner, settings or OnlineTaskSettings.parse(state["settings"], where=str(folder)))  # type: ignore[index]
            self.arrivals = [Arrival(**each) for each in state["arrivals"]]  # type: ignore[index]
            places = state["kept"]  # type: ignore[index]
            self._kept = [_task(self.arrivals[i], each) for i, each in zip(places, tasks, strict=True)]  # type: ignore[call-overload]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, NLPMetaError):
                raise
            raise ModelFolderError(f"{folder / STATE_FILE} is damaged ({error}). Start anew.") from error
        self._versions = _versions(read_tensors(folder / VERSIONS_FILE), self._weights, folder)
        return self

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

    def _learn(self, newest: LabeledTexts, number: int) -> None:
        settings = self.settings
        seed = int(generator(settings.seed, number, stream=_BUFFER).integers(2**31))
        older = [self._episodes(each.learn, seed) for each in self._kept]
        samplers: list[Sampler] = [self._episodes(newest, seed)]
        if older and settings.newest_share < 1:
            samplers.append(MixtureSampler(older, seed=seed))
        weights = [settings.newest_share, 1 - settings.newest_share][: len(samplers)]
        rates = {"learning_rate": settings.learning_rate, "head_learning_rate": 10 * settings.learning_rate}
        how = TrainSettings(steps=settings.steps, seed=seed, warmup=1, final_rate=1.0, ema=0.0, **rates)
        meta_train(self.learner, MixtureSampler(samplers, weights=weights, seed=seed), settings=how)

    def _episodes(self, task: LabeledTexts, seed: int) -> EpisodeSampler:
        n_way, n_shot = _shape(task, self.settings.n_way)
        return EpisodeSampler([task], n_way=n_way, n_shot=n_shot, n_query=1, seed=seed)

    def _keep(self, kept: _Kept, number: int) -> None:
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


def _task_json(kept: _Kept) -> Json:
    parts = {"learn": kept.learn, "support": kept.measure.support, "query": kept.measure.query}
    return {
        name: {"texts": part.texts, "labels": part.labels, "names": part.label_names} for name, part in parts.items()
    }


def _task(arrival: Arrival, found: dict[str, dict[str, Sequence[object]]]) -> _Kept:
    def part(name: str) -> LabeledTexts:
        values = found[name]
        labels = tuple(int(str(label)) for label in values["labels"])
        return LabeledTexts(tuple(map(str, values["texts"])), labels, tuple(map(str, values["names"])))

    return _Kept(arrival, part("learn"), Episode(part("support"), part("query")))


def _versions(
    tensors: dict[str, Tensor], weights: dict[str, torch.nn.Parameter], folder: Path
) -> list[dict[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        place, _, name = key.partition("/")
        if not place.isdigit() or name not in weights or value.shape != weights[name].shape:
            raise ModelFolderError(f"{folder / VERSIONS_FILE} does not fit the learner ({key[:60]!r}).")
        found.setdefault(int(place), {})[name] = value
    if any(set(one) != set(weights) for one in found.values()):
        raise ModelFolderError(f"{folder / VERSIONS_FILE} does not fit the learner: weights are missing.")
    return [found[place] for place in sorted(found)]
