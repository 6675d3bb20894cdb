"""Probabilities that mean what they say: calibration over samples, its uncertainty, and reliability tables.

Sources: Platt (1999) for the logistic map, Guo et al. (2017, arXiv:1706.04599) for temperature scaling and the expected
calibration error, Gelman et al. (2008, Ann. Appl. Stat. 2:1360) for the scale of the weak prior of the slope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import expit

from .groups import (
    State,
    bootstrap_counts,
    check_labels,
    check_scores,
    encode_groups,
    equal_weights,
    sample_classes,
    samples_per_class,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from .groups import FloatArray, IntArray

MIN_SAMPLES, MIN_PER_CLASS = 4, 2
"""Held-out samples, in all and per class, below which a probability is not calibrated."""
MIN_SAMPLES_ISOTONIC = 20
"""Isotonic regression bends to every sample; with fewer the two numbers of the logistic map generalize better."""
_PRIOR_SD = 5.0
"""Of the slope per SD of the logits; it keeps separated classes finite and is far from binding otherwise."""
_GRID = 128
_BINS_PER_SAMPLE = 50


@dataclass(frozen=True, eq=False)
class Calibration(State):
    """Map from logits to P(sensitive), fitted on samples that the head had not seen.

    `method` is `"temperature"` (`P = expit(slope * logit + bias)`, temperature = 1 / slope), `"isotonic"` or `"none"`;
    with `"none"` the `reason` says why, `probability` is the plain `expit(logit)` and the interval is `NaN`.
    """

    method: str
    reason: str
    slope: float
    bias: float
    level: float
    n_samples: int
    n_sensitive: int
    n_resistant: int
    prevalence: float
    covariance: FloatArray
    """Covariance of slope and bias over resampled samples, `(2, 2)`."""
    grid: FloatArray
    """Isotonic only: logits, and P(sensitive) there with its limits, `(4, n)`; otherwise `(4, 0)`."""

    @property
    def is_calibrated(self) -> bool:
        """Whether `probability` may be read as a frequency."""
        return self.method != "none"

    def probability(self, logits: ArrayLike) -> FloatArray:
        """P(sensitive) of cells, float64 of shape `(n,)`.

        Parameters
        ----------
        logits
            Scores of the head, larger = more sensitive. `NaN` stays `NaN`.
        """
        z = check_scores(logits, allow_nan=True)
        if self.method == "isotonic":
            return np.interp(z, self.grid[0], self.grid[1])
        return expit(self.slope * z + self.bias)

    def interval(self, logits: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Limits of P(sensitive) at `level`: how far other calibration samples would have moved it.

        The uncertainty of the head itself is not part of it. `NaN` when there is no calibration.

        Parameters
        ----------
        logits
            Scores of the head, larger = more sensitive.
        """
        z = check_scores(logits, allow_nan=True)
        if self.method == "none":
            return np.full_like(z, np.nan), np.full_like(z, np.nan)
        if self.method == "isotonic":
            return np.interp(z, self.grid[0], self.grid[2]), np.interp(z, self.grid[0], self.grid[3])
        from scipy.stats import t

        (var_slope, both), (_, var_bias) = self.covariance
        spread = np.sqrt(np.maximum(z * z * var_slope + 2 * z * both + var_bias, 0.0))
        # Two numbers were fitted on `n_samples` independent units, hence Student's t.
        spread *= t.ppf(0.5 + self.level / 2, df=max(self.n_samples - 2, 1))
        center = self.slope * z + self.bias
        return expit(center - spread), expit(center + spread)


def fit_calibration(
    logits: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    *,
    method: Literal["temperature", "isotonic"] = "temperature",
    level: float = 0.9,
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
    method
        `"temperature"`, or `"isotonic"` with at least 20 samples (fewer: temperature, and `reason` says so).
    level
        Of the interval of the probability.
    n_boot
        Number of times that samples are redrawn, within their class, for the interval.
    rng
        Seed or generator.

    Returns
    -------
    The map. Its `method` is `"none"` with fewer than 4 held-out samples or fewer than 2 of a class.

    Raises
    ------
    ValueError
        Shapes or values are not as described.

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
    z = check_scores(logits)
    labels = check_labels(y, len(z))
    codes, names = encode_groups(groups, len(z))
    if method not in ("temperature", "isotonic"):
        msg = f"`method` must be 'temperature' or 'isotonic', found {method!r}."
        raise ValueError(msg)
    if not 0 < level < 1:
        msg = f"`level` must be between 0 and 1, found {level}."
        raise ValueError(msg)
    n_resistant, n_sensitive = samples_per_class(labels, codes)
    weights = equal_weights(codes, len(names))
    found: dict[str, Any] = {
        "level": float(level),
        "n_samples": len(names),
        "n_sensitive": n_sensitive,
        "n_resistant": n_resistant,
        "prevalence": float(np.average(labels, weights=weights)) if len(z) else np.nan,
    }
    no_grid = np.empty((4, 0))
    if len(names) < MIN_SAMPLES or min(n_resistant, n_sensitive) < MIN_PER_CLASS:
        reason = (
            f"uncalibrated: {len(names)} held-out samples ({n_sensitive} with sensitive, {n_resistant} with resistant "
            f"cells); at least {MIN_SAMPLES}, and {MIN_PER_CLASS} of each class, are needed"
        )
        return Calibration(
            method="none", reason=reason, slope=1.0, bias=0.0, covariance=np.full((2, 2), np.nan), grid=no_grid, **found
        )
    reason = ""
    if method == "isotonic" and len(names) < MIN_SAMPLES_ISOTONIC:
        method = "temperature"
        reason = f"isotonic needs {MIN_SAMPLES_ISOTONIC} samples, found {len(names)}: temperature was used"
    counts = bootstrap_counts(sample_classes(labels, codes, len(names)), n_boot, np.random.default_rng(rng))
    if method == "isotonic":
        grid = _isotonic_grid(z, labels, codes, weights, counts, level)
        nan = np.full((2, 2), np.nan)
        return Calibration(method=method, reason=reason, slope=1.0, bias=0.0, covariance=nan, grid=grid, **found)

    slope, bias = _fit_logistic(z, labels, weights)
    if slope == 0.0:
        reason = "the score does not rank held-out samples better than chance: every cell gets the prevalence"
    # Refits use the mean logit of small bins of each sample: the same answer in a fraction of the time.
    z_bin, y_bin, code_bin, w_bin = _compress(z, labels, codes, weights)
    draws = np.array([_fit_logistic(z_bin, y_bin, w_bin * count[code_bin]) for count in counts])
    # Redrawing n samples understates their variance by (n - 1) / n in each of the two classes.
    covariance = np.cov(draws.T) * len(names) / max(len(names) - 2, 1)
    return Calibration(
        method=method, reason=reason, slope=slope, bias=bias, covariance=covariance, grid=no_grid, **found
    )


def _fit_logistic(z: FloatArray, y: IntArray, weights: FloatArray) -> tuple[float, float]:
    """Slope and bias of P(sensitive) given a logit; the slope is never negative."""
    from sklearn.linear_model import LogisticRegression

    keep = weights > 0
    z, y, weights = z[keep], y[keep], weights[keep]
    prior = np.average(y, weights=weights)
    flat = float(np.log(prior / (1 - prior)))
    center = np.average(z, weights=weights)
    scale = np.sqrt(np.average(np.square(z - center), weights=weights))
    if scale < 1e-12:
        return 0.0, flat
    # `C` is the variance of the prior of the slope, in units where the logits have SD 1.
    model = LogisticRegression(C=_PRIOR_SD**2, solver="newton-cholesky", tol=1e-6)
    model.fit(((z - center) / scale)[:, None], y, sample_weight=weights)
    slope = float(model.coef_[0, 0] / scale)
    if slope <= 0:
        return 0.0, flat
    return slope, float(model.intercept_[0] - slope * center)


def _compress(
    z: FloatArray, y: IntArray, codes: IntArray, weights: FloatArray
) -> tuple[FloatArray, IntArray, IntArray, FloatArray]:
    """At most 50 bins of neighboring logits for each sample and class, with their mean and their weight."""
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


def _isotonic_grid(
    z: FloatArray, y: IntArray, codes: IntArray, weights: FloatArray, counts: FloatArray, level: float
) -> FloatArray:
    from sklearn.isotonic import IsotonicRegression

    grid = np.unique(np.quantile(z, np.linspace(0, 1, _GRID)))

    def curve(sample_weight: FloatArray) -> FloatArray:
        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        keep = sample_weight > 0
        return np.asarray(model.fit(z[keep], y[keep], sample_weight=sample_weight[keep]).predict(grid))

    draws = np.array([curve(weights * count[codes]) for count in counts])
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return np.stack([grid, curve(weights), low, high])


def reliability_table(
    y: ArrayLike,
    prob: ArrayLike,
    groups: ArrayLike,
    *,
    n_bins: int = 10,
    strategy: Literal["quantile", "uniform"] = "quantile",
    level: float = 0.9,
    n_boot: int = 500,
    rng: np.random.Generator | int = 0,
) -> pd.DataFrame:
    """Compare predicted P(sensitive) with what was observed, bin by bin, every sample weighing the same.

    Parameters
    ----------
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    prob
        P(sensitive) of held-out cells, shape `(n,)`.
    groups
        Sample of each cell, shape `(n,)`.
    n_bins
        Most bins; bins without cells are left out.
    strategy
        Bins of equal weight, or of equal width.
    level
        Of the limits of the observed fraction, from redrawing samples.
    n_boot
        Number of redraws.
    rng
        Seed or generator.

    Returns
    -------
    One row per bin: `bin_low`, `bin_high`, `predicted`, `observed`, `observed_low`, `observed_high`, `weight` (sums to
    one), `n_cells`, `n_samples`.

    Raises
    ------
    ValueError
        A probability is outside 0..1, or shapes differ.
    """
    import pandas as pd

    p, labels, codes, weights = _checked(y, prob, groups)
    edges = _bin_edges(p, weights, n_bins, strategy)
    n_bins = len(edges) - 1
    index = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, n_bins - 1)
    n_groups = int(codes.max()) + 1
    flat, shape = codes * n_bins + index, (n_groups, n_bins)
    mass = np.bincount(flat, weights=weights, minlength=n_groups * n_bins).reshape(shape)
    hits = np.bincount(flat, weights=weights * labels, minlength=n_groups * n_bins).reshape(shape)
    counts = bootstrap_counts(sample_classes(labels, codes, n_groups), n_boot, np.random.default_rng(rng))
    drawn = counts @ mass
    # A draw in which no sample reaches the bin says nothing about it.
    observed = np.ma.masked_invalid(np.divide(counts @ hits, drawn, out=np.full_like(drawn, np.nan), where=drawn > 0))
    rows = []
    for b in np.flatnonzero(mass.sum(0) > 0):
        seen = observed[:, b].compressed()
        low, high = np.quantile(seen, [(1 - level) / 2, (1 + level) / 2]) if len(seen) else (np.nan, np.nan)
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


def calibration_error(y: ArrayLike, prob: ArrayLike, groups: ArrayLike, *, n_bins: int = 10) -> float:
    """Expected calibration error over bins of equal width, every sample weighing the same.

    Parameters
    ----------
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    prob
        P(sensitive) of held-out cells, shape `(n,)`.
    groups
        Sample of each cell, shape `(n,)`.
    n_bins
        Number of bins between 0 and 1.
    """
    p, labels, _, weights = _checked(y, prob, groups)
    index = np.minimum((p * n_bins).astype(np.intp), n_bins - 1)
    gap = np.bincount(index, weights=weights * (labels - p), minlength=n_bins)
    return float(np.abs(gap).sum() / weights.sum())


def _checked(y: ArrayLike, prob: ArrayLike, groups: ArrayLike) -> tuple[FloatArray, IntArray, IntArray, FloatArray]:
    p = check_scores(prob, "prob")
    if len(p) == 0 or p.min() < 0 or p.max() > 1:
        msg = f"`prob` must hold probabilities of at least one cell, found {len(p)} values" + (
            f" from {p.min():.3g} to {p.max():.3g}; apply `Calibration.probability` to logits." if len(p) else "."
        )
        raise ValueError(msg)
    codes, names = encode_groups(groups, len(p))
    return p, check_labels(y, len(p)), codes, equal_weights(codes, len(names))


def _bin_edges(p: FloatArray, weights: FloatArray, n_bins: int, strategy: str) -> FloatArray:
    if strategy == "uniform":
        return np.linspace(0.0, 1.0, n_bins + 1)
    if strategy != "quantile":
        msg = f"`strategy` must be 'quantile' or 'uniform', found {strategy!r}."
        raise ValueError(msg)
    order = np.argsort(p, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    inner = p[order][np.searchsorted(share, np.linspace(0, 1, n_bins + 1)[1:-1])]
    return np.unique(np.concatenate([[p.min()], inner, [p.max()]])) if p.min() < p.max() else np.array([p[0], p[0] + 1])
