"""From cells to patients: mean, worst clone, and intervals whose unit is the sample.

A tumor survives through its least sensitive clone, so the score of a patient can be that of the worst clone (as PERCEPTION
does: Sinha et al. 2024, Nature Cancer). Small clones are noisy and the minimum seeks noise, hence shrinkage and a least
clone size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit

from .groups import State, check_labels, check_scores, encode_groups

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from .groups import FloatArray, IntArray

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
    p = check_scores(prob, "prob")
    labels = check_labels(y, len(p))
    codes, names = encode_groups(groups, len(p))
    units, index = np.unique(codes * 2 + labels, return_inverse=True)
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


def aggregate_samples(
    prob: ArrayLike,
    groups: ArrayLike,
    *,
    clones: ArrayLike | None = None,
    n0: float = N0,
    min_fraction: float = MIN_CLONE,
    spread: SampleSpread | None = None,
    level: float = 0.9,
    n_boot: int = 200,
    rng: np.random.Generator | int = 0,
) -> pd.DataFrame:
    """Score samples by their mean and by their worst clone, with intervals.

    The mean of a clone of `n` cells is shrunk to the mean of its sample with weight `n / (n + n0)`; the worst clone is the
    one with the smallest shrunk P(sensitive) among clones that hold at least `min_fraction` of the cells. Intervals join
    a bootstrap of cells within clones with the spread between samples in training, on the logit scale.

    Parameters
    ----------
    prob
        P(sensitive) of cells, shape `(n,)`; cells without a score (`NaN`) are counted and left out.
    groups
        Sample of each cell.
    clones
        Clone or cluster of each cell, see :func:`find_clones`. `None` means one clone per sample.
    n0
        Cells at which clone and sample weigh the same.
    min_fraction
        Least share of a sample's cells that makes a clone count.
    spread
        From :func:`fit_spread`. Without it the interval covers the choice of cells alone (column `interval`).
    level
        Of the intervals.
    n_boot
        Number of redraws of cells.
    rng
        Seed or generator.

    Returns
    -------
    One row per sample, sorted: `n_cells`, `n_missing`, `mean`, `mean_low`, `mean_high`, `worst`, `worst_low`,
    `worst_high`, `worst_clone`, `n_clones`, `fraction_sensitive`, `interval`.

    Raises
    ------
    ValueError
        A probability is outside 0..1, or shapes differ.

    Examples
    --------
    >>> table = aggregate_samples([0.9] * 80 + [0.1] * 20, ["p"] * 100, clones=["a"] * 80 + ["b"] * 20)
    >>> table[["mean", "worst", "worst_clone"]].round(2).values.tolist()
    [[0.74, 0.42, 'b']]
    """
    import pandas as pd
    from scipy.stats import norm, t

    p = _probabilities(prob)
    codes, names = encode_groups(groups, len(p))
    clone_names = np.full(len(p), "all") if clones is None else np.asarray(clones).astype(str)
    if clone_names.shape != p.shape:
        msg = f"`clones` must name the clone of each of {len(p)} cells, found shape {clone_names.shape}."
        raise ValueError(msg)
    rng = np.random.default_rng(rng)
    with_spread = spread is not None and np.isfinite(spread.between_sd)
    between = spread.between_sd**2 if spread is not None and with_spread else 0.0
    quantile = t.ppf(0.5 + level / 2, df=max(spread.df, 1)) if spread and with_spread else norm.ppf(0.5 + level / 2)
    rows = []
    for index in range(len(names)):
        own = np.flatnonzero(codes == index)
        cells = own[np.isfinite(p[own])]
        row: dict[str, Any] = {"n_cells": len(own), "n_missing": len(own) - len(cells)}
        if len(cells):
            mean, worst, name, n_clones, draws = _one_sample(
                p[cells], clone_names[cells], n0=n0, min_fraction=min_fraction, n_boot=n_boot, rng=rng
            )
            row |= _limits("mean", mean, draws[0], between, quantile) | _limits(
                "worst", worst, draws[1], between, quantile
            )
            row |= {"worst_clone": name, "n_clones": n_clones, "fraction_sensitive": float((p[cells] >= 0.5).mean())}
        row["interval"] = "cells and samples" if with_spread else "cells only"
        rows.append(row)
    columns = ["n_cells", "n_missing", "mean", "mean_low", "mean_high", "worst", "worst_low", "worst_high"]
    columns += ["worst_clone", "n_clones", "fraction_sensitive", "interval"]
    return pd.DataFrame(rows, index=pd.Index(names.astype(str), name="sample"), columns=columns)


def clone_table(
    prob: ArrayLike, groups: ArrayLike, clones: ArrayLike, *, n0: float = N0, min_fraction: float = MIN_CLONE
) -> pd.DataFrame:
    """List the clones behind :func:`aggregate_samples`: size, mean and shrunk P(sensitive).

    Parameters
    ----------
    prob
        P(sensitive) of cells.
    groups
        Sample of each cell.
    clones
        Clone of each cell.
    n0
        Cells at which clone and sample weigh the same.
    min_fraction
        Least share of a sample's cells that makes a clone count.

    Returns
    -------
    One row per sample and clone: `sample`, `clone`, `n_cells`, `fraction`, `mean`, `shrunk`, `counts`.
    """
    import pandas as pd

    p = _probabilities(prob)
    codes, names = encode_groups(groups, len(p))
    labels = np.asarray(clones).astype(str)
    rows = []
    for index, sample in enumerate(names):
        own = np.flatnonzero((codes == index) & np.isfinite(p))
        if len(own) == 0:
            continue
        clone, code = np.unique(labels[own], return_inverse=True)
        size, mean, shrunk = _clone_means(p[own], code, n0)
        fraction = size / len(own)
        rows += [
            {
                "sample": str(sample),
                "clone": str(clone[i]),
                "n_cells": int(size[i]),
                "fraction": fraction[i],
                "mean": mean[i],
                "shrunk": shrunk[i],
                "counts": bool(_counts(fraction, min_fraction)[i]),
            }
            for i in range(len(clone))
        ]
    return pd.DataFrame(rows, columns=["sample", "clone", "n_cells", "fraction", "mean", "shrunk", "counts"])


def find_clones(
    X: ArrayLike, groups: ArrayLike, *, max_clones: int = 6, min_silhouette: float = 0.25, rng: int = 0
) -> NDArray[np.str_]:
    """Split the cells of each sample into clusters, as many as stand apart.

    k-means on at most 20 principal components of the sample; the number of clusters is the one with the largest mean
    silhouette, and one if that stays below `min_silhouette`. Clones from copy numbers or lineage barcodes are better.

    Parameters
    ----------
    X
        Embedding, `(n, d)`.
    groups
        Sample of each cell.
    max_clones
        Most clusters per sample.
    min_silhouette
        Least separation that counts as more than one cluster.
    rng
        Seed.

    Returns
    -------
    Names `'0'`, `'1'`, ... within each sample, largest first; shape `(n,)`.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score

    cells = np.asarray(X, dtype=np.float64)
    codes, names = encode_groups(groups, len(cells))
    out = np.zeros(len(cells), dtype=np.intp)
    for index in range(len(names)):
        own = np.flatnonzero(codes == index)
        if len(own) < 40 or not cells[own].std(axis=0).max() > 0:
            continue
        generator = np.random.default_rng([rng, index])
        fit = np.sort(generator.choice(len(own), min(len(own), 2_000), replace=False))
        n_components = min(20, cells.shape[1], len(fit) - 1)
        pca = PCA(n_components, svd_solver="full").fit(cells[own][fit])
        points = pca.transform(cells[own])
        best, best_score = None, min_silhouette
        for k in range(2, max_clones + 1):
            model = KMeans(k, n_init=3, random_state=rng).fit(points[fit])
            score = silhouette_score(points[fit], model.labels_) if len(np.unique(model.labels_)) > 1 else -1.0
            if score > best_score:
                best, best_score = model, score
        if best is not None:
            labels = best.predict(points)
            rank = np.empty(best.n_clusters, dtype=np.intp)
            rank[np.argsort(-np.bincount(labels, minlength=best.n_clusters), kind="stable")] = np.arange(
                best.n_clusters
            )
            out[own] = rank[labels]
    return out.astype(str)


def _probabilities(prob: ArrayLike) -> FloatArray:
    p = check_scores(prob, "prob", allow_nan=True)
    if (p < 0).any() or (p > 1).any():
        msg = f"`prob` must hold probabilities, found values from {np.nanmin(p):.3g} to {np.nanmax(p):.3g}."
        raise ValueError(msg)
    return p


def _counts(fraction: FloatArray, min_fraction: float) -> NDArray[np.bool_]:
    """Clones that are large enough; the largest always is."""
    large = fraction >= min_fraction
    return large if large.any() else fraction == fraction.max()


def _clone_means(p: FloatArray, code: IntArray, n0: float) -> tuple[IntArray, FloatArray, FloatArray]:
    size = np.bincount(code)
    mean = np.bincount(code, weights=p) / size
    weight = size / (size + n0)
    return size, mean, weight * mean + (1 - weight) * p.mean()


def _one_sample(
    p: FloatArray, clones: NDArray[np.str_], *, n0: float, min_fraction: float, n_boot: int, rng: np.random.Generator
) -> tuple[float, float, str, int, FloatArray]:
    """Mean, worst clone, its name, number of clones that count, and redraws of both, `(2, n_boot)`."""
    names, code = np.unique(clones, return_inverse=True)
    size, _, shrunk = _clone_means(p, code, n0)
    large = np.flatnonzero(_counts(size / len(p), min_fraction))
    worst = int(large[np.argmin(shrunk[large])])
    drawn = np.empty((len(names), n_boot))
    for clone in range(len(names)):
        own = p[code == clone]
        step = max(1, _CHUNK // len(own))
        for start in range(0, n_boot, step):
            stop = min(start + step, n_boot)
            drawn[clone, start:stop] = own[rng.integers(0, len(own), (stop - start, len(own)))].mean(axis=1)
    whole = size @ drawn / len(p)
    weight = (size / (size + n0))[:, None]
    low = (weight * drawn + (1 - weight) * whole)[large].min(axis=0)
    return float(p.mean()), float(shrunk[worst]), str(names[worst]), len(large), np.stack([whole, low])


def _limits(name: str, value: float, draws: FloatArray, between: float, quantile: float) -> dict[str, float]:
    center = float(logit(np.clip(value, _CLIP, 1 - _CLIP)))
    variance = float(np.var(logit(np.clip(draws, _CLIP, 1 - _CLIP)))) if len(draws) > 1 else 0.0
    half = quantile * np.sqrt(variance + between)
    low, high = float(expit(center - half)), float(expit(center + half))
    return {name: value, f"{name}_low": min(low, value), f"{name}_high": max(high, value)}
