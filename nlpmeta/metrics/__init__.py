"""How good predictions are, on scikit-learn: plain functions, and the way to the same as modules of ``evaluate``."""

from typing import TYPE_CHECKING

from nlpmeta.metrics.calibration import calibration_bins, calibration_error, error_of_bins
from nlpmeta.metrics.classification import accuracy, macro_f1, macro_f1_of_each
from nlpmeta.metrics.out_of_scope import OUT_OF_SCOPE, oos_auroc, oos_recall

if TYPE_CHECKING:
    from evaluate import Metric

__all__ = [
    "OUT_OF_SCOPE",
    "accuracy",
    "calibration_bins",
    "calibration_error",
    "error_of_bins",
    "load_metric",
    "macro_f1",
    "macro_f1_of_each",
    "oos_auroc",
    "oos_recall",
]


def load_metric(name: str) -> "Metric":
    """A metric of this package as a module of ``evaluate``, without the Hub; for its names see ``modules.MODULES``.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    from nlpmeta.errors import UnknownNameError
    from nlpmeta.metrics.modules import MODULES  # costs the seconds that ``evaluate`` takes to import

    if name not in MODULES:
        raise UnknownNameError("metric", name, MODULES)
    return MODULES[name](keep_in_memory=True)
