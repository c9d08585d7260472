"""Measure one contender on one episode."""

from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from nlpmeta.bench.contender import Adapted, Contender
from nlpmeta.bench.memory import peak_bytes, start_watching
from nlpmeta.bench.plan import Plain
from nlpmeta.data import Episode
from nlpmeta.errors import WorkFailedError
from nlpmeta.files import make_folder, temporary_folder
from nlpmeta.metrics import accuracy, calibration_bins, calibration_error, macro_f1


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one contender did on one episode.

    Seconds are wall-clock; ``adapt_seconds`` run from a loaded model and raw support texts to a classifier.
    ``peak_bytes`` is the most resident memory of the process during the cell, the loaded encoder included.
    ``artefact_bytes`` is what has to be kept beside the encoder's own weights. ``bins`` are ``calibration_bins``;
    ``predicted`` has the number of a class for each query text.
    """

    n_way: int
    n_support: int
    n_query: int
    support: str
    accuracy: float
    macro_f1: float
    calibration_error: float
    adapt_seconds: float
    predictions_per_second: float
    peak_bytes: int
    artefact_bytes: int
    bins: list[list[float]]
    predicted: list[int]
    facts: dict[str, Plain]

    def json(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)


def measure_cell(contender: Contender, episode: Episode, *, seed: int) -> Measured:
    """Adapt to the support, score the query, and weigh what there is to keep.

    Raises:
        WorkFailedError: if what comes out are not probabilities of the classes.
    """
    start_watching()
    contender.prepare(seed)
    start = perf_counter()
    model = contender.adapt(episode.support)
    adapted = perf_counter()
    table = model.probabilities(episode.query.texts)
    done = perf_counter()
    peak = peak_bytes()
    _check(table, len(episode.query), episode.n_way)
    predicted = table.argmax(1).tolist()
    truth = list(episode.query.labels)
    return Measured(
        n_way=episode.n_way,
        n_support=len(episode.support),
        n_query=len(episode.query),
        support=episode.support.digest(),
        accuracy=accuracy(truth, predicted),
        macro_f1=macro_f1(truth, predicted),
        calibration_error=calibration_error(truth, table),
        adapt_seconds=adapted - start,
        predictions_per_second=len(episode.query) / (done - adapted),
        peak_bytes=peak,
        artefact_bytes=_weight(model),
        bins=np.round(calibration_bins(truth, table), 5).tolist(),
        predicted=predicted,
        facts=model.facts(),
    )


def _check(table: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", n_query: int, n_way: int) -> None:
    if table.shape != (n_query, n_way):
        raise WorkFailedError(f"Probabilities of shape {(n_query, n_way)} were expected; got {table.shape}.")
    if not np.isfinite(table).all() or (table < -1e-6).any() or not np.allclose(table.sum(1), 1, atol=1e-3):
        raise WorkFailedError("What came out are no probabilities: they must be finite, from 0 to 1, and sum to 1.")


def _weight(model: Adapted) -> int:
    """The bytes of all files that ``save`` writes."""
    with temporary_folder() as folder:
        place = Path(folder) / "model"
        make_folder(place)
        model.save(place)
        return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
