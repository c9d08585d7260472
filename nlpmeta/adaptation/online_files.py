"""Writes and reads an ``OnlineClassifier``: safetensors and JSON, with checksums."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nlpmeta.adaptation.burst import Burst
from nlpmeta.adaptation.drift import DriftAlarm
from nlpmeta.adaptation.follow import Head
from nlpmeta.adaptation.online import Alarm, Moment, OnlineClassifier, Waiting
from nlpmeta.adaptation.record import Record
from nlpmeta.adaptation.stream import Frozen, OnlineSettings, Stream
from nlpmeta.classifier import FewShotClassifier
from nlpmeta.encoder.guard import Guard
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.files import new_folder, write_bytes, write_json
from nlpmeta.manifest import read_manifest, write_manifest
from nlpmeta.tensors import read_tensors

if TYPE_CHECKING:
    from nlpmeta.learners.base import TaskState

KIND, MODEL, TENSORS, FACTS = "online", "classifier", "stream.safetensors", "stream.json"
_PARTS = ("prototypes", "weights", "rows", "base", "labels")


def write_online(online: OnlineClassifier, folder: Path, *, overwrite: bool) -> None:
    """Write a folder: the classifier in one of its own, the rest beside it."""
    from safetensors.torch import save

    online = copy.copy(online)  # as it is now, whatever other threads teach it meanwhile

    tensors, facts = {"centre": online.centre, "scale": online.scale}, []
    states = [*(moment.stream for moment in online.moments), online.stream]
    for number, stream in enumerate(states):
        tensors |= {f"{number}/{name}": value for name, value in _tensors(stream).items()}
        facts.append(_facts(stream))
    if online.waiting:
        tensors["waiting/rows"] = torch.stack([each.row for each in online.waiting.values()])
        tensors["waiting/base"] = torch.stack([each.base for each in online.waiting.values()])
    with new_folder(folder, overwrite=overwrite) as temporary:
        online.classifier.save_pretrained(temporary / MODEL, include_support=True)
        write_bytes(temporary / TENSORS, save({name: value.clone() for name, value in tensors.items()}))
        write_json(
            temporary / FACTS,
            {
                "settings": online.settings.model_dump(),
                "record": asdict(online.record),
                "alarms": [asdict(alarm) for alarm in online.alarms],
                "moments": [[moment.n_labels, moment.accuracy] for moment in online.moments],
                "streams": facts,
                "waiting": [[ticket, each.predicted] for ticket, each in online.waiting.items()],
            },
        )
        write_manifest(temporary, {"kind": KIND})


def read_online(kind: type[OnlineClassifier], folder: Path) -> OnlineClassifier:
    """What ``write_online`` wrote."""
    if read_manifest(folder).get("kind") != KIND:
        raise ModelFolderError(f"{folder} holds no stream. Begin one with OnlineClassifier and save it.")
    classifier, tensors = FewShotClassifier.from_pretrained(folder / MODEL), read_tensors(folder / TENSORS)
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        streams = [_stream(number, each, tensors) for number, each in enumerate(facts["streams"])]
        self = kind.__new__(kind)
        self._guard = Guard()
        self.classifier, self.settings = classifier, OnlineSettings.parse(facts["settings"], where=str(folder / FACTS))
        self.centre, self.scale, self.stream = tensors["centre"], tensors["scale"], streams[-1]
        self.record, self.alarms = Record(**facts["record"]), [Alarm(**alarm) for alarm in facts["alarms"]]
        self.moments = [Moment(n, accuracy, s) for (n, accuracy), s in zip(facts["moments"], streams[:-1], strict=True)]
        self.waiting = {
            int(ticket): Waiting(tensors["waiting/rows"][i], tensors["waiting/base"][i], int(predicted))
            for i, (ticket, predicted) in enumerate(facts["waiting"])
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        if isinstance(error, NLPMetaError):
            raise
        raise ModelFolderError(f"{folder} is damaged ({error}). Save the stream again.") from error
    return self


def _tensors(stream: Stream) -> "TaskState":
    found = {name: getattr(stream, name) for name in _PARTS}
    found |= {f"leader/{name}": value for name, value in stream.leader.items()}
    found |= {f"momentum/{name}": value for name, value in stream.momentum.items()}
    found |= {f"head/{name}": getattr(stream.head, name) for name in ("weight", "bias", "pull")}
    found |= {f"frozen/head/{name}": getattr(stream.frozen.head, name) for name in ("weight", "bias", "pull")}
    found |= {"burst/earlier": stream.burst.earlier, "burst/recent": stream.burst.recent}
    return found | {"frozen/prototypes": stream.frozen.prototypes, "frozen/texts": stream.frozen.texts}


def _facts(stream: Stream) -> dict[str, object]:
    alarms = {name: asdict(getattr(stream, name)) for name in ("loss_alarm", "text_alarm")}
    burst = {"burst_alarm": asdict(stream.burst.alarm), "n_earlier": stream.burst.n_earlier}
    return {**alarms, **burst, "n_labels": stream.n_labels}


def _stream(number: int, facts: Mapping[str, Any], tensors: "TaskState") -> Stream:
    own = {name.removeprefix(f"{number}/"): value for name, value in tensors.items() if name.startswith(f"{number}/")}

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in own.items() if name.startswith(prefix)}

    return Stream(
        leader=part("leader/"),
        momentum=part("momentum/"),
        head=Head(**part("head/")),
        frozen=Frozen(Head(**part("frozen/head/")), own["frozen/prototypes"], own["frozen/texts"]),
        loss_alarm=_alarm(facts["loss_alarm"]),
        text_alarm=_alarm(facts["text_alarm"]),
        burst=_burst(facts, own),
        n_labels=int(facts["n_labels"]),
        **{name: own[name] for name in _PARTS},
    )


def _burst(facts: Mapping[str, Any], own: Mapping[str, Tensor]) -> Burst:
    """The burst that was saved; a stream of a release that had none begins with the texts it knew."""
    if "burst_alarm" not in facts:
        like = _alarm(facts["text_alarm"])
        return Burst.begin(own["frozen/texts"], DriftAlarm(like.one_in, like.seed + 1_000_000))
    alarm = _alarm(facts["burst_alarm"])
    return Burst(alarm, own["burst/earlier"], own["burst/recent"], int(facts["n_earlier"]))


def _alarm(facts: Mapping[str, Any]) -> DriftAlarm:
    return DriftAlarm(
        int(facts["one_in"]),
        int(facts["seed"]),
        tuple(map(float, facts["losses"])),
        tuple(map(float, facts["statistics"])),
        int(facts["n_seen"]),
    )
