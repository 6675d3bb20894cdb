"""Scores of predictions, from sums per group: by cell and by sample, per data set and averaged over data sets.

1 is sensitive, 0 is resistant, and every score is P(sensitive). A metric that is not defined (one class only, nothing
predicted sensitive) is NaN, never an error and never a silent 0.

The values are those of `sklearn.metrics`. They are computed from sums per group, so that a bootstrap draw of groups costs
one matrix product instead of a pass over the cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .groups import encode_groups, group_classes, majority_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from .groups import FloatArray, IntArray

THRESHOLD = 0.5
ECE_BINS = 10
METRICS = (
    "auroc", "auprc", "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "f1_resistant", "mcc",
    "brier", "ece", "log_loss",
)  # fmt: skip
"""`precision`, `recall` and `f1` are those of the sensitive class; `ece` is the expected calibration error over ten bins
of equal width (Naeini et al. 2015)."""
CALIBRATION_METRICS = ("brier", "ece", "log_loss")
"""Those that judge the probability itself; lower is better."""
CLIP = 1e-7  # log loss of a probability of exactly 0 or 1
_CHUNK = 2**22  # numbers held at once when draws need cells, not sums per group


def classification_metrics(y: np.ndarray, prob: np.ndarray) -> dict[str, float]:
    """Compute every metric of :data:`METRICS`, cells weighing the same.

    Parameters
    ----------
    y
        1 sensitive, 0 resistant; shape `(n,)`.
    prob
        P(sensitive), shape `(n,)`. A cell is called sensitive from 0.5 on.

    Returns
    -------
    Metric to value; NaN where it is not defined.
    """
    if not (n := len(y)):
        return dict.fromkeys(METRICS, float("nan"))
    values = GroupSums(y, prob, np.zeros(n, dtype=np.int64)).metrics(np.ones((1, 1)))
    return {metric: float(value[0]) for metric, value in values.items()}


def group_kernel(
    scores: FloatArray, left: np.ndarray, right: np.ndarray, groups: IntArray, n_groups: int
) -> FloatArray:
    """Pairs won between groups: `C[g, h]` sums `1(s_i > s_j) + 1(s_i = s_j) / 2` over cells i of g and j of h.

    Parameters
    ----------
    scores
        Score of each cell.
    left, right
        Masks of the cells that stand on the left (i) and right (j).
    groups
        Index of each cell's group, 0 to `n_groups - 1`.
    n_groups
        Number of groups.

    Returns
    -------
    float64 array of shape `(n_groups, n_groups)`.
    """
    out = np.zeros((n_groups, n_groups))
    s_left, g_left, s_right, g_right = scores[left], groups[left], scores[right], groups[right]
    order = np.lexsort((s_right, g_right))
    s_right, stops = s_right[order], np.cumsum(np.bincount(g_right, minlength=n_groups))
    for h, stop in enumerate(stops):
        block = s_right[stops[h - 1] if h else 0 : stop]
        if len(block):
            wins = np.searchsorted(block, s_left, "left") + np.searchsorted(block, s_left, "right")
            out[:, h] = np.bincount(g_left, wins / 2, n_groups)
    return out


class GroupSums:
    """The sums per group from which every metric of any re-weighting of the groups follows.

    Parameters
    ----------
    y, prob
        Label (1 sensitive, 0 resistant) and P(sensitive) of each cell.
    groups
        Group of each cell.
    score
        What AUROC and AUPRC rank the cells by; `prob` if `None`.
    """

    def __init__(self, y: ArrayLike, prob: ArrayLike, groups: ArrayLike, score: ArrayLike | None = None) -> None:
        self.prob = np.asarray(prob, dtype=np.float64)
        self.score = self.prob if score is None else np.asarray(score, dtype=np.float64)
        self.y = y = np.asarray(y, dtype=np.intp)
        self.index, names = encode_groups(groups)
        self.n_groups = len(names)
        call = self.prob >= THRESHOLD
        self.tp, self.fp = self._total(call & (y == 1)), self._total(call & (y == 0))
        self.fn, self.tn = self._total(~call & (y == 1)), self._total(~call & (y == 0))
        self.pos, self.neg = self.tp + self.fn, self.fp + self.tn
        self.brier = self._total((self.prob - y) ** 2)
        clipped = np.clip(self.prob, CLIP, 1 - CLIP)
        self.log_loss = self._total(-np.where(y == 1, np.log(clipped), np.log1p(-clipped)))
        bins = np.minimum((self.prob * ECE_BINS).astype(np.int64), ECE_BINS - 1)
        gap = np.bincount(self.index * ECE_BINS + bins, y - self.prob, self.n_groups * ECE_BINS)
        self.gap = gap.reshape(self.n_groups, ECE_BINS)
        self.kernel = group_kernel(self.score, y == 1, y == 0, self.index, self.n_groups)

    def _total(self, values: np.ndarray) -> FloatArray:
        return np.asarray(np.bincount(self.index, values, self.n_groups), dtype=np.float64)

    @cached_property
    def strata(self) -> IntArray:
        """Class of each group, a few mixed ones by their majority: 0 resistant, 1 sensitive, 2 both."""
        return majority_classes(self.y, self.index, self.n_groups)

    def metrics(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Every metric for every row of group weights.

        Parameters
        ----------
        weights
            Shape `(draws, n_groups)`.

        Returns
        -------
        Metric to float64 array of shape `(draws,)`; NaN where not defined.
        """
        tp, fp, fn, tn = (weights @ counts for counts in (self.tp, self.fp, self.fn, self.tn))
        pos, neg, n = tp + fn, fp + tn, tp + fp + fn + tn
        with np.errstate(divide="ignore", invalid="ignore"):
            recall, specificity = tp / pos, tn / neg
            spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
            mcc = np.where(spread > 0, (tp * tn - fp * fn) / spread, 0.0)
            return {
                "auroc": ((weights @ self.kernel) * weights).sum(axis=1) / (pos * neg),
                "auprc": self._average_precision(weights),
                "accuracy": (tp + tn) / n,
                "balanced_accuracy": (recall + specificity) / 2,
                "precision": tp / (tp + fp),
                "recall": recall,
                "specificity": specificity,
                "f1": 2 * tp / (2 * tp + fp + fn),
                "f1_resistant": 2 * tn / (2 * tn + fp + fn),
                "mcc": np.where(pos * neg > 0, mcc, np.nan),
                "brier": (weights @ self.brier) / n,
                "ece": np.abs(weights @ self.gap).sum(axis=1) / n,
                "log_loss": (weights @ self.log_loss) / n,
            }

    def _average_precision(self, weights: FloatArray) -> FloatArray:
        """Area under the precision-recall steps, ties taken together (as scikit-learn does)."""
        order = np.argsort(-self.score, kind="stable")
        group, y, score = self.index[order], self.y[order], self.score[order]
        last = np.flatnonzero(np.append(score[1:] != score[:-1], True))
        out = np.full(len(weights), np.nan)
        step = max(1, _CHUNK // len(score))
        for start in range(0, len(weights), step):
            cells = weights[start : start + step, group]
            tp, called = np.cumsum(cells * y, axis=1)[:, last], np.cumsum(cells, axis=1)[:, last]
            with np.errstate(divide="ignore", invalid="ignore"):
                precision = np.where(called > 0, tp / called, 0.0)
                out[start : start + step] = (np.diff(tp, axis=1, prepend=0.0) * precision).sum(axis=1) / tp[:, -1]
        return out


@dataclass(frozen=True)
class SampleScores:
    """One row per group with a label.

    Parameters
    ----------
    groups
        Name of each group, sorted.
    y
        Its label, that of most of its cells.
    prob
        Mean P(sensitive) of its cells.
    n_cells
        Cells scored.
    n_mixed
        Groups that hold both classes.
    """

    groups: np.ndarray
    y: np.ndarray
    prob: np.ndarray
    n_cells: np.ndarray
    n_mixed: int

    @property
    def n_right(self) -> int:
        """Groups whose mean score lies on the side of their label."""
        return int(((self.prob >= THRESHOLD) == (self.y == 1)).sum())


def sample_scores(y: np.ndarray, prob: np.ndarray, groups: np.ndarray) -> SampleScores:
    """Average the cells of each group.

    A few groups with both classes count as the class of most of their cells; where there are more of them, they have no
    label and are counted, not scored.
    """
    index, names = encode_groups(groups)
    n, kind = np.bincount(index), majority_classes(y, index, len(names))
    # Sums of equal numbers differ in the last digit by their length; that must not rank groups.
    mean, labeled = np.round(np.bincount(index, prob) / n, 12), kind < 2
    n_mixed = int((group_classes(y, index, len(names)) == 2).sum())
    return SampleScores(names[labeled], kind[labeled], mean[labeled], n[labeled], n_mixed)


def macro_average(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean over data sets, leaving out those where a metric is not defined."""
    out = {}
    for metric in rows[0]:
        values = np.array([row[metric] for row in rows], dtype=float)
        out[metric] = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    return out
