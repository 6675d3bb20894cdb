"""Fit response heads with scikit-learn, balanced over classes and samples."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold

from .heads import Head, LinearHead, TreeHead
from .mlp import fit_mlp

HeadKind = Literal["logistic", "mlp", "hist_gradient_boosting"]
C_GRID = (1e-3, 1e-2, 1e-1, 1.0)
DEFAULT_C = 0.1
FEW_GROUPS, MAX_DIMS = 50, 128
MAX_BINS = 255


def balanced_weights(y: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Cell weights so that both classes weigh the same and, within a class, all samples do; mean 1."""
    y = np.asarray(y)
    groups = np.zeros(len(y), dtype=int) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    _, unit, size = np.unique(np.column_stack([y, groups]), axis=0, return_inverse=True, return_counts=True)
    weights = 1.0 / size[unit.ravel()]
    for label in np.unique(y):
        weights[y == label] /= weights[y == label].sum()
    return weights * (len(y) / weights.sum())


def fit_head(
    kind: HeadKind,
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    rng: int = 0,
    tune: bool = True,
    **options: Any,
) -> Head:
    """Fit a head on the embedding of labeled cells.

    Parameters
    ----------
    kind
        `'logistic'`: L2 logistic regression on the standardized embedding, penalty chosen by cross-validation over
        groups. `'mlp'`: scDrugMap's head. `'hist_gradient_boosting'`: scikit-learn's.
    x
        Embedding, shape `(n_cells, dim)`; rows with NaN are ignored.
    y
        1 for sensitive, 0 for resistant.
    groups
        Sample of each cell: the unit of balancing and of cross-validation.
    rng
        Seed.
    tune
        Whether `'logistic'` chooses its penalty; otherwise `C` of `options` or 0.1 is used.
    options
        Arguments of the estimator.

    Raises
    ------
    ValueError
        Unknown head, or only one class.
    """
    if kind not in get_args(HeadKind):
        msg = f"`head` must be one of {get_args(HeadKind)}, found {kind!r}."
        raise ValueError(msg)
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y)
    usable = ~np.isnan(x).any(axis=1)
    x, y = x[usable], y[usable].astype(np.int64)
    groups = None if groups is None else np.asarray(groups)[usable]
    if len(np.unique(y)) < 2:
        msg = "Both sensitive and resistant cells are needed to fit a head, found one class only."
        raise ValueError(msg)
    if kind == "mlp":
        return fit_mlp(x, y, rng=rng, **options)
    if kind == "hist_gradient_boosting":
        return _fit_trees(x, y, groups, rng=rng, **options)
    return _fit_logistic(x, y, groups, tune=tune, **options)


def _fit_logistic(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, *, tune: bool, C: float | None = None
) -> LinearHead:
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


def _projection(z: np.ndarray, groups: np.ndarray | None) -> np.ndarray | None:
    """Leading principal directions, whitened: with few samples a wide embedding only learns sample names."""
    n_groups = len(z) if groups is None else len(np.unique(groups))
    if z.shape[1] <= MAX_DIMS or n_groups >= FEW_GROUPS:
        return None
    pca = PCA(
        n_components=min(MAX_DIMS, len(z) - 1), svd_solver="covariance_eigh" if len(z) > z.shape[1] else "full"
    ).fit(z)
    spread = np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
    return (pca.components_ / spread[:, None]).T


def _choose_c(z: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> float:
    """Penalty with the lowest log loss on held-out samples; the default when there are too few of them."""
    if groups is None:
        return DEFAULT_C
    per_class = min(len(np.unique(groups[y == label])) for label in (0, 1))
    if per_class < 3:
        return DEFAULT_C
    folds = list(StratifiedGroupKFold(n_splits=min(5, per_class)).split(z, y, groups))
    losses = np.zeros(len(C_GRID))
    for train, test in folds:
        if len(np.unique(y[train])) < 2:
            continue
        weights = balanced_weights(y[train], groups[train])
        for i, c in enumerate(C_GRID):
            model = LogisticRegression(C=c, max_iter=2_000).fit(z[train], y[train], sample_weight=weights)
            p = model.predict_proba(z[test])[:, 1]
            losses[i] += log_loss(y[test], p, labels=[0, 1], sample_weight=balanced_weights(y[test], groups[test]))
    return C_GRID[int(np.argmin(losses))]


def _fit_trees(x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, *, rng: int, **options: Any) -> TreeHead:
    """Boosting on features that are cut into bins first: scikit-learn's own cuts with weights take most of its time."""
    options = {"max_iter": 100, "learning_rate": 0.1, "early_stopping": False, **options}
    edges = [_edges(column) for column in x.T]
    binned = np.column_stack([np.searchsorted(cuts, column) for cuts, column in zip(edges, x.T)])
    model = HistGradientBoostingClassifier(random_state=rng, **options)
    model.fit(binned, y, sample_weight=balanced_weights(y, groups))
    nodes = [predictor[0].nodes for predictor in model._predictors]
    roots = np.cumsum([0, *(len(tree) for tree in nodes)])
    shift = np.repeat(roots[:-1], [len(tree) for tree in nodes])
    flat = np.concatenate(nodes)
    feature = flat["feature_idx"].astype(np.int64)
    threshold = np.full(len(flat), np.inf)  # code <= k + 0.5 is value <= edge k
    for node in np.flatnonzero((flat["is_leaf"] == 0) & np.isfinite(flat["num_threshold"])):
        threshold[node] = edges[feature[node]][int(flat["num_threshold"][node])]
    return TreeHead(
        baseline=np.asarray(np.ravel(model._baseline_prediction)[0], dtype=np.float64),
        roots=roots[:-1],
        feature=feature,
        threshold=threshold,
        left=flat["left"].astype(np.int64) + shift,
        right=flat["right"].astype(np.int64) + shift,
        leaf=flat["is_leaf"].astype(np.uint8),
        missing_left=flat["missing_go_to_left"].astype(np.uint8),
        value=flat["value"].astype(np.float64),
    )


def _edges(column: np.ndarray) -> np.ndarray:
    """Cuts between the values of a feature, at most 254: midpoints, or quantiles where there are more values."""
    values = np.unique(column)
    if len(values) <= MAX_BINS:
        return (values[:-1] + values[1:]) / 2
    return np.unique(np.quantile(column, np.linspace(0, 1, MAX_BINS + 1)[1:-1], method="midpoint"))
