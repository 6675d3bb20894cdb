"""Held-out probabilities against what was observed: reliability by bin, and risk against coverage.

Source: Geifman & El-Yaniv (2017, arXiv:1705.08500) for risk against coverage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .groups import bootstrap_counts, encode_groups, equal_weights, group_classes, weighted_quantile
from .metrics import THRESHOLD

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from .groups import FloatArray

_LIMITS, _REDRAWS = (0.05, 0.95), 500


def reliability_table(y: ArrayLike, prob: ArrayLike, groups: ArrayLike, *, n_bins: int = 10) -> pd.DataFrame:
    """Compare predicted P(sensitive) with what was observed, bin by bin, every group weighing the same.

    Parameters
    ----------
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    prob
        P(sensitive) of held-out cells, shape `(n,)`.
    groups
        Group (sample) of each cell, shape `(n,)`.
    n_bins
        Most bins, of equal weight; bins without cells are left out.

    Returns
    -------
    One row per bin: `bin_low`, `bin_high`, `predicted`, `observed`, `observed_low`, `observed_high` (90 %, from redrawing
    groups), `weight` (sums to one), `n_cells`, `n_samples`.
    """
    import pandas as pd

    p, labels = np.asarray(prob, dtype=np.float64), np.asarray(y)
    codes, names = encode_groups(groups)
    n_groups, weights = len(names), equal_weights(codes)
    edges = _bin_edges(p, weights, n_bins)
    n_bins = len(edges) - 1
    index = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, n_bins - 1)
    flat, shape = codes * n_bins + index, (n_groups, n_bins)
    mass = np.bincount(flat, weights=weights, minlength=n_groups * n_bins).reshape(shape)
    hits = np.bincount(flat, weights=weights * labels, minlength=n_groups * n_bins).reshape(shape)
    counts = bootstrap_counts(group_classes(labels, codes, n_groups), _REDRAWS, np.random.default_rng(0))
    drawn = counts @ mass
    # A draw in which no group reaches the bin says nothing about it.
    observed = np.ma.masked_invalid(np.divide(counts @ hits, drawn, out=np.full_like(drawn, np.nan), where=drawn > 0))
    rows = []
    for b in np.flatnonzero(mass.sum(0) > 0):
        seen = observed[:, b].compressed()
        low, high = np.quantile(seen, _LIMITS) if len(seen) else (np.nan, np.nan)
        rows.append(
            {
                "bin_low": edges[b],
                "bin_high": edges[b + 1],
                "predicted": np.average(p[index == b], weights=weights[index == b]),
                "observed": hits[:, b].sum() / mass[:, b].sum(),
                "observed_low": low,
                "observed_high": high,
                "weight": mass[:, b].sum() / mass.sum(),
                "n_cells": int((index == b).sum()),
                "n_samples": int((mass[:, b] > 0).sum()),
            }
        )
    return pd.DataFrame(rows)


def _bin_edges(p: FloatArray, weights: FloatArray, n_bins: int) -> FloatArray:
    """Limits of bins of equal weight."""
    if p.min() == p.max():
        return np.array([p[0], p[0] + 1])
    inner = [weighted_quantile(p, weights, level) for level in np.linspace(0, 1, n_bins + 1)[1:-1]]
    return np.unique([p.min(), *inner, p.max()])


def risk_coverage(y: ArrayLike, prob: ArrayLike, groups: ArrayLike, *, n_points: int = 100) -> pd.DataFrame:
    """Trade the share of cells that are called against the error among them, every group weighing the same.

    Parameters
    ----------
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    prob
        P(sensitive) of held-out cells; confidence is its distance from 0.5.
    groups
        Group (sample) of each cell.
    n_points
        Most rows of the table.

    Returns
    -------
    Rows by decreasing confidence: `coverage`, `risk`, `confidence`, `n_cells`. Cells of equal confidence enter together,
    so that their order cannot matter.

    Examples
    --------
    >>> curve = risk_coverage([1, 1, 0, 0], [0.9, 0.6, 0.7, 0.2], ["a", "b", "c", "d"])
    >>> curve["risk"].round(2).tolist()
    [0.0, 0.0, 0.33, 0.25]
    """
    import pandas as pd

    p, labels = np.asarray(prob, dtype=np.float64), np.asarray(y)
    weights = equal_weights(encode_groups(groups)[0])
    weights = weights / weights.sum()
    wrong = ((p >= THRESHOLD) != (labels == 1)) * weights
    # Rounding: 0.9 and 0.1 are equally confident although their floats differ from 0.5 by different amounts.
    confidence = np.round(np.abs(p - THRESHOLD), 12)
    level, index = np.unique(-confidence, return_inverse=True)
    coverage = np.cumsum(np.bincount(index, weights=weights))
    risk = np.cumsum(np.bincount(index, weights=wrong)) / coverage
    cells = np.cumsum(np.bincount(index))
    rows = np.unique(np.linspace(0, len(level) - 1, min(n_points, len(level))).round().astype(int))
    return pd.DataFrame(
        {"coverage": coverage[rows], "risk": risk[rows], "confidence": -level[rows] + 0.5, "n_cells": cells[rows]}
    )
