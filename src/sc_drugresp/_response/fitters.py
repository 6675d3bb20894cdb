"""Fit a head whose settings are decided, with scikit-learn, balanced over classes and samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import config_context
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from .._stats.groups import balanced_weights, encode_groups
from .heads import LinearHead, PseudobulkHead, TopShareHead, loudest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .heads import Head, HeadKind

DEFAULT_C, MIL_C = 0.1, 0.01
SHARE = 0.2
"""Of the cells of a sample that `'mil'` listens to."""
FEW_GROUPS, MAX_DIMS = 50, 128
MIL_ROUNDS = 5
MOST_CELLS = 50_000
"""Cells that a head is fitted to; of more an evenly spread choice of each sample, since samples weigh the same anyway."""


@dataclass(frozen=True)
class HeadSetting:
    """What is decided before a head is fitted.

    Parameters
    ----------
    kind
        Kind of head.
    C
        Inverse penalty of a logistic regression.
    share
        Cells of a sample that `'mil'` listens to: positive, those that look most sensitive; negative, most resistant.
    """

    kind: HeadKind = "logistic"
    C: float = DEFAULT_C
    share: float = SHARE


@dataclass(frozen=True)
class _Space:
    """The standardized embedding of the training cells, in its leading directions where it is wide."""

    mean: np.ndarray
    scale: np.ndarray
    project: np.ndarray | None
    z: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, groups: np.ndarray) -> _Space:
        mean, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(scale > 1e-12, scale, 1.0)
        z = (x - mean) / scale
        project = _projection(z, groups)
        return cls(mean, scale, project, z if project is None else z @ project)

    def arrays(self, coef: np.ndarray, intercept: float) -> dict[str, np.ndarray]:
        """Mean, scale, coefficients and intercept of a linear head on the embedding itself."""
        coef = coef if self.project is None else self.project @ coef
        return {"mean": self.mean, "scale": self.scale, "coef": coef, "intercept": np.asarray(intercept)}


def fit_setting(setting: HeadSetting, x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, rng: int = 0) -> Head:
    """Fit a head on the embedding of labeled cells.

    Parameters
    ----------
    setting
        Kind of head and its penalty.

        `'logistic'`: L2 logistic regression on the standardized embedding. `'mlp'`: scDrugMap's head.
        `'pseudobulk_lda'`: linear discriminant analysis of the sample means with the covariance of Ledoit & Wolf (2004,
        J. Multivar. Anal. 88:365). `'mil'`: logistic regression that is refitted to the cells of each sample that it
        scores highest, until these stay the same (the alternation of MI-SVM, Andrews et al. 2002, NIPS 15:577).
    x
        Embedding, shape `(n_cells, dim)`; rows with NaN are ignored.
    y
        1 for sensitive, 0 for resistant.
    groups
        Sample of each cell: the unit of balancing.
    rng
        Seed.

    Raises
    ------
    ValueError
        There is only one class.
    """
    return fit_settings([setting], x, y, groups, rng=rng)[0]


def fit_settings(
    settings: Sequence[HeadSetting], x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, rng: int = 0
) -> list[Head]:
    """As :func:`fit_setting`, for several settings on the same cells, which are standardized once."""
    x = np.asarray(x, dtype=np.float64)
    usable = ~np.isnan(x).any(axis=1)
    if not usable.all():
        x, y, groups = x[usable], y[usable], groups[usable]
    y, groups = y.astype(np.int64), encode_groups(groups)[0]
    if len(np.unique(y)) < 2:
        msg = "Both sensitive and resistant cells are needed to fit a head, found one class only."
        raise ValueError(msg)
    space = None if all(setting.kind == "mlp" for setting in settings) else _Space.of(x, groups)
    weights = balanced_weights(y, groups)
    return [_fit(setting, space, x, y, groups, weights, rng) for setting in settings]


def _fit(
    setting: HeadSetting,
    space: _Space | None,
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    weights: np.ndarray,
    rng: int,
) -> Head:
    if setting.kind == "mlp" or space is None:
        from .mlp import fit_mlp

        return fit_mlp(x, y, rng=rng)
    if setting.kind == "pseudobulk_lda":
        return PseudobulkHead(**space.arrays(*_discriminant(space.z, y, groups)))
    if setting.kind == "mil":
        return TopShareHead(**space.arrays(*_top_share(space.z, y, groups, setting)), share=np.asarray(setting.share))
    return LinearHead(**space.arrays(*_logistic(space.z, y, weights, setting.C)))


def _projection(z: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """Leading principal directions, whitened: with few samples a wide embedding only learns sample names."""
    if z.shape[1] <= MAX_DIMS or len(np.unique(groups)) >= FEW_GROUPS:
        return None
    solver = "covariance_eigh" if len(z) > z.shape[1] else "full"
    pca = PCA(n_components=min(MAX_DIMS, len(z) - 1), svd_solver=solver).fit(z)
    spread = np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
    return (pca.components_ / spread[:, None]).T


def _logistic(z: np.ndarray, y: np.ndarray, weights: np.ndarray, C: float) -> tuple[np.ndarray, float]:
    with config_context(assume_finite=True):  # rows with missing values were taken out once for all settings
        model = LogisticRegression(C=C, max_iter=2_000).fit(z, y, sample_weight=weights)
    return model.coef_[0], model.intercept_[0]


def _discriminant(z: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, float]:
    """Linear discriminant of the sample means; a sample with both classes has a mean of each."""
    index, labels = _bags(y, groups)
    means = np.zeros((len(labels), z.shape[1]))
    np.add.at(means, index, z)
    means /= np.bincount(index)[:, None]
    if len(labels) == 2:  # one sample of each class: nothing is known of how samples vary
        apart = means[labels == 1][0] - means[labels == 0][0]
        return apart, float(-apart @ means.mean(axis=0))
    model: Any = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5]).fit(means, labels)
    return model.coef_[0], model.intercept_[0]


def _top_share(z: np.ndarray, y: np.ndarray, groups: np.ndarray, setting: HeadSetting) -> tuple[np.ndarray, float]:
    """Fit, keep the loudest cells of each sample, fit again, until the same cells are kept."""
    index, _ = _bags(y, groups)
    kept = np.ones(len(y), dtype=bool)
    for _ in range(MIL_ROUNDS):
        coef, intercept = _logistic(z[kept], y[kept], balanced_weights(y[kept], groups[kept]), setting.C)
        before, kept = kept, loudest(z @ coef + intercept, index, setting.share)
        if np.array_equal(before, kept):
            break
    return coef, intercept


def _bags(y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which sample and class each cell belongs to, as one number, and the class of each number."""
    codes = np.unique(groups, return_inverse=True)[1] * 2 + y
    names, index = np.unique(codes, return_inverse=True)
    return index, names % 2
