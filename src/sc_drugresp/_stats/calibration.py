"""Probabilities that mean what they say: calibration over groups (samples) and its uncertainty.

Sources: Platt (1999) for the logistic map, Guo et al. (2017, arXiv:1706.04599) for temperature scaling, Gelman
et al. (2008, Ann. Appl. Stat. 2:1360) for the scale of the weak prior of the slope.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit

from .groups import bootstrap_counts, encode_groups, equal_weights, group_classes, groups_per_class
from .state import State

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .groups import FloatArray, IntArray

MIN_SAMPLES, MIN_PER_CLASS = 4, 2
"""Held-out samples, in all and per class, below which a probability is not calibrated."""
_PRIOR_SD = 5.0
"""Of the slope per SD of the logits; it keeps separated classes finite and is far from binding otherwise."""
_BINS_PER_SAMPLE = 50
LEVEL = 0.9
"""Of the interval of the probability."""


@dataclass(frozen=True, eq=False)
class Calibration(State):
    """Map from logits to P(sensitive), fitted on samples that the head had not seen.

    `method` is `"temperature"` (`P = expit(slope * logit + bias)`, temperature = 1 / slope) or `"none"`; then the `reason`
    says why, `probability` is the plain `expit(logit)` and the interval is `NaN`.
    """

    method: str
    reason: str
    slope: float
    bias: float
    level: float
    n_samples: int
    prevalence: float
    n_sensitive: int
    n_resistant: int
    """Held-out samples of each class; one with both labels counts for both."""
    covariance: FloatArray
    """Covariance of slope and bias over resampled groups, `(2, 2)`."""

    @property
    def is_calibrated(self) -> bool:
        """Whether `probability` may be read as a frequency."""
        return self.method != "none"

    @property
    def informative(self) -> bool:
        """Whether the score ranks held-out samples at all; otherwise every cell gets the prevalence."""
        return self.is_calibrated and self.slope > 0

    @property
    def limits(self) -> tuple[float, float]:
        """Least and largest probability that so many held-out samples can support, by the rule of succession.

        Had all `n` samples of a class scored alike, the next would belong to it with probability `(n + 1) / (n + 2)`.
        """
        return 1 / (self.n_resistant + 2), (self.n_sensitive + 1) / (self.n_sensitive + 2)

    def probability(self, logits: ArrayLike) -> FloatArray:
        """P(sensitive) of cells, float64 of shape `(n,)`, within `limits` where there is a calibration.

        Parameters
        ----------
        logits
            Scores of the head, larger = more sensitive. `NaN` stays `NaN`.
        """
        prob = expit(self.slope * np.asarray(logits, dtype=np.float64) + self.bias)
        return np.clip(prob, *self.limits) if self.is_calibrated else prob

    def interval(self, logits: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Limits of P(sensitive) at `level`: how far other calibration samples would have moved it.

        The uncertainty of the head itself is not part of it. `NaN` when there is no calibration. Where the score does not
        rank samples, the limits are those of the prevalence (Jeffreys).

        Parameters
        ----------
        logits
            Scores of the head, larger = more sensitive.
        """
        z = np.asarray(logits, dtype=np.float64)
        if self.method == "none":
            return np.full_like(z, np.nan), np.full_like(z, np.nan)
        from scipy.stats import beta, t

        if not self.informative:
            k, n = self.prevalence * self.n_samples, self.n_samples
            low, high = (
                float(beta.ppf(at, k + 0.5, n - k + 0.5)) for at in ((1 - self.level) / 2, (1 + self.level) / 2)
            )
            prob = self.probability(z)
            return np.minimum(np.where(np.isnan(z), np.nan, low), prob), np.maximum(
                np.where(np.isnan(z), np.nan, high), prob
            )

        (var_slope, both), (_, var_bias) = self.covariance
        spread = np.sqrt(np.maximum(z * z * var_slope + 2 * z * both + var_bias, 0.0))
        # Two numbers were fitted on `n_samples` independent units, hence Student's t.
        spread *= t.ppf(0.5 + self.level / 2, df=max(self.n_samples - 2, 1))
        center, prob = self.slope * z + self.bias, self.probability(z)
        return np.minimum(expit(center - spread), prob), np.maximum(expit(center + spread), prob)


def fit_calibration(
    logits: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    *,
    n_boot: int = 100,
    rng: np.random.Generator | int = 0,
) -> Calibration:
    """Calibrate held-out logits so that P(sensitive) is a frequency over samples.

    A logistic map (temperature and bias) is fitted by likelihood in which every sample weighs as one observation, however
    many cells it has, with a weak prior on the slope: a handful of perfectly ranked samples cannot produce a probability
    of 0.999. A score that ranks the classes the wrong way around gets slope 0, never a flip.

    Parameters
    ----------
    logits
        Scores of cells by a head that was fitted without their sample, shape `(n,)`.
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    groups
        Sample of each cell, shape `(n,)`.
    n_boot
        Number of times that samples are redrawn, within their class, for the interval.
    rng
        Seed or generator.

    Returns
    -------
    The map. Its `method` is `"none"` with fewer than 4 held-out samples or fewer than 2 of a class.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(np.arange(8), 50)
    >>> y = groups % 2
    >>> fitted = fit_calibration(6 * rng.normal(y - 0.5), y, groups)
    >>> fitted.method, bool(fitted.slope < 0.5)
    ('temperature', True)
    """
    z, labels = np.asarray(logits, dtype=np.float64), np.asarray(y)
    codes, names = encode_groups(groups)
    n_resistant, n_sensitive = groups_per_class(labels, codes)
    weights = equal_weights(codes)
    found: dict[str, Any] = {
        "level": LEVEL,
        "n_samples": len(names),
        "n_sensitive": n_sensitive,
        "n_resistant": n_resistant,
        "prevalence": float(np.average(labels, weights=weights)) if len(z) else np.nan,
    }
    if len(names) < MIN_SAMPLES or min(n_resistant, n_sensitive) < MIN_PER_CLASS:
        reason = (
            f"uncalibrated: {len(names)} held-out samples ({n_sensitive} with sensitive, {n_resistant} with resistant "
            f"cells); at least {MIN_SAMPLES}, and {MIN_PER_CLASS} of each class, are needed"
        )
        unknown = np.full((2, 2), np.nan)
        return Calibration(method="none", reason=reason, slope=1.0, bias=0.0, covariance=unknown, **found)
    slope, bias = _fit_logistic(z, labels, weights)
    reason = ""
    if slope == 0.0:
        reason = "the score does not rank held-out samples better than chance: every cell gets the prevalence"
    counts = bootstrap_counts(group_classes(labels, codes, len(names)), n_boot, np.random.default_rng(rng))
    # Refits use the mean logit of small bins of each group: the same answer in a fraction of the time.
    z_bin, y_bin, code_bin, w_bin = _compress(z, labels, codes, weights)
    draws = np.array([_fit_logistic(z_bin, y_bin, w_bin * count[code_bin]) for count in counts])
    # Redrawing n groups understates their variance by (n - 1) / n in each of the two classes.
    covariance = np.cov(draws.T) * len(names) / max(len(names) - 2, 1)
    return Calibration(method="temperature", reason=reason, slope=slope, bias=bias, covariance=covariance, **found)


def _fit_logistic(z: FloatArray, y: IntArray, weights: FloatArray) -> tuple[float, float]:
    """Slope and bias of P(sensitive) given a logit; the slope is never negative."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    keep = weights > 0
    z, y, weights = z[keep], y[keep], weights[keep]
    flat = float(logit(np.average(y, weights=weights)))
    center = np.average(z, weights=weights)
    scale = np.sqrt(np.average(np.square(z - center), weights=weights))
    if scale < 1e-12:
        return 0.0, flat
    # `C` is the variance of the prior of the slope, in units where the logits have SD 1.
    model = LogisticRegression(C=_PRIOR_SD**2, solver="newton-cholesky", tol=1e-6)
    with warnings.catch_warnings():  # where Newton's line search fails, scikit-learn goes on with another solver
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(((z - center) / scale)[:, None], y, sample_weight=weights)
    slope = float(model.coef_[0, 0] / scale)
    if slope <= 0:
        return 0.0, flat
    return slope, float(model.intercept_[0] - slope * center)


def _compress(
    z: FloatArray, y: IntArray, codes: IntArray, weights: FloatArray
) -> tuple[FloatArray, IntArray, IntArray, FloatArray]:
    """At most 50 bins of neighboring logits for each group and class, with their mean and their weight."""
    order = np.lexsort((z, y, codes))
    cell = codes[order] * 2 + y[order]
    start = np.flatnonzero(np.r_[True, cell[1:] != cell[:-1]])
    size = np.diff(np.r_[start, len(z)])
    rank = np.arange(len(z)) - np.repeat(start, size)
    slot = rank * np.minimum(_BINS_PER_SAMPLE, np.repeat(size, size)) // np.repeat(size, size)
    _, index = np.unique(cell * _BINS_PER_SAMPLE + slot, return_inverse=True)
    total: FloatArray = np.bincount(index, weights=weights[order]).astype(np.float64)
    first = np.unique(index, return_index=True)[1]
    mean = np.bincount(index, weights=weights[order] * z[order]) / total
    return mean, y[order][first], codes[order][first], total
