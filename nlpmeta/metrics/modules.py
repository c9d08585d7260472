"""The metrics as modules of Hugging Face ``evaluate``: ``load_metric(name).compute(predictions=…, references=…)``.

They hold no code of their own, and come with the package: nothing is fetched from the Hub.
"""

from collections.abc import Sequence
from typing import ClassVar

from datasets import Features, Value
from datasets import Sequence as Row
from evaluate import Metric, MetricInfo

from nlpmeta.errors import UnknownNameError
from nlpmeta.metrics import N_BINS, OUT_OF_SCOPE, accuracy, calibration_error, macro_f1, oos_auroc, oos_recall

LABELS = Features({"predictions": Value("int64"), "references": Value("int64")})
PROBABILITIES = Features({"predictions": Row(Value("float64")), "references": Value("int64")})
_INPUTS = {
    "labels": "predictions: predicted labels; references: true labels.",
    "probabilities": (
        "predictions: for each text the probabilities of all classes; references: true labels, "
        f"{OUT_OF_SCOPE} for a text that belongs to none."
    ),
}


class _Module(Metric):  # type: ignore[misc]  # evaluate is not typed
    """What all of them share; a subclass says what it takes and computes."""

    about: ClassVar[str]
    citation_key: ClassVar[str]
    takes: ClassVar[Features] = PROBABILITIES

    def _info(self) -> MetricInfo:
        inputs = _INPUTS["labels" if self.takes is LABELS else "probabilities"]
        return MetricInfo(self.about, citation=self.citation_key, features=self.takes, inputs_description=inputs)


class Accuracy(_Module):
    """``metrics.accuracy``."""

    about, citation_key, takes = "The share of predictions that are right.", "", LABELS

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"accuracy": accuracy(references, predictions)}


class MacroF1(_Module):
    """``metrics.macro_f1``."""

    about, citation_key, takes = "The unweighted mean of F1 over the classes that occur.", "", LABELS

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"macro_f1": macro_f1(references, predictions)}


class CalibrationError(_Module):
    """``metrics.calibration_error``."""

    about, citation_key = "Expected calibration error.", "Guo et al. 2017, arXiv:1706.04599"

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[int], n_bins: int = N_BINS
    ) -> dict[str, float]:
        return {"calibration_error": calibration_error(references, predictions, n_bins=n_bins)}


class OosAuroc(_Module):
    """``metrics.oos_auroc``."""

    about, citation_key = "Area under the ROC curve of refusing texts out of scope.", "arXiv:1610.02136"

    def _compute(self, predictions: Sequence[Sequence[float]], references: Sequence[int]) -> dict[str, float]:
        return {"oos_auroc": oos_auroc(references, predictions)}


class OosRecall(_Module):
    """``metrics.oos_recall``."""

    about, citation_key = "Recall of texts out of scope at a fixed in-scope accuracy.", "arXiv:1909.02027"

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[int], in_scope_accuracy: float = 0.8
    ) -> dict[str, float]:
        return {"oos_recall": oos_recall(references, predictions, in_scope_accuracy=in_scope_accuracy)}


MODULES: dict[str, type[Metric]] = {
    "accuracy": Accuracy,
    "macro_f1": MacroF1,
    "calibration_error": CalibrationError,
    "oos_auroc": OosAuroc,
    "oos_recall": OosRecall,
}


def load_metric(name: str) -> Metric:
    """A metric of this package as a module of ``evaluate``, without the Hub; for its names see ``MODULES``.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    if name not in MODULES:
        raise UnknownNameError("metric", name, MODULES)
    return MODULES[name](keep_in_memory=True)
