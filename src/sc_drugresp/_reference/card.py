"""How well a drug is predicted in lines that the fit has not seen: one row per drug."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    import pandas as pd

    from .ridge import DrugRidge

SENSITIVE_SHARE = 0.25
"""Lines called sensitive: the lowest quarter of the drug's values over the lines of the screen."""
MIN_LINES = 5
"""Lines of a lineage below which it has no mean of its own."""


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation; NaN where a side does not vary."""
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def tissue_means(Y: np.ndarray, tissue: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Lineages with at least five measured lines, and the mean of each drug over them, `(n_drugs, n_lineages)`."""
    names = sorted({name for name in tissue if name})
    masks = [np.isfinite(Y) & (tissue == name)[:, None] for name in names]
    means = [
        np.where(n >= MIN_LINES, np.where(mask, Y, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)
        for mask in masks
        for n in [mask.sum(axis=0)]
    ]
    kept = [i for i, mean in enumerate(means) if np.isfinite(mean).any()]
    return [names[i] for i in kept], np.array([means[i] for i in kept]).reshape(len(kept), Y.shape[1]).T


def reliability(Y: np.ndarray, fit: DrugRidge, tissue: np.ndarray, drugs: list[str]) -> pd.DataFrame:
    """Held-out skill of every drug, after the mean of the drug over the training lines is taken from both sides.

    Without that step the means of training lines, which fall when a resistant line is left out, correlate with the truth
    by themselves (Bernett et al. 2025, DrEval).

    Returns
    -------
    Index `drug`. `n_lines`; `mean`, `spread` and `sensitive_below` (the lowest quarter) of the response; `r` and `rho`
    (Pearson, Spearman); `r_within_tissue`, after the mean of the lineage is taken from both sides; `r_tissue_mean`, the
    naive prediction from the mean of the other lines of the lineage, and `gain_over_tissue`, the `r` of the model over the
    same lines minus that; `r2_vs_drug_mean`; `half_width_90`, half of the
    interval between the 5 % and 95 % quantiles of the held-out errors.
    """
    import pandas as pd

    rows = []
    for j, drug in enumerate(drugs):
        there = np.isfinite(Y[:, j])
        y = Y[there, j]
        error = y - fit.held_out[there, j]
        truth, said = y - fit.held_out_mean[there, j], fit.held_out[there, j] - fit.held_out_mean[there, j]
        low, high = np.quantile(error, [0.05, 0.95])
        inner, naive, gain = _by_tissue(truth, said, tissue[there])
        row: dict[str, Any] = {
            "drug": drug,
            "n_lines": len(y),
            "mean": y.mean(),
            "spread": y.std(),
            "sensitive_below": np.quantile(y, SENSITIVE_SHARE),
            "r": correlation(said, truth),
            "rho": correlation(rankdata(said), rankdata(truth)),
            "r_within_tissue": inner,
            "r_tissue_mean": naive,
            "gain_over_tissue": gain,
            "r2_vs_drug_mean": 1 - np.square(error).sum() / np.square(truth).sum(),
            "half_width_90": (high - low) / 2,
        }
        rows.append(row)
    return pd.DataFrame(rows).set_index("drug")


def _by_tissue(truth: np.ndarray, said: np.ndarray, tissue: np.ndarray) -> tuple[float, float, float]:
    """Correlation within lineages, that of the mean of the other lines of the lineage, and what the model adds to it."""
    names, codes, sizes = np.unique(tissue, return_inverse=True, return_counts=True)
    sizes = np.where(names == "", 0, sizes)
    kept = sizes[codes] >= MIN_LINES
    if not kept.any():
        return float("nan"), float("nan"), float("nan")
    truth, said, codes = truth[kept], said[kept], codes[kept]
    sums = np.bincount(codes, weights=truth, minlength=len(names))
    others = (sums[codes] - truth) / (sizes[codes] - 1)
    means = [np.bincount(codes, weights=x, minlength=len(names)) / np.maximum(sizes, 1) for x in (truth, said)]
    inner = correlation(truth - means[0][codes], said - means[1][codes])
    naive = correlation(others, truth)
    return inner, naive, correlation(said, truth) - naive
