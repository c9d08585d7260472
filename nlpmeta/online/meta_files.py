"""What online meta-training knows of its tasks, and the folder that it is kept in."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import Field
from torch import Tensor, nn

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.data.inputs import is_unicode
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.learners.base import Learner
from nlpmeta.learners.checkpoint import write_learner
from nlpmeta.settings import HIGHEST_RATE, HIGHEST_SEED, MOST_STEPS, Settings
from nlpmeta.storage.files import Json, read_json, write_bytes, write_json
from nlpmeta.storage.folders import new_folder
from nlpmeta.storage.manifest import write_manifest
from nlpmeta.storage.tensors import read_tensors

STATE_FILE, TASKS_FILE, VERSIONS_FILE = "online.json", "online-tasks.json", "online-versions.safetensors"


class OnlineTaskSettings(Settings):
    """How much is learned from each task that arrives, and what is kept of it."""

    steps: int = Field(10, ge=0, le=MOST_STEPS, description="optimiser steps after each task")
    learning_rate: float = Field(1e-4, gt=0, le=HIGHEST_RATE, description="rate of the adapters' weights")
    newest_share: float = Field(0.5, gt=0, le=1, description="share of the episodes that are of the newest task")
    layers: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="only the adapters of so many layers from the top learn on; what those below compute is cached",
    )
    buffer: int = Field(
        20, ge=1, le=10_000, description="tasks that are kept to learn from again; beyond it one is drawn and dropped"
    )
    n_shot: int = Field(5, ge=1, le=10_000, description="support texts of each class when a task is measured")
    n_query: int = Field(100, ge=1, le=10_000, description="texts that a task is measured on")
    n_way: int = Field(20, ge=2, le=10_000, description="most classes of an episode that is learned from")
    versions: int = Field(5, ge=0, le=10_000, description="earlier states that can be gone back to")
    seed: int = Field(0, ge=0, le=HIGHEST_SEED, description="decides everything that is drawn")


@dataclass(frozen=True)
class Arrival:
    """What became of one task; accuracies are those of the K-shot task that it makes."""

    name: str
    n_way: int
    on_arrival: float
    """Before anything was learned from it."""
    after: float
    """Right after."""


@dataclass(frozen=True, eq=False)
class Kept:
    """A task in the buffer: the texts to learn from again, and the episode that it is measured by."""

    arrival: Arrival
    learn: LabeledTexts
    measure: Episode


@dataclass(frozen=True, eq=False)
class State:
    """All that is kept beside the learner; ``versions`` are earlier weights, the oldest first."""

    settings: OnlineTaskSettings
    arrivals: list[Arrival]
    kept: list[Kept]
    versions: list[dict[str, Tensor]]


def holds_state(folder: Path) -> bool:
    """Whether something was written there by ``write_state``."""
    return (folder / STATE_FILE).is_file()


def write_state(folder: Path, learner: Learner, state: State) -> None:
    """Write a checkpoint folder with the state beside it; an older one is replaced, anything else is refused.

    Raises:
        NLPMetaError: if the folder holds files that are not of an earlier state.
        WorkFailedError: if it cannot be written; what was there stays.
    """
    from safetensors.torch import save

    with new_folder(folder, overwrite=True) as temporary:
        described = write_learner(temporary, learner)
        facts: dict[str, Json] = {
            "settings": state.settings.model_dump(mode="json"),
            "arrivals": [asdict(arrival) for arrival in state.arrivals],
            "kept": [_place(state.arrivals, each.arrival) for each in state.kept],
        }
        write_json(temporary / STATE_FILE, facts)
        write_json(temporary / TASKS_FILE, [_task_json(each) for each in state.kept])
        versions = {f"{i}/{name}": value for i, one in enumerate(state.versions) for name, value in one.items()}
        write_bytes(temporary / VERSIONS_FILE, save({name: value.contiguous() for name, value in versions.items()}))
        training: dict[str, Json] = {**(learner.encoder.trained or {}), "online_tasks": len(state.arrivals)}
        write_manifest(temporary, {"kind": "checkpoint", **described, "training": training})


def read_state(folder: Path, weights: Mapping[str, nn.Parameter]) -> State:
    """What ``write_state`` wrote, for a learner with these weights.

    Raises:
        ModelFolderError: if a file is damaged or does not fit the weights.
    """
    try:
        facts = cast("dict[str, Any]", read_json(folder / STATE_FILE))
        tasks = cast("list[dict[str, Any]]", read_json(folder / TASKS_FILE))
        settings = OnlineTaskSettings.parse(facts["settings"], where=str(folder / STATE_FILE), saved=True)
        arrivals = [_arrival(each) for each in facts["arrivals"]]
        kept = [_task(arrivals[i], each) for i, each in zip(facts["kept"], tasks, strict=True)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, NLPMetaError):
            raise
        raise ModelFolderError(f"{folder / STATE_FILE} is damaged ({error}). Start again.") from error
    return State(settings, arrivals, kept, _versions(read_tensors(folder / VERSIONS_FILE), weights, folder))


def _place(arrivals: Sequence[Arrival], wanted: Arrival) -> int:
    return next(i for i, arrival in enumerate(arrivals) if arrival is wanted)


def _task_json(kept: Kept) -> Json:
    parts = {"learn": kept.learn, "support": kept.measure.support, "query": kept.measure.query}
    return {
        name: {"texts": part.texts, "labels": part.labels, "names": part.label_names} for name, part in parts.items()
    }


def _arrival(facts: Mapping[str, Any]) -> Arrival:
    name, n_way, *scores = (facts[each] for each in ("name", "n_way", "on_arrival", "after"))
    if not isinstance(name, str) or type(n_way) is not int or n_way < 1:
        raise TypeError("a task without a name or classes")
    if not all(type(score) in (int, float) and 0 <= score <= 1 for score in scores):
        raise ValueError("an accuracy that is none")
    return Arrival(name, n_way, float(scores[0]), float(scores[1]))


def _task(arrival: Arrival, found: dict[str, dict[str, Sequence[object]]]) -> Kept:
    def part(name: str) -> LabeledTexts:
        values = found[name]
        words = [*values["texts"], *values["names"]]
        if not all(isinstance(word, str) and is_unicode(word) for word in words):
            raise TypeError("a text or a name that is none")
        if not all(type(label) is int for label in values["labels"]):
            raise TypeError("a label that is no number of a class")
        labels = tuple(cast("Sequence[int]", values["labels"]))
        return LabeledTexts(tuple(map(str, values["texts"])), labels, tuple(map(str, values["names"])))

    return Kept(arrival, part("learn"), Episode(part("support"), part("query")))


def _versions(
    tensors: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter], folder: Path
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
