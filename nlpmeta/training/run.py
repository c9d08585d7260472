"""One run of the outer loop: take steps, measure on held-out tasks, keep the best weights."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nlpmeta.encoder.frozen_layers import frozen_layer_cache
from nlpmeta.encoder.table import CHUNK, EmbeddingTable, embeddings_folder
from nlpmeta.episodes import Sampler
from nlpmeta.episodes.clusters import Vectors, cluster_samplers
from nlpmeta.learners.base import Learner
from nlpmeta.progress import track
from nlpmeta.training import TrainSettings
from nlpmeta.training.forecast import Journal, MemoryForecast, TimeForecast, forecast_memory, forecast_time
from nlpmeta.training.optimise import DivergedError, MovingAverage, make_optimizer, put, trainable
from nlpmeta.training.passes import HeldOut, Measurement, TokenCache, forecast_states
from nlpmeta.training.resume import Checkpoints, Progress, refuse_old_run
from nlpmeta.training.step import GroupWeights, Stepper

if TYPE_CHECKING:
    from accelerate import Accelerator

_MOST_BYTES = 400_000_000
"""Embeddings of an encoder that does not train that are held in memory."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. ``best_accuracy`` is the held-out mean of the weights that the learner was left with.

    These are the weights of ``best_step``, which is the last one where the settings keep the last.
    """

    steps: int
    best_step: int
    best_accuracy: float | None
    first_accuracy: float | None
    stopped_early: bool
    seconds: float


class Run:
    """One run: what it needs and what it has come to."""

    def __init__(
        self,
        learner: Learner,
        sampler: Sampler,
        settings: TrainSettings,
        out: Path | None,
        evaluate: Mapping[str, Sampler],
        accelerator: "Accelerator",
        on_best: Callable[[int], None] | None,
        show_progress: bool,
    ) -> None:
        self.learner, self.settings, self.accelerator, self.on_best = learner, settings, accelerator, on_best
        self.out = out
        adapter, own = trainable(learner)
        self.weights = {**adapter, **own}
        self.optimizer = make_optimizer(learner, settings)
        self.average = MovingAverage(self.weights, settings.ema)
        tokens = TokenCache(learner.encoder)
        self.encoder_trains = learner.inputs == "tokens" or bool(adapter)
        known = (
            None
            if self.encoder_trains
            else EmbeddingTable(learner.encoder, embeddings_folder(), most_bytes=_MOST_BYTES)
        )
        self.progress = Progress()
        groups = GroupWeights(settings.worst_group, self.progress.groups) if settings.worst_group else None
        self.stepper = Stepper(
            learner, sampler, settings, accelerator, tokens, known, self.optimizer, self.weights, groups
        )
        self.renewal = Renewal(sampler, learner, tokens, show_progress=show_progress)
        self.renewal.renew(self.progress)
        self.heldout = HeldOut(
            evaluate,
            sampler,
            n_episodes=settings.eval_episodes,
            n_control=settings.control_episodes if evaluate else 0,
            seed=settings.seed,
            tokens=tokens,
            known=known,
        )
        self.journal = Journal(out, settings, accelerator, show_progress=show_progress)
        self.checkpoints = Checkpoints(out, settings, is_main=accelerator.is_main_process)

    @contextmanager
    def cached_states(self, say: Callable[[str], None] | None) -> Iterator[None]:
        """The states of frozen lower layers from a cache for a block, if the settings say so."""
        precision, settings = self.settings.lower_states, self.settings
        if precision == "off":
            yield
            return
        n_episodes = settings.steps * settings.episodes_per_step * settings.accumulate
        encoder, sampler = self.learner.encoder, self.stepper.sampler
        with frozen_layer_cache(encoder, precision):
            forecast_states(encoder, sampler, n_episodes, precision, also=self.heldout.texts(self.learner), say=say)
            yield

    def forecasts(self) -> tuple[MemoryForecast, TimeForecast]:
        """What memory and time the run will take."""
        memory = forecast_memory(self.stepper, self.weights)  # the first: it also warms up what is then timed
        each, settings = self.heldout.n_tokens(self.learner), self.settings
        times = 1 + math.ceil(settings.steps / settings.eval_every)  # once before the first step
        return memory, forecast_time(self.stepper, self.weights, held_out_tokens=times * each)

    def go(self, *, resume: bool) -> TrainResult:
        """Train to the end, from the newest checkpoint if ``resume``.

        Raises:
            DivergedError: if a loss, gradient or weight is not finite; the learner then has the last good weights.
        """
        start_time = time.perf_counter()
        self._start(resume)
        progress, stopped = self.progress, False
        with self.journal:
            for step in range(progress.step, self.settings.steps):
                if progress.ran_out_of_patience(self.settings.patience):
                    stopped = True
                    break
                try:
                    self._one(step)
                except DivergedError:
                    self._leave_best()
                    raise
        self._leave_best()
        return TrainResult(
            steps=progress.step,
            best_step=progress.best_step if self.settings.keep == "best" else progress.step,
            best_accuracy=progress.best if self.settings.keep == "best" else progress.last,
            first_accuracy=progress.first,
            stopped_early=stopped,
            seconds=time.perf_counter() - start_time,
        )

    def _start(self, resume: bool) -> None:
        if resume:
            self.checkpoints.restore(self.weights, self.average, self.optimizer, self.progress)
            self.renewal.restore(self.progress)
        elif self.out is not None:
            refuse_old_run(self.out)
        self.journal.cut_after(self.progress.step)
        if self.progress.step == 0:
            self.before = self._measure()
            self.progress.first = self.before.mean
            self._note_best(self.before)

    def _one(self, step: int) -> None:
        began = time.perf_counter()
        if step and step % self.settings.renew_every == 0:
            self.renewal.renew(self.progress)
        values: dict[str, object] = {"step": step + 1, **self.stepper.take(step)}
        self.average.update(step)
        self.progress.add_training_accuracy(float(str(values["accuracy"])))
        self.progress.step = step + 1
        seconds = time.perf_counter() - began
        values |= {
            "seconds": round(seconds, 4),
            "episodes_per_second": round(self.settings.episodes_per_step * self.settings.accumulate / seconds, 3),
        }
        if step == 0:
            values |= _said(self.before, "before_")
        last = step + 1 == self.settings.steps
        if last or (step + 1) % self.settings.eval_every == 0:
            values |= self._evaluate()
        self.journal.write(values)
        if last or (step + 1) % self.settings.checkpoint_every == 0:
            self.checkpoints.write(self.weights, self.average, self.optimizer, self.progress)

    def _evaluate(self) -> dict[str, object]:
        """Held-out accuracy of the averaged weights, the gap to training tasks, and the control."""
        measured = self._measure()
        seen = self.progress.take_training_accuracy()
        values = _said(measured, "")
        if measured.mean is not None:
            values["gap"] = seen - measured.mean
        self._note_best(measured)
        return values

    def _measure(self) -> Measurement:
        with self.average.applied():
            return self.heldout.measure(self.learner)

    def _note_best(self, measured: Measurement) -> None:
        if measured.mean is None or not self.progress.improved(measured.mean, self.average.average):
            return
        if self.on_best is not None and self.accelerator.is_main_process:
            with self.average.applied():
                self.on_best(self.progress.step)

    def _leave_best(self) -> None:
        """Leave the learner with the weights that were best on held-out tasks, or else with the last average."""
        best = self.progress.best_weights if self.settings.keep == "best" else {}
        put(self.weights, best or self.average.average)
        self.learner.eval()


def _said(measured: Measurement, prefix: str) -> dict[str, object]:
    values: dict[str, object] = {f"{prefix}heldout": measured.heldout} if measured.heldout else {}
    for name, value in (("heldout_mean", measured.mean), ("control", measured.control), ("chance", measured.chance)):
        if value is not None:
            values[prefix + name] = value
    return values


class Renewal:
    """The cluster samplers of a run, and the embedding of their texts by the encoder as it is."""

    def __init__(self, sampler: Sampler, learner: Learner, tokens: TokenCache, *, show_progress: bool) -> None:
        self._samplers = list(cluster_samplers(sampler))
        self._learner, self._tokens, self._show = learner, tokens, show_progress

    def renew(self, progress: Progress) -> None:
        """Recluster all texts, and store the clusters for the next checkpoint."""
        for number, sampler in enumerate(self._samplers):
            progress.partitions[str(number)] = torch.from_numpy(sampler.renew(self._embed))

    def restore(self, progress: Progress) -> None:
        """Use the clusters of a checkpoint."""
        for number, sampler in enumerate(self._samplers):
            if str(number) in progress.partitions:
                sampler.put(progress.partitions[str(number)].numpy())

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> Vectors:
        encoder, was_training = self._learner.encoder.merged(), self._learner.training
        self._learner.eval()
        parts = []
        with track("embedding texts to cluster", len(texts), show=self._show) as advance:
            for start in range(0, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                parts.append(encoder.embed_tokens(self._tokens(chunk)).float().cpu().numpy())
                advance(len(chunk))
        self._learner.train(was_training)
        return np.concatenate(parts)
