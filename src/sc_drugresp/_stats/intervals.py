"""Confidence intervals whose unit is the sample (patient, cell line), never the cell.

AUROC over cells: the variance of the Mann-Whitney statistic of clustered data (Obuchowski 1997), on the logit scale,
with Student quantiles whose degrees of freedom follow Satterthwaite. AUROC over samples, one score each: Newcombe's
score interval (2006, method 5). With 8 to 32 samples both cover the truth close to their nominal rate, which the
percentile bootstrap over samples does not (0.69 to 0.86 instead of 0.95 at 4 against 4).
All other metrics: cluster bootstrap, stratified by class, percentile or BCa (Efron 1987).

Everything is computed from sums per sample, so that a draw costs one matrix product instead of a pass over the cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .metrics import CLIP, ECE_BINS, METRICS, THRESHOLD, check_binary, ece_bins

BootstrapMethod = Literal["percentile", "bca"]
MACRO = "macro"
"""Name of the average over data sets."""
_CHUNK = 2**22  # numbers held at once when draws need cells, not sums per sample


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval; `low` and `high` are NaN where too few samples allow none."""

    value: float
    low: float
    high: float
    n_groups: int

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def group_kernel(
    scores: np.ndarray, left: np.ndarray, right: np.ndarray, groups: np.ndarray, n_groups: int
) -> np.ndarray:
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
    """The sums per sample from which every metric of any re-weighting of the samples follows.

    Parameters
    ----------
    y, prob
        Label (1 sensitive, 0 resistant) and P(sensitive) of each cell.
    groups
        Sample of each cell.
    """

    def __init__(self, y: np.ndarray, prob: np.ndarray, groups: np.ndarray) -> None:
        y, prob = np.asarray(y, dtype=np.int64), np.asarray(prob, dtype=np.float64)
        check_binary(y, prob)
        self.y, self.prob = y, prob
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        self.index, self.n_groups = index, len(names)

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(index, values, self.n_groups)

        call = prob >= THRESHOLD
        self.tp, self.fp = total(call & (y == 1)), total(call & (y == 0))
        self.fn, self.tn = total(~call & (y == 1)), total(~call & (y == 0))
        self.pos, self.neg = self.tp + self.fn, self.fp + self.tn
        self.brier = total((prob - y) ** 2)
        clipped = np.clip(prob, CLIP, 1 - CLIP)
        self.log_loss = total(-np.where(y == 1, np.log(clipped), np.log1p(-clipped)))
        cell = index * ECE_BINS + ece_bins(prob)
        self.gap = np.bincount(cell, y - prob, self.n_groups * ECE_BINS).reshape(self.n_groups, ECE_BINS)
        self.kernel = group_kernel(prob, y == 1, y == 0, index, self.n_groups)

    @property
    def strata(self) -> list[np.ndarray]:
        """Samples by content: only sensitive, only resistant, both."""
        pos, neg = self.pos > 0, self.neg > 0
        return [np.flatnonzero(mask) for mask in (pos & ~neg, ~pos & neg, pos & neg) if mask.any()]

    @property
    def resamplable(self) -> bool:
        """Every stratum has at least two samples; a single one says nothing about how samples vary."""
        return bool(self.strata) and min(len(stratum) for stratum in self.strata) >= 2

    def draws(self, n_boot: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers of times each sample is drawn; shape `(n_boot, n_groups)`, drawn within strata."""
        weights = np.zeros((n_boot, self.n_groups))
        for stratum in self.strata:
            k = len(stratum)
            weights[:, stratum] = rng.multinomial(k, np.full(k, 1 / k), size=n_boot)
        return weights

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric for every row of sample weights.

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
            out = {
                "auroc": ((weights @ self.kernel) * weights).sum(axis=1) / (pos * neg),
                "auprc": self._average_precision(weights),
                "accuracy": (tp + tn) / n,
                "balanced_accuracy": (recall + specificity) / 2,
                "precision": tp / (tp + fp),
                "recall": recall,
                "f1": 2 * tp / (2 * tp + fp + fn),
                "f1_resistant": 2 * tn / (2 * tn + fp + fn),
                "mcc": np.where(pos * neg > 0, mcc, np.nan),
                "brier": (weights @ self.brier) / n,
                "ece": np.abs(weights @ self.gap).sum(axis=1) / n,
                "log_loss": (weights @ self.log_loss) / n,
            }
        return {name: out[name] for name in METRICS}

    def _average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Area under the precision-recall steps, ties taken together (as scikit-learn does)."""
        order = np.argsort(-self.prob, kind="stable")
        group, y, prob = self.index[order], self.y[order], self.prob[order]
        last = np.flatnonzero(np.append(prob[1:] != prob[:-1], True)) if len(prob) else np.zeros(0, dtype=np.int64)
        out = np.full(len(weights), np.nan)
        step = max(1, _CHUNK // max(len(prob), 1))
        for start in range(0, len(weights) if len(prob) else 0, step):
            cells = weights[start : start + step, group]
            tp, called = np.cumsum(cells * y, axis=1)[:, last], np.cumsum(cells, axis=1)[:, last]
            with np.errstate(divide="ignore", invalid="ignore"):
                precision = np.where(called > 0, tp / called, 0.0)
                out[start : start + step] = (np.diff(tp, axis=1, prepend=0.0) * precision).sum(axis=1) / tp[:, -1]
        return out


@dataclass(frozen=True)
class Auroc:
    """AUROC with its variance between samples and the degrees of freedom of that variance.

    `scores_per_class` is set when every sample is a single score.
    """

    value: float
    variance: float
    df: float
    floor: float
    n_groups: int
    scores_per_class: tuple[int, int] | None = None

    def interval(self, level: float = 0.95) -> Interval:
        """Confidence interval."""
        from scipy.stats import norm, t

        if not np.isfinite(self.variance):
            return Interval(self.value, float("nan"), float("nan"), self.n_groups)
        if self.scores_per_class:
            low, high = newcombe(self.value, *self.scores_per_class, float(norm.ppf((1 + level) / 2)))
            return Interval(self.value, low, high, self.n_groups)
        # An observed 0 or 1 has no logit: move it by half of one pair of samples.
        center = float(np.clip(self.value, self.floor, 1 - self.floor))
        half = float(t.ppf((1 + level) / 2, max(self.df, 1.0))) * np.sqrt(self.variance) / (center * (1 - center))
        logit = np.log(center / (1 - center))
        low, high = (float(1 / (1 + np.exp(-(logit + sign * half)))) for sign in (-1, 1))
        return Interval(self.value, min(low, self.value), max(high, self.value), self.n_groups)


def newcombe(auroc: float, n_sensitive: int, n_resistant: int, z: float) -> tuple[float, float]:
    """Score interval of an AUROC of independent scores: all values that lie within `z` of their own standard errors.

    Method 5 of Newcombe (2006), built on the variance of Hanley and McNeil.
    """
    theta = np.linspace(0, 1, 20_001)
    half_n = (n_sensitive + n_resistant) / 2 - 1
    spread = theta * (1 - theta) * (1 + half_n * ((1 - theta) / (2 - theta) + theta / (1 + theta)))
    inside = theta[np.abs(auroc - theta) <= z * np.sqrt(spread / (n_sensitive * n_resistant)) + 1e-12]
    low, high = (float(inside[0]), float(inside[-1])) if len(inside) else (auroc, auroc)
    return min(low, auroc), max(high, auroc)


def clustered_auroc(sums: GroupSums) -> Auroc:
    """AUROC over cells with the variance that follows from how samples (not cells) vary.

    The influence of a sample is what its sensitive cells win beyond the average, plus what its resistant cells lose;
    its spread between samples of one kind (sensitive, resistant, mixed) gives the variance (Obuchowski 1997).
    """
    n_pos, n_neg = sums.pos.sum(), sums.neg.sum()
    if n_pos == 0 or n_neg == 0:
        nan = float("nan")
        return Auroc(nan, nan, nan, nan, sums.n_groups)
    value = sums.kernel.sum() / (n_pos * n_neg)
    influence = (sums.kernel.sum(axis=1) / n_neg - sums.pos * value) / n_pos
    influence = influence + (sums.kernel.sum(axis=0) / n_pos - sums.neg * value) / n_neg
    parts, dfs = [], []
    for stratum in sums.strata:
        k = len(stratum)
        values = influence[stratum]
        parts.append(k / (k - 1) * float(((values - values.mean()) ** 2).sum()) if k > 1 else float("nan"))
        dfs.append(k - 1)
    k_pos, k_neg = int((sums.pos > 0).sum()), int((sums.neg > 0).sum())
    floor = 1 / (2 * k_pos * k_neg + 2)
    variance = max(sum(parts), _smallest_variance(value, k_pos, k_neg, sums))
    squares = sum(part**2 / df if df else float("nan") for part, df in zip(parts, dfs))
    df = sum(parts) ** 2 / squares if squares > 0 else float(sum(dfs))
    if not np.isfinite(sum(parts)):
        variance = df = float("nan")
    single = (k_pos, k_neg) if len(sums.y) == sums.n_groups else None
    return Auroc(float(value), float(variance), float(df), floor, sums.n_groups, single)


def _smallest_variance(value: float, k_pos: int, k_neg: int, sums: GroupSums) -> float:
    """Hanley-McNeil variance of `k` against `k` samples, scaled by the share of the spread that lies between samples.

    Few samples that happen to be separated completely show no spread at all; this keeps their interval honest.
    """
    from scipy.stats import rankdata

    center = float(np.clip(value, 1 / (2 * k_pos * k_neg + 2), 1 - 1 / (2 * k_pos * k_neg + 2)))
    return hanley_mcneil(center, k_pos, k_neg) * _between_share(rankdata(sums.prob), sums.y, sums.index)


def _between_share(rank: np.ndarray, y: np.ndarray, index: np.ndarray) -> float:
    """Share of the variance within a class that lies between samples (ICC, one-way ANOVA); 1 for one cell each."""
    unit = np.unique(index * 2 + y, return_inverse=True)[1]
    n = np.bincount(unit)
    mean = np.bincount(unit, rank) / n
    label = np.zeros(len(n))
    label[unit] = y
    between, df_between = 0.0, 0
    for kind in (0, 1):
        members = label == kind
        center = np.average(mean[members], weights=n[members])
        between += float((n[members] * (mean[members] - center) ** 2).sum())
        df_between += int(members.sum()) - 1
    df_within = len(rank) - len(n)
    if df_within <= 0 or df_between <= 0:
        return 1.0
    ms_within, ms_between = float(((rank - mean[unit]) ** 2).sum()) / df_within, between / df_between
    typical = (len(rank) - (n**2).sum() / len(rank)) / max(len(n) - 1, 1)
    part = max(ms_between - ms_within, 0.0) / max(typical, 1.0)
    return part / (part + ms_within) if part + ms_within > 0 else 1.0


def hanley_mcneil(auroc: float, n_sensitive: int, n_resistant: int) -> float:
    """Variance of an AUROC of independent scores (Hanley and McNeil 1982)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    top = auroc * (1 - auroc) + (n_sensitive - 1) * (q1 - auroc**2) + (n_resistant - 1) * (q2 - auroc**2)
    return max(top, 0.0) / (n_sensitive * n_resistant)


def macro_auroc(parts: list[Auroc]) -> Auroc:
    """Mean AUROC over data sets; their variances add up, their samples are independent."""
    defined = [part for part in parts if np.isfinite(part.value)]
    n_groups = sum(part.n_groups for part in parts)
    if not defined:
        nan = float("nan")
        return Auroc(nan, nan, nan, nan, n_groups)
    k = len(defined)
    variance = sum(part.variance for part in defined) / k**2
    squares = sum((part.variance / k**2) ** 2 / max(part.df, 1.0) for part in defined)
    df = variance**2 / squares if squares > 0 else float(sum(part.df for part in defined))
    return Auroc(sum(part.value for part in defined) / k, variance, df, min(p.floor for p in defined) / k, n_groups)


def point_metrics(y: np.ndarray, prob: np.ndarray) -> dict[str, float]:
    """The values of `metrics.classification_metrics`, twenty times faster: for many repetitions."""
    sums = GroupSums(y, prob, np.zeros(len(y), dtype=np.int64))
    if not len(y):
        return dict.fromkeys(METRICS, float("nan"))
    return {metric: float(values[0]) for metric, values in sums.metrics(np.ones((1, 1))).items()}


def metric_intervals(
    y: np.ndarray,
    prob: np.ndarray,
    groups: np.ndarray,
    datasets: np.ndarray | None = None,
    *,
    n_boot: int = 1000,
    level: float = 0.95,
    method: BootstrapMethod = "percentile",
    rng: np.random.Generator | int = 0,
) -> dict[str, dict[str, Interval]]:
    """Every metric with its interval, per data set and averaged over data sets.

    Parameters
    ----------
    y, prob
        Label (1 sensitive, 0 resistant) and P(sensitive) of each cell, or of each sample.
    groups
        Independent unit of each cell.
    datasets
        Data set of each cell. `None` means one.
    n_boot
        Bootstrap draws.
    level
        Nominal coverage.
    method
        `'percentile'` or `'bca'`, for all metrics but AUROC.
    rng
        Seed or generator.

    Returns
    -------
    Data set to metric to :class:`Interval`; the average stands under `'macro'`.

    Raises
    ------
    ValueError
        Shapes differ, values are out of range or the method is unknown.
    """
    if method not in ("percentile", "bca"):
        msg = f"Expected method 'percentile' or 'bca', found {method!r}."
        raise ValueError(msg)
    rng = np.random.default_rng(rng)
    y, prob, groups = np.asarray(y), np.asarray(prob), np.asarray(groups)
    datasets = np.zeros(len(y), dtype=int).astype(str) if datasets is None else np.asarray(datasets).astype(str)
    out: dict[str, dict[str, Interval]] = {}
    draws, jackknives, points, aurocs, n_groups = [], [], [], [], []
    for name in np.unique(datasets):
        rows = datasets == name
        sums = GroupSums(y[rows], prob[rows], groups[rows])
        point = {metric: float(values[0]) for metric, values in sums.metrics(np.ones((1, sums.n_groups))).items()}
        drawn = sums.metrics(sums.draws(n_boot, rng)) if sums.resamplable and n_boot else {}
        left_out = sums.metrics(1 - np.eye(sums.n_groups)) if drawn and method == "bca" else {}
        auroc = clustered_auroc(sums)
        out[str(name)] = _intervals(point, drawn, left_out, sums.n_groups, level) | {"auroc": auroc.interval(level)}
        draws.append(drawn)
        jackknives.append(left_out)
        points.append(point)
        aurocs.append(auroc)
        n_groups.append(sums.n_groups)
    if len(points) == 1:
        out[MACRO] = dict(next(iter(out.values())))
        return out
    with np.errstate(invalid="ignore"):
        mean = {m: _nanmean([np.array([p[m]]) for p in points])[0] for m in METRICS} if points else {}
        usable = [drawn for drawn in draws if drawn]
        # A data set without an interval would enter as if it were known exactly.
        drawn = {m: _nanmean([d[m] for d in usable]) for m in METRICS} if len(usable) == len(points) and points else {}
    out[MACRO] = _intervals(mean, drawn, {}, sum(n_groups), level) | {"auroc": macro_auroc(aurocs).interval(level)}
    return out


def _nanmean(arrays: list[np.ndarray]) -> np.ndarray:
    stack = np.stack(arrays)
    count = np.isfinite(stack).sum(axis=0)
    return np.where(count > 0, np.nansum(stack, axis=0) / np.maximum(count, 1), np.nan)


def _intervals(
    point: dict[str, float],
    drawn: dict[str, np.ndarray],
    left_out: dict[str, np.ndarray],
    n_groups: int,
    level: float,
) -> dict[str, Interval]:
    out = {}
    for metric, value in point.items():
        low = high = float("nan")
        values = drawn[metric][np.isfinite(drawn[metric])] if metric in drawn else np.zeros(0)
        if len(values) and np.isfinite(value):
            tails = np.array([(1 - level) / 2, (1 + level) / 2])
            if left_out:
                tails = _bca_tails(value, values, left_out[metric], tails)
            low, high = (float(q) for q in np.quantile(values, tails))
        out[metric] = Interval(value, low, high, n_groups)
    return out


def _bca_tails(value: float, values: np.ndarray, left_out: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Quantiles corrected for bias and for a spread that changes with the value (Efron 1987)."""
    from scipy.stats import norm

    below = (np.sum(values < value) + np.sum(values == value) / 2) / len(values)
    z0 = norm.ppf(np.clip(below, 1 / (2 * len(values)), 1 - 1 / (2 * len(values))))
    shift = np.nanmean(left_out) - left_out[np.isfinite(left_out)]
    scale = 6 * np.sum(shift**2) ** 1.5
    acceleration = np.sum(shift**3) / scale if scale > 0 else 0.0
    z = z0 + norm.ppf(tails)
    return norm.cdf(z0 + z / (1 - acceleration * z))
