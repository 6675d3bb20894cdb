"""Scores of predictions: per data set, then averaged over data sets; by cell and by sample.

1 is sensitive, 0 is resistant, and every score is P(sensitive). A metric that is not defined (one class only, nothing
predicted sensitive) is NaN, never an error and never a silent 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

THRESHOLD = 0.5
ECE_BINS = 10
METRICS = (
    "auroc",
    "auprc",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "f1_resistant",
    "mcc",
    "brier",
    "ece",
    "log_loss",
)
"""`precision`, `recall` and `f1` are those of the sensitive class."""
CLIP = 1e-7  # log loss of a probability of exactly 0 or 1


def check_binary(y: np.ndarray, prob: np.ndarray) -> None:
    """Refuse labels other than 0 and 1, and probabilities outside [0, 1].

    Raises
    ------
    ValueError
        Shapes differ or values are out of range.
    """
    if y.ndim != 1 or y.shape != prob.shape:
        msg = f"Expected one label and one probability per cell, found shapes {y.shape} and {prob.shape}."
        raise ValueError(msg)
    if not np.isin(y, (0, 1)).all():
        msg = f"Expected labels 0 (resistant) and 1 (sensitive), found {sorted(set(y.tolist()))[:5]}."
        raise ValueError(msg)
    if len(prob) and (np.isnan(prob).any() or prob.min() < 0 or prob.max() > 1):
        msg = "Expected P(sensitive) between 0 and 1 for every scored cell, found values outside or NaN."
        raise ValueError(msg)


def expected_calibration_error(
    y: np.ndarray, prob: np.ndarray, weights: np.ndarray | None = None, n_bins: int = ECE_BINS
) -> float:
    """Mean gap between predicted and observed share of sensitive cells, over equal-width bins (Naeini 2015)."""
    if not len(y):
        return float("nan")
    weights = np.ones(len(y)) if weights is None else weights
    bins = ece_bins(prob, n_bins)
    gap = np.bincount(bins, weights * (y - prob), n_bins)
    return float(np.abs(gap).sum() / weights.sum())


def ece_bins(prob: np.ndarray, n_bins: int = ECE_BINS) -> np.ndarray:
    """Bin of each probability, 0 to `n_bins - 1`."""
    return np.minimum((np.asarray(prob) * n_bins).astype(np.int64), n_bins - 1)


def classification_metrics(
    y: np.ndarray, prob: np.ndarray, weights: np.ndarray | None = None, *, threshold: float = THRESHOLD
) -> dict[str, float]:
    """Compute every metric of :data:`METRICS`.

    Parameters
    ----------
    y
        1 sensitive, 0 resistant; shape `(n,)`.
    prob
        P(sensitive), shape `(n,)`.
    weights
        Weight of each cell. `None` weighs cells equally.
    threshold
        A cell is called sensitive when `prob >= threshold`.

    Returns
    -------
    Metric to value; NaN where it is not defined.

    Raises
    ------
    ValueError
        Shapes differ or values are out of range.
    """
    from sklearn import metrics as skm

    y, prob = np.asarray(y), np.asarray(prob, dtype=np.float64)
    check_binary(y, prob)
    if not len(y) or (weights is not None and not np.sum(weights) > 0):
        return dict.fromkeys(METRICS, float("nan"))
    call = (prob >= threshold).astype(int)
    both = len(np.unique(y if weights is None else y[weights > 0])) == 2

    def score(function: Callable[..., float], *args: np.ndarray, **options: object) -> float:
        return float(function(*args, sample_weight=weights, **options))

    nan = float("nan")
    return {
        "auroc": score(skm.roc_auc_score, y, prob) if both else nan,
        "auprc": score(skm.average_precision_score, y, prob) if y.any() else nan,
        "accuracy": score(skm.accuracy_score, y, call),
        "balanced_accuracy": score(skm.balanced_accuracy_score, y, call) if both else nan,
        "precision": score(skm.precision_score, y, call, zero_division=nan),
        "recall": score(skm.recall_score, y, call, zero_division=nan),
        "f1": score(skm.f1_score, y, call, zero_division=nan),
        "f1_resistant": score(skm.f1_score, y, call, pos_label=0, zero_division=nan),
        "mcc": score(skm.matthews_corrcoef, y, call) if both else nan,
        "brier": float(np.average((prob - y) ** 2, weights=weights)),
        "ece": expected_calibration_error(y, prob, weights),
        "log_loss": score(skm.log_loss, y, np.clip(prob, CLIP, 1 - CLIP), labels=[0, 1]),
    }


@dataclass(frozen=True)
class SampleScores:
    """One row per sample whose cells all have one label.

    Parameters
    ----------
    groups
        Name of each sample, sorted.
    y
        Its label.
    prob
        Mean P(sensitive) of its cells.
    n_cells
        Cells scored.
    n_mixed
        Samples left out because they hold both classes.
    """

    groups: np.ndarray
    y: np.ndarray
    prob: np.ndarray
    n_cells: np.ndarray
    n_mixed: int

    @property
    def n_right(self) -> int:
        """Samples whose mean score lies on the side of their label."""
        return int(((self.prob >= THRESHOLD) == (self.y == 1)).sum())


def sample_scores(y: np.ndarray, prob: np.ndarray, groups: np.ndarray) -> SampleScores:
    """Average the cells of each sample; samples with both classes have no label and are counted, not scored."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    n = np.bincount(index, minlength=len(names))
    share = np.bincount(index, y, len(names)) / np.maximum(n, 1)
    pure = (share == 0) | (share == 1)
    # Sums of equal numbers differ in the last digit by their length; that must not rank samples.
    mean = np.round(np.bincount(index, prob, len(names)) / np.maximum(n, 1), 12)
    return SampleScores(names[pure], share[pure].astype(int), mean[pure], n[pure], int((~pure).sum()))


def macro_average(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean over data sets, leaving out those where a metric is not defined."""
    out = {}
    for metric in rows[0] if rows else ():
        values = np.array([row[metric] for row in rows], dtype=float)
        out[metric] = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    return out
