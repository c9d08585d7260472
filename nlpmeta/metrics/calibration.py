"""Whether probabilities mean what they say."""

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Bins: TypeAlias = "NDArray[np.float64]"
"""Texts, summed confidence and right answers by confidence, shape ``(..., n_bins, 3)``; bins of several sets add up."""

N_BINS = 15


def calibration_bins(labels: "ArrayLike", probabilities: "ArrayLike", *, n_bins: int = N_BINS) -> Bins:
    """Sort texts by confidence into ``n_bins`` bins ``((m - 1) / n_bins, m / n_bins]`` of equal width.

    Args:
        labels: ``(n,)``.
        probabilities: ``(n, n_way)``; the largest of a row is its confidence.
        n_bins: how many bins.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    confidence, right = table.max(1), table.argmax(1) == np.asarray(labels)
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    columns = [np.bincount(bins, weights, n_bins) for weights in (np.ones_like(confidence), confidence, right)]
    return np.stack(columns, axis=1)


def error_of_bins(bins: Bins) -> "NDArray[np.float64]":
    """The calibration error that ``bins`` ``(..., n_bins, 3)`` show; shape ``(...)``."""
    n_texts, confidence, right = np.moveaxis(bins, -1, 0)
    error: NDArray[np.float64] = np.abs(right - confidence).sum(-1) / n_texts.sum(-1)
    return error


def calibration_error(labels: "ArrayLike", probabilities: "ArrayLike", *, n_bins: int = N_BINS) -> float:
    """The expected calibration error: how far confidence and accuracy are apart, averaged over texts.

    Source: Guo, Pleiss, Sun and Weinberger, ICML 2017, equation 3 (arXiv:1706.04599), with their 15 bins.

    Args:
        labels: ``(n,)``.
        probabilities: ``(n, n_way)``.
        n_bins: bins of equal width.
    """
    return float(error_of_bins(calibration_bins(labels, probabilities, n_bins=n_bins)))
