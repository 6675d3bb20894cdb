"""AUROC with a confidence interval whose unit is the group (patient, cell line), never the cell.

Newcombe's score interval (2006, method 5) of as many independent scores as there are groups, scaled over cells by the
variance of the Mann-Whitney statistic of clustered data (Obuchowski 1997), with Student quantiles whose degrees of freedom
follow Satterthwaite. With 8 to 32 groups it covers the truth close to its nominal rate, which the percentile bootstrap over
groups does not (0.69 to 0.86 instead of 0.95 at 4 against 4), and near 0 and 1 it is far narrower than an interval on the
logit scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .groups import FloatArray, IntArray
    from .metrics import GroupSums

LEVEL = 0.95
"""Nominal coverage of every interval."""
LEARNING_VARIANCE = 1.75
"""Variance of a cross-validated AUROC in units of what groups alone explain; the rest is that other groups would have
taught other heads. It is larger than one (Bates, Hastie and Tibshirani 2023, arXiv:2104.00673); its size is set such that
the final head is covered in simulations (benchmarks/coverage.py)."""


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval; `low` and `high` are NaN where too few samples allow none."""

    value: float
    low: float
    high: float
    n_groups: int

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Auroc:
    """AUROC with its variance between groups.

    Parameters
    ----------
    value
        The AUROC.
    variance
        Its variance.
    df
        Degrees of freedom of the variance.
    per_class
        Groups with a sensitive and with a resistant cell.
    n_groups
        Groups in all.
    single
        Whether every group is a single score.
    """

    value: float
    variance: float
    df: float
    per_class: tuple[int, int]
    n_groups: int
    single: bool = False

    @classmethod
    def undefined(cls, n_groups: int) -> Auroc:
        """The AUROC of a single class."""
        return cls(np.nan, np.nan, np.nan, (0, 0), n_groups)

    def interval(self, *, cross_validated: bool = False) -> Interval:
        """Confidence interval of 95 %.

        Parameters
        ----------
        cross_validated
            Whether the scores come from heads that were learned from the other groups. Learned from other groups they
            would have been other heads; the interval then allows for that and covers the AUROC, among new groups, of a
            head learned from as many.
        """
        from scipy.stats import norm, t

        if not np.isfinite(self.variance):
            return Interval(self.value, np.nan, np.nan, self.n_groups)
        level = (1 + LEVEL) / 2
        if self.single:
            width = float(norm.ppf(level))
        else:
            # How much more, or less, the groups vary than as many independent scores would.
            ratio = self.variance / hanley_mcneil(_inside(self.value, *self.per_class), *self.per_class)
            width = float(t.ppf(level, max(self.df, 1.0))) * np.sqrt(ratio)
        low, high = newcombe(
            self.value, *self.per_class, width * np.sqrt(LEARNING_VARIANCE if cross_validated else 1.0)
        )
        return Interval(self.value, low, high, self.n_groups)


def _inside(auroc: float, n_sensitive: int, n_resistant: int) -> float:
    """An observed 0 or 1 is moved by half of one pair of groups: completely separated groups would show no spread."""
    floor = 1 / (2 * n_sensitive * n_resistant + 2)
    return float(np.clip(auroc, floor, 1 - floor))


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
    """AUROC over cells with the variance that follows from how groups (not cells) vary.

    The influence of a group is what its sensitive cells win beyond the average, plus what its resistant cells lose;
    its spread between groups of one kind (sensitive, resistant, mixed) gives the variance (Obuchowski 1997). It is never
    below that of Hanley and McNeil for as many groups, scaled by the share of the spread that lies between groups.
    """
    from scipy.stats import rankdata

    n_pos, n_neg = sums.pos.sum(), sums.neg.sum()
    if n_pos == 0 or n_neg == 0:
        return Auroc.undefined(sums.n_groups)
    value, influence = _influence(sums)
    parts, df = _spread(influence, sums.strata)
    per_class = int((sums.pos > 0).sum()), int((sums.neg > 0).sum())
    # Few groups that happen to be separated completely show no spread at all; this keeps their interval honest.
    between = _between_share(rankdata(sums.score), sums.y, sums.index)
    variance = max(sum(parts), hanley_mcneil(_inside(value, *per_class), *per_class) * between)
    if not np.isfinite(sum(parts)):
        variance = df = float("nan")
    single = len(sums.y) == sums.n_groups
    return Auroc(float(value), float(variance), float(df), per_class, sums.n_groups, single)


def _influence(sums: GroupSums) -> tuple[float, FloatArray]:
    """AUROC over cells, and what each group adds to it beyond the average."""
    n_pos, n_neg = sums.pos.sum(), sums.neg.sum()
    value = sums.kernel.sum() / (n_pos * n_neg)
    influence = (sums.kernel.sum(axis=1) / n_neg - sums.pos * value) / n_pos
    return float(value), influence + (sums.kernel.sum(axis=0) / n_pos - sums.neg * value) / n_neg


def _spread(influence: FloatArray, strata: IntArray) -> tuple[list[float], float]:
    """Part of each kind of group in the variance, NaN for a single group, and Satterthwaite's degrees of freedom."""
    parts, dfs = [], []
    for stratum in np.unique(strata):
        values = influence[strata == stratum]
        k = len(values)
        parts.append(k / (k - 1) * float(((values - values.mean()) ** 2).sum()) if k > 1 else float("nan"))
        dfs.append(k - 1)
    squares = sum(part**2 / df if df else float("nan") for part, df in zip(parts, dfs))
    return parts, sum(parts) ** 2 / squares if squares > 0 else float(sum(dfs))


def auroc_difference(first: GroupSums, second: GroupSums) -> Interval:
    """AUROC of the first scores minus that of the second ones, of the same cells, with its interval of 95 %.

    The spread of the differences between groups gives the variance, as in :func:`clustered_auroc`, with Student quantiles.
    The limits are NaN where a class has a single group, or where the differences show no spread although scores differ.
    """
    from scipy.stats import t

    (value, influence), (other, others) = _influence(first), _influence(second)
    parts, df = _spread(influence - others, first.strata)
    variance = float(sum(parts))
    n, gap = first.n_groups, value - other
    if np.array_equal(first.score, second.score):
        return Interval(0.0, 0.0, 0.0, n)
    if not variance > 1e-24:  # NaN as well
        return Interval(gap, np.nan, np.nan, n)
    half = float(t.ppf((1 + LEVEL) / 2, max(df, 1.0))) * np.sqrt(variance)
    return Interval(gap, max(gap - half, -1.0), min(gap + half, 1.0), n)


def _between_share(rank: FloatArray, y: IntArray, index: IntArray) -> float:
    """Share of the variance within a class that lies between groups (ICC, one-way ANOVA); 1 for one cell each."""
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


def macro_interval(parts: list[Interval]) -> Interval:
    """Mean AUROC over data sets, which are independent, with limits that follow from theirs (MOVER: Zou and Donner 2008).

    It is never wider than its parts are on average. A part with a value but without limits may be anything from 0 to 1.
    """
    n_groups = sum(part.n_groups for part in parts)
    defined = [part for part in parts if np.isfinite(part.value)]
    if not any(np.isfinite(part.low) for part in defined):
        value = float(np.mean([part.value for part in defined])) if defined else float("nan")
        return Interval(value, np.nan, np.nan, n_groups)
    values = np.array([part.value for part in defined])
    below = values - np.nan_to_num([part.low for part in defined], nan=0.0)
    above = np.nan_to_num([part.high for part in defined], nan=1.0) - values
    mean, k = float(values.mean()), len(values)
    return Interval(mean, float(mean - np.linalg.norm(below) / k), float(mean + np.linalg.norm(above) / k), n_groups)
