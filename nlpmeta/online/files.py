"""Writes and reads an ``OnlineClassifier``: safetensors and JSON, with checksums."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.encoder.device import Device
from nlpmeta.errors import ModelFolderError, NLPMetaError, visible
from nlpmeta.online.alarms import Alarm, Burst, DriftAlarm, Record
from nlpmeta.online.stream import Frozen, Head, OnlineSettings, Stream
from nlpmeta.settings import SettingsError
from nlpmeta.storage.files import read_json, remove_file, write_bytes, write_json
from nlpmeta.storage.folders import CARD_FILE, new_folder
from nlpmeta.storage.manifest import read_manifest, write_manifest
from nlpmeta.storage.tensors import read_tensors

if TYPE_CHECKING:
    from nlpmeta.learners.base import TaskState

KIND, MODEL, TENSORS, FACTS = "online", "classifier", "stream.safetensors", "stream.json"
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError)
_PARTS = ("prototypes", "weights", "rows", "base", "labels")
SMALLEST_SCALE = 1e-6
_MOST = 1 << 53  # of a count


@dataclass(frozen=True, eq=False)
class Waiting:
    """A text whose label is awaited: centred embedding ``(dim,)``, scores of the classifier, and what was predicted."""

    row: Tensor
    base: Tensor
    predicted: int


@dataclass(frozen=True, eq=False)
class Moment:
    """A state that can be rolled back to; ``accuracy`` is the recent one at that time, ``None`` before any label."""

    n_labels: int
    accuracy: float | None
    stream: Stream


@dataclass(eq=False)
class Followed:
    """The parts of an online classifier, as they are kept between runs.

    ``centre`` ``(dim,)`` and ``scale`` ``()`` bring embeddings to where the stream sees them; ``waiting`` are the texts
    whose labels are awaited, by ticket.
    """

    classifier: FewShotClassifier
    settings: OnlineSettings
    centre: Tensor
    scale: Tensor
    stream: Stream
    record: Record
    alarms: list[Alarm]
    waiting: dict[int, Waiting]
    moments: list[Moment]


def write_online(online: Followed, folder: Path, *, overwrite: bool) -> None:
    """Write a folder: the classifier in one of its own, the rest beside it."""
    from safetensors.torch import save

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
        remove_file(temporary / MODEL / CARD_FILE)  # a stream is no model to share
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


def read_online(folder: Path, *, device: Device = "auto") -> Followed:
    """What ``write_online`` wrote."""
    if read_manifest(folder).get("kind") != KIND:
        raise ModelFolderError(f"{folder} contains no stream. Start one with OnlineClassifier and save it.")
    classifier, tensors = (
        FewShotClassifier.from_pretrained(folder / MODEL, device=device),
        read_tensors(folder / TENSORS),
    )
    try:
        facts = cast("dict[str, Any]", read_json(folder / FACTS))
        streams = [_stream(number, each, tensors) for number, each in enumerate(facts["streams"])]
        waiting = {
            int(ticket): Waiting(tensors["waiting/rows"][i], tensors["waiting/base"][i], int(predicted))
            for i, (ticket, predicted) in enumerate(facts["waiting"])
        }
        moments = [_moment(n, accuracy, s) for (n, accuracy), s in zip(facts["moments"], streams[:-1], strict=True)]
        found = Followed(
            classifier=classifier,
            settings=OnlineSettings.parse(facts["settings"], where=str(folder / FACTS), saved=True),
            centre=tensors["centre"],
            scale=tensors["scale"],
            stream=streams[-1],
            record=Record(**facts["record"]),
            alarms=[Alarm(**alarm) for alarm in facts["alarms"]],
            waiting=waiting,
            moments=moments,
        )
        _check_shapes(found, tensors, len(streams))
        _check_online(found)
    except _DAMAGE as error:
        if isinstance(error, NLPMetaError) and not isinstance(error, SettingsError):
            raise
        raise ModelFolderError(f"{folder} is damaged ({visible(str(error))}). Save the stream again.") from error
    return found


def _moment(n_labels: object, accuracy: object, stream: Stream) -> Moment:
    if type(n_labels) is not int or n_labels < 0:
        raise TypeError("a kept state without a number of labels")
    if accuracy is None:
        return Moment(n_labels, None, stream)
    if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
        raise TypeError("a kept state whose accuracy is none")
    return Moment(n_labels, float(accuracy), stream)


def _check_shapes(online: Followed, tensors: "TaskState", n_streams: int) -> None:
    """See that every state has the tensors of a new one, of the same shapes but for the number of texts.

    Raises:
        ValueError: names the first that differs.
    """
    n_way, dim = len(online.classifier.classes_), len(online.centre)
    new = Stream.begin(torch.eye(n_way, dim), torch.zeros(n_way, n_way), torch.arange(n_way), online.settings)
    for name, like in _tensors(new).items():
        own = name.rpartition("/")[2]
        start = 1 if own in ("rows", "base", "labels", "texts", "earlier", "recent") else 0
        for number in range(n_streams):
            found = tensors.get(f"{number}/{name}")
            if found is None or found.dim() != like.dim() or found.shape[start:] != like.shape[start:]:
                raise ValueError(f"{number}/{name} is missing or has another shape than the classifier")


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


def _check_online(online: Followed) -> None:
    """See that a loaded stream can go on.

    Raises:
        ValueError: says what does not fit.
        RuntimeError: from torch, where shapes do not fit one another.
    """
    fitted, n_way = online.classifier.fitted_, len(online.classifier.classes_)
    seen = fitted.predictor.queries(("a",)).features  # of ``auto`` the views alone that its heads read
    dim = fitted.learner.encoder.dim if seen is None else seen.size(1)
    if online.centre.shape != (dim,) or online.scale.shape != () or float(online.scale) < SMALLEST_SCALE:
        raise ValueError("its centre or scale is not that of the encoder")
    _check_record(online)
    for stream in (online.stream, *(moment.stream for moment in online.moments)):
        _check_stream(stream, dim, n_way)
    for ticket, each in online.waiting.items():
        if not 0 <= ticket < online.record.n_texts or not 0 <= each.predicted < n_way:
            raise ValueError("a text that waits for its label has an impossible ticket or class")
        if each.row.shape != (dim,) or each.base.shape != (n_way,):
            raise ValueError("a text that waits for its label has another shape than the others")
    row, base = torch.zeros(dim), torch.zeros(n_way)
    tried = online.stream.watched(row)
    for _ in range(online.settings.meta_every):  # so that a meta-step is among them
        tried = tried.learned(row, base, 0, online.settings)
    _check_stream(tried, dim, n_way)


def _check_stream(stream: Stream, dim: int, n_way: int) -> None:
    n = len(stream.labels)
    if stream.rows.shape != (n, dim) or stream.base.shape != (n, n_way) or stream.prototypes.shape != (n_way, dim):
        raise ValueError("its memory has another shape than the classifier")
    if n and not 0 <= int(stream.labels.min()) <= int(stream.labels.max()) < n_way:
        raise ValueError("its memory has a class that the classifier has not")
    scores = stream.scores(torch.zeros(1, dim), torch.zeros(1, n_way))
    if scores.shape != (1, n_way) or not bool(scores.isfinite().all()):
        raise ValueError("its scores are not finite")
    for alarm in (stream.loss_alarm, stream.text_alarm, stream.burst.alarm):
        if not all(map(math.isfinite, (*alarm.losses, *alarm.statistics))) or not 0 <= alarm.n_seen < _MOST:
            raise ValueError("an alarm has numbers that are not finite")


def _check_record(online: Followed) -> None:
    record = online.record
    counts = (record.n_right, record.n_labels, record.n_texts)
    if any(type(each) is not int for each in counts) or not 0 <= counts[0] <= counts[1] <= counts[2] < _MOST:
        raise ValueError("its record has impossible counts")
    if not all(type(each) in (int, float) and math.isfinite(each) for each in (record.recent, record.weight)):
        raise ValueError("its record has numbers that are not finite")
