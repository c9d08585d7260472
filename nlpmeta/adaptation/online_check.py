"""A stream that somebody stored is tried once before it is believed: numbers, shapes, counts."""

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from nlpmeta.adaptation.online import OnlineClassifier
    from nlpmeta.adaptation.stream import Stream

SMALLEST_SCALE = 1e-6
_MOST = 1 << 53  # of a count


def check_online(online: "OnlineClassifier") -> None:
    """See that a loaded stream can go on.

    Raises:
        ValueError: says what does not fit.
        RuntimeError: from torch, where shapes do not fit one another.
    """
    dim, n_way = online.classifier.learner_.encoder.dim, len(online.classes_)
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


def _check_stream(stream: "Stream", dim: int, n_way: int) -> None:
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


def _check_record(online: "OnlineClassifier") -> None:
    record = online.record
    counts = (record.n_right, record.n_labels, record.n_texts)
    if any(type(each) is not int for each in counts) or not 0 <= counts[0] <= counts[1] <= counts[2] < _MOST:
        raise ValueError("its record has impossible counts")
    if not all(type(each) in (int, float) and math.isfinite(each) for each in (record.recent, record.weight)):
        raise ValueError("its record has numbers that are not finite")
