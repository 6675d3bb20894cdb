"""A classifier of samples as bags of cells: moments of the cell scores, or the mean embedding beside it.

With a few dozen patients, attention over cells has more parameters than there are patients. Describing the bag by moments
and quantiles of the cell scores and fitting one penalized logistic regression is multiple-instance pooling in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import expit

from .groups import State, check_labels, check_scores, encode_groups, sample_classes

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from .groups import FloatArray, IntArray

MIN_BAGS = {"moments": (30, 8), "pseudobulk": (4, 2)}
"""Samples, in all and per class, that each kind of bag model asks for."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class BagModel(State):
    """A sample-level classifier of bags of cells; `method` is `"none"` where samples are too few, and `reason` says so."""

    method: str
    reason: str
    kind: str
    n_samples: int
    intercept: float
    coef: FloatArray

    @property
    def available(self) -> bool:
        """Whether there were enough samples."""
        return self.method != "none"

    def probability(
        self, groups: ArrayLike, *, logits: ArrayLike | None = None, X: ArrayLike | None = None
    ) -> pd.Series:
        """P(sensitive) of each sample.

        Parameters
        ----------
        groups
            Sample of each cell.
        logits
            Scores of cells (kind `"moments"`).
        X
            Embedding of cells (kind `"pseudobulk"`).

        Returns
        -------
        One number per sample, sorted by name; `NaN` if the model is not available.
        """
        import pandas as pd

        n = len(np.asarray(groups))
        codes, names = encode_groups(groups, n)
        index = pd.Index(names.astype(str), name="sample")
        if not self.available:
            return pd.Series(np.nan, index=index)
        features = bag_features(codes, len(names), kind=self.kind, logits=logits, X=X)
        return pd.Series(expit(features @ self.coef + self.intercept), index=index)


def fit_bags(
    y: ArrayLike,
    groups: ArrayLike,
    *,
    kind: Literal["moments", "pseudobulk"] = "moments",
    logits: ArrayLike | None = None,
    X: ArrayLike | None = None,
) -> BagModel:
    """Fit a logistic regression over samples, each one row.

    `"moments"` describes the bag of cell scores by mean, standard deviation, quantiles and the share above zero, so that a
    minority of resistant cells can decide: multiple-instance pooling in closed form. `"pseudobulk"` takes the mean
    embedding: the plain alternative that any pooling has to beat. The penalty is chosen by cross-validation over samples
    from 20 samples on.

    Parameters
    ----------
    y
        1 = sensitive, 0 = resistant, one value per sample.
    groups
        Sample of each cell.
    kind
        What describes a sample.
    logits
        Scores of cells by a head fitted without their sample; for `"moments"`.
    X
        Embedding of cells; for `"pseudobulk"`.

    Returns
    -------
    The model. `method` is `"none"` below 30 samples (8 per class) for `"moments"` and below 4 (2 per class) for
    `"pseudobulk"`.

    Raises
    ------
    ValueError
        A sample has cells of both classes, or `logits` / `X` is missing.
    """
    if kind not in MIN_BAGS:
        msg = f"`kind` must be one of {sorted(MIN_BAGS)}, found {kind!r}."
        raise ValueError(msg)
    labels = check_labels(y, len(np.asarray(groups)))
    codes, names = encode_groups(groups, len(labels))
    classes = sample_classes(labels, codes, len(names))
    if (classes == 2).any():
        msg = (
            f"{int((classes == 2).sum())} samples have cells of both classes (for example {names[classes == 2][0]!r}); "
            "a model of samples needs one response per sample."
        )
        raise ValueError(msg)
    least, per_class = MIN_BAGS[kind]
    features = bag_features(codes, len(names), kind=kind, logits=logits, X=X)
    counts = np.bincount(classes, minlength=2)
    if len(names) < least or counts.min() < per_class:
        reason = f"{kind} needs {least} samples and {per_class} of each class, found {counts[1]} sensitive and {counts[0]} resistant"
        return BagModel("none", reason, kind, len(names), np.nan, np.full(features.shape[1], np.nan))
    coef, intercept = _fit_rows(features, classes)
    return BagModel("logistic", "", kind, len(names), intercept, coef)


def bag_features(
    codes: IntArray, n_samples: int, *, kind: str, logits: ArrayLike | None = None, X: ArrayLike | None = None
) -> FloatArray:
    """Describe each sample by a row of numbers: moments of its cell scores, or its mean embedding."""
    if kind == "pseudobulk":
        if X is None:
            msg = "kind='pseudobulk' needs the embedding `X`."
            raise ValueError(msg)
        cells = np.asarray(X, dtype=np.float64)
        return np.array([cells[codes == s].mean(axis=0) for s in range(n_samples)])
    if logits is None:
        msg = "kind='moments' needs the `logits` of cells."
        raise ValueError(msg)
    z = check_scores(logits)
    rows = []
    for s in range(n_samples):
        own = z[codes == s]
        rows.append([own.mean(), own.std(), *np.quantile(own, _QUANTILES), (own > 0).mean()])
    return np.array(rows)


def _fit_rows(features: FloatArray, y: IntArray) -> tuple[FloatArray, float]:
    """Coefficients in the units of the features: standardize, rotate to principal axes, penalized logistic."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_components = min(features.shape[1], max(len(y) // 2, 1))
    logistic = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    model = make_pipeline(StandardScaler(), PCA(n_components, svd_solver="full"), logistic)
    if len(y) >= 20 and np.bincount(y).min() >= 5:
        grid = {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]}
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        model = GridSearchCV(model, grid, scoring="neg_log_loss", cv=folds).fit(features, y).best_estimator_
    else:
        model.fit(features, y)
    scaler, pca, fitted = (step for _, step in model.steps)
    coef = (fitted.coef_[0] @ pca.components_) / scaler.scale_
    intercept = fitted.intercept_[0] - fitted.coef_[0] @ (pca.components_ @ pca.mean_) - coef @ scaler.mean_
    return np.asarray(coef, dtype=np.float64), float(intercept)
