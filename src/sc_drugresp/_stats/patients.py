"""From cells to samples (patients): mean, worst clone, and intervals whose unit is the sample.

A tumor survives through its least sensitive clone, so the score of a patient can be that of the worst clone (as PERCEPTION
does: Sinha et al. 2024, Nature Cancer). Small clones are noisy and the minimum seeks noise, hence shrinkage and a least
clone size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit

from .groups import encode_groups
from .state import State

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from .groups import FloatArray

N0 = 20.0
"""Cells at which the mean of a clone and that of its sample weigh the same."""
MIN_CLONE = 0.05
_CLIP = 1e-3
_CHUNK = 2_000_000


@dataclass(frozen=True, eq=False)
class SampleSpread(State):
    """How much scores of samples with the same response differ, learned from held-out training samples."""

    between_sd: float
    """Standard deviation of the logit of a sample's mean P(sensitive) within a class, cell sampling removed."""
    df: int
    n_samples: int


def fit_spread(prob: ArrayLike, y: ArrayLike, groups: ArrayLike) -> SampleSpread:
    """Estimate the spread between samples of one class by the method of moments.

    Parameters
    ----------
    prob
        P(sensitive) of held-out training cells.
    y
        1 = sensitive, 0 = resistant.
    groups
        Sample of each cell.

    Returns
    -------
    The spread; `between_sd` is `NaN` if no class has two samples.
    """
    p = np.asarray(prob, dtype=np.float64)
    codes, names = encode_groups(groups)
    units, index = np.unique(codes * 2 + np.asarray(y), return_inverse=True)
    size = np.bincount(index)
    mean = np.clip(np.bincount(index, weights=p) / size, _CLIP, 1 - _CLIP)
    noise = np.bincount(index, weights=np.square(p - mean[index])) / np.maximum(size - 1, 1) / size
    # Delta method: variance of the logit of a mean.
    noise = noise / np.square(mean * (1 - mean))
    score, squares, df = logit(mean), 0.0, 0
    for k in (0, 1):
        own = units % 2 == k
        squares += float(np.square(score[own] - score[own].mean()).sum()) if own.any() else 0.0
        df += max(int(own.sum()) - 1, 0)
    between = max(squares / df - float(noise.mean()), 0.0) if df > 0 else np.nan
    return SampleSpread(float(np.sqrt(between)), df, len(names))


def sample_means(
    values: ArrayLike, groups: ArrayLike, names: ArrayLike | None = None
) -> tuple[NDArray[Any], FloatArray]:
    """Names of the groups, sorted or as given, and the mean of the values of each; `NaN` for one without a value."""
    z, own = np.asarray(values, dtype=np.float64), np.asarray(groups)
    known = np.isfinite(z)
    wanted, index = np.unique(own, return_inverse=True)
    n = np.bincount(index[known], minlength=len(wanted))
    total = np.bincount(index[known], z[known], minlength=len(wanted))
    mean = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    if names is None:
        return wanted, mean
    return np.asarray(names), mean[np.searchsorted(wanted, np.asarray(names))]


def aggregate_samples(
    prob: ArrayLike,
    groups: ArrayLike,
    *,
    limits: tuple[ArrayLike, ArrayLike] | None = None,
    clones: ArrayLike | None = None,
    spread: SampleSpread | None = None,
    n_boot: int = 200,
    rng: np.random.Generator | int = 0,
) -> pd.DataFrame:
    """Score samples by their mean and by their worst clone, with 90 % intervals.

    The mean of a clone of `n` cells is shrunk to the mean of its sample with weight `n / (n + 20)`; the worst clone is the
    one with the smallest shrunk P(sensitive) among clones that hold at least 5 % of the cells. Intervals join
    a bootstrap of cells within clones, the spread between samples in training, and the uncertainty of the calibration, on the
    logit scale.

    Parameters
    ----------
    prob
        P(sensitive) of cells, shape `(n,)`; cells without a score (`NaN`) are counted and left out.
    groups
        Sample of each cell.
    limits
        Lower and upper limit of P(sensitive) of each cell that follow from the uncertainty of the calibration.
    clones
        Clone or cluster of each cell. `None` means one clone per sample.
    spread
        From :func:`fit_spread`. Without it the interval covers the choice of cells alone (column `interval`).
    n_boot
        Number of redraws of cells.
    rng
        Seed or generator.

    Returns
    -------
    One row per sample, sorted: `n_cells`, `n_missing`, `mean`, `mean_low`, `mean_high`, `worst`, `worst_low`,
    `worst_high`, `worst_clone`, `n_clones`, `fraction_sensitive`, `interval`.

    Examples
    --------
    >>> table = aggregate_samples([0.9] * 80 + [0.1] * 20, ["p"] * 100, clones=["a"] * 80 + ["b"] * 20)
    >>> table[["mean", "worst", "worst_clone"]].round(2).values.tolist()
    [[0.74, 0.42, 'b']]
    """
    import pandas as pd
    from scipy.stats import norm, t

    p = np.asarray(prob, dtype=np.float64)
    codes, names = encode_groups(groups)
    clone_names = np.full(len(p), "all") if clones is None else np.asarray(clones).astype(str)
    rng = np.random.default_rng(rng)
    low, high = (p, p) if limits is None else (np.asarray(limit, dtype=np.float64) for limit in limits)
    between, quantile, covers = 0.0, norm.ppf(0.95), "cells only"
    if spread is not None and np.isfinite(spread.between_sd):
        between, covers = spread.between_sd**2, "cells and samples"
        quantile = t.ppf(0.95, df=max(spread.df, 1))
    rows = []
    for index in range(len(names)):
        own = np.flatnonzero(codes == index)
        cells = own[np.isfinite(p[own])]
        row: dict[str, Any] = {"n_cells": len(own), "n_missing": len(own) - len(cells)}
        if len(cells):
            mean, worst, name, n_clones, draws = _one_sample(p[cells], clone_names[cells], n_boot, rng)
            counts = cells[np.isfinite(low[cells])]
            # All cells share the calibration, so that its uncertainty does not shrink with their number.
            ends = np.clip([low[counts].mean(), high[counts].mean()], _CLIP, 1 - _CLIP) if len(counts) else [0.5, 0.5]
            shared = float(logit(ends[1]) - logit(ends[0])) / 2
            for score, value, drawn in (("mean", mean, draws[0]), ("worst", worst, draws[1])):
                row |= _limits(score, value, drawn, between, quantile, shared)
            row |= {"worst_clone": name, "n_clones": n_clones, "fraction_sensitive": float((p[cells] >= 0.5).mean())}
        rows.append(row | {"interval": covers})
    columns = ["n_cells", "n_missing", "mean", "mean_low", "mean_high", "worst", "worst_low", "worst_high"]
    columns += ["worst_clone", "n_clones", "fraction_sensitive", "interval"]
    return pd.DataFrame(rows, index=pd.Index(names.astype(str), name="sample"), columns=columns)


def _one_sample(
    p: FloatArray, clones: NDArray[np.str_], n_boot: int, rng: np.random.Generator
) -> tuple[float, float, str, int, FloatArray]:
    """Mean, worst clone, its name, number of clones that count, and redraws of both, `(2, n_boot)`."""
    names, code = np.unique(clones, return_inverse=True)
    size = np.bincount(code)
    weight = size / (size + N0)
    shrunk = weight * np.bincount(code, weights=p) / size + (1 - weight) * p.mean()
    # The largest clone counts even where all are small.
    large = np.flatnonzero(size / len(p) >= min(MIN_CLONE, size.max() / len(p)))
    worst = int(large[np.argmin(shrunk[large])])
    drawn = np.empty((len(names), n_boot))
    for clone in range(len(names)):
        own = p[code == clone]
        step = max(1, _CHUNK // len(own))
        for start in range(0, n_boot, step):
            stop = min(start + step, n_boot)
            drawn[clone, start:stop] = own[rng.integers(0, len(own), (stop - start, len(own)))].mean(axis=1)
    whole = size @ drawn / len(p)
    low = (weight[:, None] * drawn + (1 - weight[:, None]) * whole)[large].min(axis=0)
    return float(p.mean()), float(shrunk[worst]), str(names[worst]), len(large), np.stack([whole, low])


def _limits(
    name: str, value: float, draws: FloatArray, between: float, quantile: float, shared: float
) -> dict[str, float]:
    center = float(logit(np.clip(value, _CLIP, 1 - _CLIP)))
    variance = float(np.var(logit(np.clip(draws, _CLIP, 1 - _CLIP)))) if len(draws) > 1 else 0.0
    half = np.hypot(quantile * np.sqrt(variance + between), shared)
    low, high = float(expit(center - half)), float(expit(center + half))
    return {name: value, f"{name}_low": min(low, value), f"{name}_high": max(high, value)}
