"""Rows of results with everything that they depend on, and files of them that grow row by row."""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.errors import DataError
from nlpmeta.metrics import SEVERAL_METRICS
from nlpmeta.metrics.scores import Difference, Interval, paired_difference
from nlpmeta.storage.files import Json, disk_errors_said_plainly, read_text, write_text

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder
    from nlpmeta.encoder.tokenizing import Cut
    from nlpmeta.learners.base import Option

FIGURES = dict(zip(SEVERAL_METRICS, ("macro-F1", "micro-F1", "mAP", "exact match"), strict=True))
"""The figures of texts with several labels, and what they are called in a table."""
MOST_LISTED = 20
"""Up to so many episodes a row lists the accuracy on each, so that methods of different runs can be paired."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All that decides the figures of a row: two runs with equal settings must give equal figures.

    ``fold``, ``presentation`` and ``descriptions`` are ``None``, and not in a row, where nobody asked for them.
    """

    data: str
    lang: str | None
    method: str
    protocol: str
    n_way: int | str
    n_shot: int
    episodes: int
    seed: int
    max_query: int | None
    split: str
    test_data: str | None
    method_options: "Mapping[str, Option]"
    encoder: "EncoderUse"
    fold: int | None = None
    presentation: int | None = None
    descriptions: str | None = None


@dataclass(frozen=True, kw_only=True)
class EncoderUse:
    """Which encoder, and what is done before and after it; ``adapter`` is a digest of trained adapters, if any."""

    name: str | None
    digest: str | None
    prefix: str
    max_length: int
    normalise: bool
    adapter: str | None = None
    window: int | None = None
    pooling: str | None = None

    @classmethod
    def of(cls, encoder: "TextEncoder") -> "EncoderUse":
        """How ``encoder`` is used; one that was built in memory has no name."""
        files = encoder.files
        return cls(
            name=None if files is None else files.name,
            digest=None if files is None else files.digest,
            prefix=encoder.prefix,
            max_length=encoder.max_length,
            normalise=encoder.normalise,
            adapter=_adapter_digest(encoder),
            window=None if encoder.windows is None else encoder.window,
            pooling=None if encoder.pooling == "mean" else encoder.pooling,
        )

    def json(self) -> "dict[str, Json]":
        """The same as plain values; nothing is said of adapters or windows where there are none, or of a mean."""
        found, unsaid = asdict(self), ("adapter", "window", "pooling")
        return {key: value for key, value in found.items() if value is not None or key not in unsaid}


@dataclass(frozen=True, eq=False)
class Summary:
    """What one method reached over all episodes; ``accuracies`` and ``macro_f1s`` hold a value an episode.

    Where texts have several labels ``several`` holds the figures of ``SEVERAL_METRICS`` of each draw, and accuracy is
    that of exact matches.
    """

    accuracies: tuple[float, ...]
    macro_f1s: tuple[float, ...]
    calibration_error: Interval
    oos_auroc: Interval | None
    oos_recall: Interval | None
    n_query: int
    """Query texts of an episode, on average."""
    adapt_seconds: float
    several: tuple[Mapping[str, float], ...] = ()

    @property
    def accuracy(self) -> Interval:
        """Mean accuracy over the episodes."""
        return Interval.of(self.accuracies)

    @property
    def macro_f1(self) -> Interval:
        """Mean macro-F1 over the episodes."""
        return Interval.of(self.macro_f1s)

    def figure(self, metric: str) -> Interval:
        """The mean of one of ``SEVERAL_METRICS`` over the draws in which it is known."""
        known = [each[metric] for each in self.several if not math.isnan(each[metric])]
        return Interval.of(known) if known else Interval(math.nan, math.nan)

    def gain_over(self, baseline: "Summary") -> tuple[Difference, Difference]:
        """How much better accuracy and macro-F1 are than those of ``baseline`` on the same episodes."""
        accuracy = paired_difference(baseline.accuracies, self.accuracies)
        return accuracy, paired_difference(baseline.macro_f1s, self.macro_f1s)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method under one setting; ``gains`` are differences to ``baseline`` in accuracy and macro-F1.

    ``cut`` is how many texts of the data are longer than the encoder reads, where that was counted.
    """

    setting: Setting
    summary: Summary
    baseline: str | None = None
    gains: tuple[Difference, Difference] | None = None
    command: str = ""
    cut: "Cut | None" = None

    def json(self) -> dict[str, Json]:
        """The row as it is printed and stored; shares are fractions of 1, differences too."""
        from nlpmeta import __version__

        row: dict[str, Json] = {name: value for name, value in asdict(self.setting).items()}
        row["encoder"] = self.setting.encoder.json()
        for name in ("fold", "presentation", "descriptions"):
            if row[name] is None:
                del row[name]
        row["n_query"] = self.summary.n_query
        row["accuracy"] = self.summary.accuracy.json()
        if len(self.summary.accuracies) <= MOST_LISTED:
            row["accuracies"] = [round(accuracy, 6) for accuracy in self.summary.accuracies]
        row["macro_f1"] = self.summary.macro_f1.json()
        row["calibration_error"] = self.summary.calibration_error.json()
        if self.summary.several:
            row |= {"several": True, **{name: self.summary.figure(name).json() for name in SEVERAL_METRICS}}
            if len(self.summary.macro_f1s) <= MOST_LISTED:
                row["macro_f1s"] = [round(value, 6) for value in self.summary.macro_f1s]
        for name in ("oos_auroc", "oos_recall"):
            interval = getattr(self.summary, name)
            if interval is not None:
                row[name] = interval.json()
        if self.gains is not None:
            row["difference"] = {
                "baseline": self.baseline,
                "accuracy": self.gains[0].json(),
                "macro_f1": self.gains[1].json(),
            }
        if self.cut is not None and self.cut.n_cut:
            row["cut"] = {**self.cut.json()}
        row["adapt_seconds"] = round(self.summary.adapt_seconds, 4)
        row["command"] = self.command
        row["nlpmeta"] = __version__
        return row


def read_rows(path: Path) -> list[dict[str, Json]]:
    """The rows of a results file; none if there is no file.

    Raises:
        DataError: if it is not a results file.
    """
    if not path.exists():
        return []
    try:
        rows = json.loads(read_text(path))["rows"]
        return [dict(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a file of results ({error!r}); it was not changed. Name another one."
        ) from error


def add_rows(path: Path, rows: Sequence[Row]) -> None:
    """Put rows into a results file; one of the same setting is replaced, the others stay.

    Several processes may do so at the same time, and the file is whole at every moment.

    Raises:
        DataError: if the file there is not a results file.
        WorkFailedError: if the disk does not allow the write.
    """
    with disk_errors_said_plainly(path), _lock(path):
        stored = {_key(row): row for row in [*read_rows(path), *(row.json() for row in rows)]}
        ordered = sorted(stored.values(), key=lambda row: [str(row.get(name, "")).rjust(12) for name in _ORDER])
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in ordered)
        write_text(path, f'{{"rows": [\n{lines}\n]}}\n')


_ORDER = ("data", "lang", "protocol", "n_way", "n_shot", "method", "presentation")
_SETTING = tuple(Setting.__dataclass_fields__)


def _key(row: Mapping[str, Json]) -> str:
    return json.dumps([row.get(name) for name in _SETTING], sort_keys=True)


def _adapter_digest(encoder: "TextEncoder") -> str | None:
    """Twelve hexadecimal digits that tell one training from another; ``None`` without adapters."""
    from nlpmeta.encoder.lora import adapter_weights
    from nlpmeta.storage.tensors import digest_of

    weights = adapter_weights(encoder)
    return digest_of(weights.items())[:12] if weights else None


def _lock(path: Path) -> AbstractContextManager[object]:
    from filelock import FileLock

    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"nlpmeta-results-{name}.lock")


def columns_of(rows: Sequence[Row], *, in_scope_accuracy: float | None = None) -> dict[str, Callable[[Row], str]]:
    """The columns of a table of ``rows``: a header and what stands below it for a row.

    Columns that would be empty are left out, and so is the language where there is one only.

    Args:
        rows: of one protocol.
        in_scope_accuracy: the share of texts in scope at which recall out of scope is given.
    """
    columns: dict[str, Callable[[Row], str]] = {"method": lambda row: row.setting.method}
    if len({row.setting.lang for row in rows}) > 1:
        columns["lang"] = lambda row: row.setting.lang or "all"
    several, over = bool(rows[0].summary.several), f"over {next((row.baseline for row in rows if row.baseline), '')}"
    columns["labels" if several else "ways"] = lambda row: str(row.setting.n_way)
    columns["shots"] = lambda row: str(row.setting.n_shot)
    if several:
        for name, title in FIGURES.items():
            columns[f"{title}, %"] = lambda row, name=name: row.summary.figure(name).percent()  # type: ignore[misc]
        if any(row.gains for row in rows):
            columns[f"{FIGURES['macro_f1']} {over}"] = lambda row: row.gains[1].percent() if row.gains else ""
        return columns
    if any(row.setting.presentation is not None for row in rows):
        columns["presentation"] = lambda row: str(row.setting.presentation)
    columns["accuracy, %"] = lambda row: row.summary.accuracy.percent()
    columns["macro-F1, %"] = lambda row: row.summary.macro_f1.percent()
    columns["ECE, %"] = lambda row: row.summary.calibration_error.percent()
    if any(row.summary.oos_auroc for row in rows):
        columns["out-of-scope AUROC, %"] = lambda row: _percent(row.summary.oos_auroc)
        columns[f"recall at {100 * (in_scope_accuracy or 0):.0f} %"] = lambda row: _percent(row.summary.oos_recall)
    if any(row.gains for row in rows):
        columns[over] = lambda row: row.gains[0].percent() if row.gains else ""
    return columns


def _percent(interval: Interval | None) -> str:
    return "" if interval is None else interval.percent()
