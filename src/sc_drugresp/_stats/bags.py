"""A classifier of samples as bags of cells, described by moments of the cell scores.

With a few dozen patients, attention over cells has more parameters than there are patients. Describing the bag by moments
and quantiles of the cell scores and fitting one penalized logistic regression is multiple-instance pooling in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from .groups import encode_groups, group_classes
from .state import State

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from .groups import FloatArray, IntArray

MIN_SAMPLES, MIN_PER_CLASS = 30, 8
"""Samples, in all and per class, below which nothing is fitted."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class BagModel(State):
    """A sample-level classifier of bags of cells; `method` is `"none"` where samples are too few, and `reason` says so."""

    method: str
    reason: str
    n_samples: int
    intercept: float
    coef: FloatArray

    @property
    def available(self) -> bool:
        """Whether there were enough samples."""
        return self.method != "none"

    def probability(self, groups: ArrayLike, logits: ArrayLike) -> pd.Series:
        """P(sensitive) of each group.

        Parameters
        ----------
        groups
            Group (sample) of each cell.
        logits
            Scores of cells.

        Returns
        -------
        One number per group, sorted by name; `NaN` if the model is not available.
        """
        import pandas as pd

        codes, names = encode_groups(groups)
        index = pd.Index(names.astype(str), name="sample")
        if not self.available:
            return pd.Series(np.nan, index=index)
        return pd.Series(expit(_moments(np.asarray(logits), codes) @ self.coef + self.intercept), index=index)


def fit_bags(y: ArrayLike, groups: ArrayLike, logits: ArrayLike) -> BagModel:
    """Fit a logistic regression over groups, each one row.

    The bag of cell scores is described by mean, standard deviation, quantiles and the share above zero, so that a minority
    of resistant cells can decide: multiple-instance pooling in closed form.

    Parameters
    ----------
    y
        1 = sensitive, 0 = resistant, per cell; the cells of a group all have the same label.
    groups
        Group (sample) of each cell.
    logits
        Scores of cells by a head fitted without their group.

    Returns
    -------
    The model. `method` is `"none"` below 30 groups or 8 of a class.
    """
    codes, names = encode_groups(groups)
    classes = group_classes(np.asarray(y), codes, len(names))
    features = _moments(np.asarray(logits), codes)
    counts = np.bincount(classes, minlength=2)
    if len(names) < MIN_SAMPLES or counts.min() < MIN_PER_CLASS:
        reason = (
            f"a model of samples needs {MIN_SAMPLES} samples and {MIN_PER_CLASS} of each class, found {counts[1]} sensitive "
            f"and {counts[0]} resistant"
        )
        return BagModel("none", reason, len(names), np.nan, np.full(features.shape[1], np.nan))
    coef, intercept = _fit_rows(features, classes)
    return BagModel("logistic", "", len(names), intercept, coef)


def _moments(z: FloatArray, codes: IntArray) -> FloatArray:
    """Describe the cell scores of each group by a row of numbers."""
    rows = []
    for group in range(int(codes.max()) + 1):
        own = z[codes == group]
        rows.append([own.mean(), own.std(), *np.quantile(own, _QUANTILES), (own > 0).mean()])
    return np.array(rows)


def _fit_rows(features: FloatArray, y: IntArray) -> tuple[FloatArray, float]:
    """Coefficients in the units of the features, of a logistic regression on standardized ones."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    grid = {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]}
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scaler, fitted = GridSearchCV(model, grid, scoring="neg_log_loss", cv=folds).fit(features, y).best_estimator_
    coef = np.asarray(fitted.coef_[0] / scaler.scale_, dtype=np.float64)
    return coef, float(fitted.intercept_[0] - coef @ scaler.mean_)
