"""Fit response heads with scikit-learn, balanced over classes and samples."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold

from .._stats.groups import balanced_weights
from .heads import Head, HeadKind, LinearHead

C_GRID = (1e-3, 1e-2, 1e-1, 1.0)
DEFAULT_C = 0.1
FEW_GROUPS, MAX_DIMS = 50, 128


def fit_head(
    kind: HeadKind,
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    rng: int = 0,
    tune: bool = True,
    C: float | None = None,
) -> Head:
    """Fit a head on the embedding of labeled cells.

    Parameters
    ----------
    kind
        `'logistic'`: L2 logistic regression on the standardized embedding, penalty chosen by cross-validation over
        groups. `'mlp'`: scDrugMap's head.
    x
        Embedding, shape `(n_cells, dim)`; rows with NaN are ignored.
    y
        1 for sensitive, 0 for resistant.
    groups
        Sample of each cell: the unit of balancing and of cross-validation.
    rng
        Seed.
    tune, C
        Whether `'logistic'` chooses its penalty where `C` does not give it; it is 0.1 otherwise.

    Raises
    ------
    ValueError
        There is only one class.
    """
    x = np.asarray(x, dtype=np.float64)
    usable = ~np.isnan(x).any(axis=1)
    x, y, groups = x[usable], y[usable].astype(np.int64), groups[usable]
    if len(np.unique(y)) < 2:
        msg = "Both sensitive and resistant cells are needed to fit a head, found one class only."
        raise ValueError(msg)
    if kind == "mlp":
        from .mlp import fit_mlp

        return fit_mlp(x, y, rng=rng)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    z = (x - mean) / scale
    project = _projection(z, groups)
    z = z if project is None else z @ project
    if C is None:
        C = _choose_c(z, y, groups) if tune else DEFAULT_C
    model = LogisticRegression(C=C, max_iter=2_000).fit(z, y, sample_weight=balanced_weights(y, groups))
    coef = model.coef_[0] if project is None else project @ model.coef_[0]
    return LinearHead(mean, scale, coef, model.intercept_[0])


def _projection(z: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """Leading principal directions, whitened: with few samples a wide embedding only learns sample names."""
    if z.shape[1] <= MAX_DIMS or len(np.unique(groups)) >= FEW_GROUPS:
        return None
    solver = "covariance_eigh" if len(z) > z.shape[1] else "full"
    pca = PCA(n_components=min(MAX_DIMS, len(z) - 1), svd_solver=solver).fit(z)
    spread = np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
    return (pca.components_ / spread[:, None]).T


def _choose_c(z: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """Penalty with the lowest log loss on held-out samples; the default when there are too few of them."""
    per_class = min(len(np.unique(groups[y == label])) for label in (0, 1))
    if per_class < 3:
        return DEFAULT_C
    losses = np.zeros(len(C_GRID))
    for train, test in StratifiedGroupKFold(n_splits=min(5, per_class)).split(z, y, groups):
        if len(np.unique(y[train])) < 2:
            continue
        weights = balanced_weights(y[train], groups[train])
        for i, c in enumerate(C_GRID):
            model = LogisticRegression(C=c, max_iter=2_000).fit(z[train], y[train], sample_weight=weights)
            p = model.predict_proba(z[test])[:, 1]
            losses[i] += log_loss(y[test], p, labels=[0, 1], sample_weight=balanced_weights(y[test], groups[test]))
    return C_GRID[int(np.argmin(losses))]
