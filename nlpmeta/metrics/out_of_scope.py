"""Whether low probabilities give texts away that belong to no class."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

OUT_OF_SCOPE = -1
"""The label of a text that belongs to no class."""


def oos_auroc(labels: "ArrayLike", probabilities: "ArrayLike") -> float:
    """How well a low largest probability tells texts out of scope from others: the area under the ROC curve.

    Source: Hendrycks and Gimpel, ICLR 2017 (arXiv:1610.02136).

    Args:
        labels: ``(n,)``, ``OUT_OF_SCOPE`` where a text belongs to no class; some do and some do not.
        probabilities: ``(n, n_way)``.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(np.asarray(labels) == OUT_OF_SCOPE, -np.asarray(probabilities).max(1)))


def oos_recall(labels: "ArrayLike", probabilities: "ArrayLike", *, in_scope_accuracy: float) -> float:
    """The share of texts out of scope that are refused at the threshold that just keeps ``in_scope_accuracy``.

    A text is refused if its largest probability lies below the threshold; a text in scope that is refused counts as
    wrong. Where the accuracy is not reached even if nothing is refused, the recall is 0.

    Source: the two figures that Larson et al., EMNLP 2019 (arXiv:1909.02027), report for CLINC150. Where we differ: one
    of them is held fixed, so that methods can be compared by the other.

    Args:
        labels: ``(n,)``, ``OUT_OF_SCOPE`` where a text belongs to no class; some do and some do not.
        probabilities: ``(n, n_way)``.
        in_scope_accuracy: the share of texts in scope that must be accepted and right.
    """
    truth, table = np.asarray(labels), np.asarray(probabilities)
    outside, confidence = truth == OUT_OF_SCOPE, table.max(1)
    right = np.sort(confidence[~outside & (table.argmax(1) == truth)])[::-1]
    needed = int(np.ceil(round(in_scope_accuracy * int((~outside).sum()), 9)))
    if needed > len(right):
        return 0.0
    threshold = right[needed - 1] if needed else np.inf
    return float((confidence[outside] < threshold).mean())
