"""Checkpoints from which a killed run goes on exactly where it was."""

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from nlpmeta.errors import DataWarning, ModelFolderError, NLPMetaError
from nlpmeta.storage import remove_leftovers
from nlpmeta.storage.files import read_json, remove_folder, sha256, write_bytes, write_json
from nlpmeta.storage.folders import new_folder
from nlpmeta.storage.tensors import read_tensors
from nlpmeta.training import TrainSettings
from nlpmeta.training.forecast import METRICS_FILE
from nlpmeta.training.optimise import MovingAverage, put

FOLDER, _TENSORS, _FACTS = "checkpoints", "state.safetensors", "state.json"
_FORMAT = 1
_MAY_CHANGE = {"steps", "patience", "checkpoint_every", "keep_checkpoints", "trackers"}


@dataclass
class Progress:
    """Counters of a run; they travel in its checkpoints."""

    step: int = 0
    first: float | None = None
    last: float | None = None
    best: float | None = None
    best_step: int = 0
    waiting: int = 0
    training_sum: float = 0.0
    training_count: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, Tensor] = field(default_factory=dict)
    """The logarithm of the weight of each group of tasks."""
    partitions: dict[str, Tensor] = field(default_factory=dict)
    """The clusters that tasks are drawn from, by the number of their sampler."""

    def improved(self, accuracy: float, weights: Mapping[str, Tensor]) -> bool:
        """Whether ``accuracy`` is the best so far; if so ``weights`` are remembered."""
        self.last = accuracy
        if self.best is not None and accuracy <= self.best:
            self.waiting += 1
            return False
        self.best, self.best_step, self.waiting = accuracy, self.step, 0
        self.best_weights = {name: weight.clone() for name, weight in weights.items()}
        return True

    def ran_out_of_patience(self, patience: int | None) -> bool:
        """Whether held-out accuracy has not risen for ``patience`` measurements."""
        return patience is not None and self.waiting >= patience

    def add_training_accuracy(self, accuracy: float) -> None:
        """Count one step's accuracy towards the mean since the last measurement."""
        self.training_sum += accuracy
        self.training_count += 1

    def take_training_accuracy(self) -> float:
        """That mean; counting starts anew."""
        mean = self.training_sum / max(1, self.training_count)
        self.training_sum, self.training_count = 0.0, 0
        return mean

    def take(self, numbers: Mapping[str, object]) -> None:
        """Go on from what ``numbers`` returned.

        Raises:
            ValueError: if a number is of another kind, or not finite.
        """
        for name, now in self.numbers().items():
            value = numbers.get(name, now)  # an older release may not have counted it
            is_count = isinstance(now, int) and not isinstance(now, float)
            if is_count and not (type(value) is int and 0 <= value < 1 << 53):
                raise ValueError(f"{name} is not a count")
            if not is_count and not (isinstance(value, int | float) and math.isfinite(value)) and value is not None:
                raise ValueError(f"{name} is not a finite number")
            setattr(self, name, value)

    def numbers(self) -> dict[str, float | int | None]:
        """All but the tensors, for JSON."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, dict)}


class Checkpoints:
    """The checkpoints of a run, in ``out/checkpoints/step-…``: safetensors and JSON, whole or not there.

    A checkpoint holds weights, their average, the best ones, the optimiser's moments, the state of torch's random
    numbers and the counters. Episodes need no state: they are functions of the step.
    """

    def __init__(self, out: Path | None, settings: TrainSettings, *, is_main: bool) -> None:
        self._folder = out / FOLDER if out is not None else None
        self._settings, self._is_main = settings, is_main

    def write(
        self,
        weights: Mapping[str, nn.Parameter],
        average: MovingAverage,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
    ) -> None:
        """Write one checkpoint and remove the oldest beyond those that are kept."""
        from safetensors.torch import save

        if self._folder is None or not self._is_main:
            return
        for leftover in self._folder.glob(".step-*.*"):
            remove_leftovers(self._folder / leftover.name[1:].partition(".")[0])
        tensors = _collect(weights, average, optimizer, progress)
        place = self._folder / f"step-{progress.step:08d}"
        with new_folder(place, overwrite=True, also=(_TENSORS, _FACTS)) as folder:
            write_bytes(folder / _TENSORS, save(tensors))
            facts: dict[str, object] = {
                "format": _FORMAT,
                "sha256": sha256(folder / _TENSORS),
                "settings": self._settings.model_dump(mode="json"),
                "progress": progress.numbers(),
            }
            facts["checksum"] = _checksum(facts)
            write_json(folder / _FACTS, facts)
        for old in self._found()[: -self._settings.keep_checkpoints]:
            remove_folder(old)

    def restore(
        self,
        weights: Mapping[str, nn.Parameter],
        average: MovingAverage,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
    ) -> None:
        """Put everything back as it was at the newest whole checkpoint; without one, change nothing.

        Raises:
            NLPMetaError: if the run was started with other settings.
            ModelFolderError: if there are checkpoints but none is whole.
        """
        found = self._found()
        for folder in reversed(found):
            problem, facts = _read_facts(folder)
            if problem:
                message = f"The checkpoint {folder} is damaged ({problem}); the one before it is used."
                warnings.warn(message, DataWarning, stacklevel=2)
                continue
            self._check_settings(facts["settings"])
            _distribute(read_tensors(folder / _TENSORS), weights, average, optimizer, progress)
            progress.take(facts["progress"])
            return
        if found:
            raise ModelFolderError(f"None of the checkpoints in {self._folder} is whole. Choose another out=.")

    def _found(self) -> list[Path]:
        return sorted(self._folder.glob("step-*")) if self._folder is not None and self._folder.is_dir() else []

    def _check_settings(self, stored: object) -> None:
        now = self._settings.model_dump(mode="json")
        before = {**TrainSettings().model_dump(mode="json"), **(stored if isinstance(stored, dict) else {})}
        changed = [name for name in now if name not in _MAY_CHANGE and now[name] != before.get(name)]
        if changed:
            diff = ", ".join(f"{name} was {before.get(name)!r}, now {now[name]!r}" for name in changed)
            raise NLPMetaError(f"The run to resume had other settings: {diff}. Use the same, or choose another out=.")


def refuse_old_run(out: Path) -> None:
    """Raise if there is a run already, or a file of somebody's own, that would be written over.

    Raises:
        NLPMetaError: names the ways out.
    """
    if any((out / FOLDER).glob("step-*")):
        raise NLPMetaError(f"{out} holds a run. Continue it with --resume, or choose another out=.")
    if (out / METRICS_FILE).exists():
        raise NLPMetaError(
            f"{out / METRICS_FILE} already exists and was kept. Continue its run with --resume, or choose another out=."
        )


def _collect(
    weights: Mapping[str, nn.Parameter], average: MovingAverage, optimizer: torch.optim.Optimizer, progress: Progress
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random_cuda"] = torch.cuda.get_rng_state()
    for name, weight in weights.items():
        tensors[f"weight/{name}"] = weight.detach().clone()
        tensors[f"average/{name}"] = average.average[name].clone()
        for part, value in optimizer.state[weight].items():
            tensors[f"{part}/{name}"] = torch.as_tensor(value).clone()
    tensors |= {f"best/{name}": weight.clone() for name, weight in progress.best_weights.items()}
    tensors |= {f"groups/{name}": log for name, log in progress.groups.items()}
    tensors |= {f"partitions/{name}": found for name, found in progress.partitions.items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _distribute(
    tensors: Mapping[str, Tensor],
    weights: Mapping[str, nn.Parameter],
    average: MovingAverage,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    def under(part: str) -> dict[str, Tensor]:
        return {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}

    if set(under("weight/")) != set(weights):
        raise NLPMetaError("The run to resume trained other weights: its learner or adapter was set up differently.")
    _check_shapes(weights, tensors)
    put(weights, under("weight/"))
    for name, value in under("average/").items():
        average.average[name].copy_(value)
    for name, weight in weights.items():
        parts = {part: tensors.get(f"{part}/{name}") for part in ("step", "exp_avg", "exp_avg_sq")}
        state = {part: value.clone() for part, value in parts.items() if value is not None}
        optimizer.state[weight] = {part: v if part == "step" else v.to(weight.device) for part, v in state.items()}
    progress.best_weights = {name: value.to(weights[name].device) for name, value in under("best/").items()}
    progress.partitions = under("partitions/")
    progress.groups.update(under("groups/"))
    torch.set_rng_state(tensors["random"])
    if "random_cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random_cuda"])


def _check_shapes(weights: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """See that every weight has its average and that what belongs to a weight has its shape.

    Raises:
        ModelFolderError: if not; copying would fill a larger tensor with a smaller one.
    """
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        if part in ("weight", "average", "best", "exp_avg", "exp_avg_sq"):
            if name not in weights or value.shape != weights[name].shape:
                raise ModelFolderError(f"The run to resume has {key[:80]!r} in a shape that does not fit its learner.")
    missing = [name for name in weights if f"average/{name}" not in tensors]
    if missing or tensors.get("random", torch.empty(0)).dtype != torch.uint8:
        raise ModelFolderError("The run to resume is damaged: its checkpoint lacks averages or the random state.")


def _read_facts(folder: Path) -> tuple[str, dict[str, Any]]:
    """What is wrong with a checkpoint (empty if nothing), and its facts."""
    try:
        facts = cast("dict[str, Any]", read_json(folder / _FACTS))
        checksum = facts.pop("checksum")
        if checksum != _checksum(facts):
            return f"{_FACTS} was changed", {}
        if sha256(folder / _TENSORS) != facts["sha256"]:
            return f"{_TENSORS} has another checksum", {}
        Progress().take(facts["progress"])
        if not isinstance(facts["settings"], dict):
            return f"{_FACTS} has no settings", {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}", {}
    return "", facts


def _checksum(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
