"""Confidence intervals of every metric whose unit is the group (patient, cell line), never the cell.

AUROC: see :mod:`.auroc`. All other metrics: percentile bootstrap of groups, stratified by class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .auroc import LEVEL, Interval, clustered_auroc, macro_interval
from .groups import bootstrap_counts, encode_groups, majority_classes
from .metrics import METRICS, GroupSums, macro_average

if TYPE_CHECKING:
    from .groups import FloatArray

MACRO = "macro"
"""Name of the average over data sets."""


def metric_intervals(
    y: np.ndarray,
    prob: np.ndarray,
    groups: np.ndarray,
    datasets: np.ndarray | None = None,
    *,
    score: np.ndarray | None = None,
    cross_validated: bool = False,
    n_boot: int = 1000,
    rng: np.random.Generator | int = 0,
) -> dict[str, dict[str, Interval]]:
    """Every metric with its 95 % interval, per data set and averaged over data sets.

    Parameters
    ----------
    y, prob
        Label (1 sensitive, 0 resistant) and P(sensitive) of each cell, or of each group.
    groups
        Independent unit of each cell.
    datasets
        Data set of each cell. `None` means one.
    score
        What AUROC and AUPRC rank by, where it is not `prob`.
    cross_validated
        Whether heads were learned from the other groups, see :meth:`~sc_drugresp._stats.auroc.Auroc.interval`.
    n_boot
        Bootstrap draws.
    rng
        Seed or generator.

    Returns
    -------
    Data set to metric to :class:`Interval`; the average stands under `'macro'`.
    """
    rng = np.random.default_rng(rng)
    datasets = np.full(len(y), "all") if datasets is None else datasets.astype(str)
    out: dict[str, dict[str, Interval]] = {}
    draws, points, aurocs = [], [], []
    for name in np.unique(datasets):
        rows = datasets == name
        sums = GroupSums(y[rows], prob[rows], groups[rows], None if score is None else score[rows])
        point = {metric: float(values[0]) for metric, values in sums.metrics(np.ones((1, sums.n_groups))).items()}
        drawn = _bootstrap(sums, n_boot, rng)
        auroc = clustered_auroc(sums).interval(cross_validated=cross_validated)
        out[str(name)] = _intervals(point, drawn, sums.n_groups) | {"auroc": auroc}
        draws.append(drawn)
        points.append(point)
        aurocs.append(auroc)
    if len(points) == 1:
        return out | {MACRO: dict(next(iter(out.values())))}
    # A data set without draws has no interval; it must not enter as if it were known exactly.
    mean_drawn = {m: _nanmean([drawn[m] for drawn in draws]) for m in METRICS} if all(draws) else {}
    whole = macro_interval(aurocs)
    return out | {MACRO: _intervals(macro_average(points), mean_drawn, whole.n_groups) | {"auroc": whole}}


def share_intervals(
    hits: np.ndarray,
    of: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    datasets: np.ndarray,
    *,
    n_boot: int = 1000,
    rng: np.random.Generator | int = 0,
) -> dict[str, Interval]:
    """The share `sum(hits) / sum(of)` with its 95 % interval, per data set and averaged over data sets (`'macro'`).

    Parameters
    ----------
    hits, of
        What is counted, and among what, for each cell.
    y, groups, datasets, n_boot, rng
        As in :func:`metric_intervals`; groups are redrawn within their class.
    """
    rng, out, draws = np.random.default_rng(rng), {}, []
    for name in np.unique(datasets):
        rows = datasets == name
        codes, names = encode_groups(groups[rows])
        sums = [np.bincount(codes, values[rows].astype(float), len(names)) for values in (hits, of)]
        strata = majority_classes(y[rows], codes, len(names))
        enough = n_boot and np.unique(strata, return_counts=True)[1].min() > 1
        counts = np.vstack([np.ones(len(names)), *([bootstrap_counts(strata, n_boot, rng)] if enough else [])])
        with np.errstate(divide="ignore", invalid="ignore"):
            value, *drawn = (counts @ sums[0]) / (counts @ sums[1])
        draws.append({"share": np.array(drawn)} if enough else {})
        out[str(name)] = _intervals({"share": float(value)}, draws[-1], len(names))["share"]
    if len(out) == 1:
        return out | {MACRO: next(iter(out.values()))}
    mean_drawn = {"share": _nanmean([drawn["share"] for drawn in draws])} if all(draws) else {}
    value = float(_nanmean([np.array([interval.value]) for interval in out.values()])[0])
    n_groups = sum(interval.n_groups for interval in out.values())
    return out | {MACRO: _intervals({"share": value}, mean_drawn, n_groups)["share"]}


def _bootstrap(sums: GroupSums, n_boot: int, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Every metric in every draw; nothing where a single group of a kind says nothing about how groups vary."""
    if not n_boot or np.unique(sums.strata, return_counts=True)[1].min() < 2:
        return {}
    return sums.metrics(bootstrap_counts(sums.strata, n_boot, rng))


def _nanmean(arrays: list[FloatArray]) -> FloatArray:
    stack = np.stack(arrays)
    count = np.isfinite(stack).sum(axis=0)
    return np.where(count > 0, np.nansum(stack, axis=0) / np.maximum(count, 1), np.nan)


def _intervals(point: dict[str, float], drawn: dict[str, FloatArray], n_groups: int) -> dict[str, Interval]:
    out = {}
    for metric, value in point.items():
        low = high = float("nan")
        values = drawn[metric][np.isfinite(drawn[metric])] if drawn else np.zeros(0)
        if len(values) and np.isfinite(value):
            low, high = (float(q) for q in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
        out[metric] = Interval(value, low, high, n_groups)
    return out
