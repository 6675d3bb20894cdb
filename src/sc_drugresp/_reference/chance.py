"""From a predicted response to P(sensitive) and an interval, by the errors made in held-out lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


LEVELS = np.linspace(0, 1, 101)
"""Quantiles of the held-out errors that are kept for each drug."""
KNOTS = np.linspace(0, 1, 41)
BINS = 200
LEVEL = 0.9
"""Of the interval of a response."""


def error_quantiles(Y: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Quantiles of the held-out errors of each drug, float32 of shape `(n_drugs, 101)`."""
    return np.nanquantile(Y - held_out, LEVELS, axis=0).T.astype(np.float32)


def with_platform(errors: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Errors of lines that are seen through a platform: held-out error of bulk profiles, plus what the platform does to a line.

    The two are taken as independent: every error is added to every deviation.

    Parameters
    ----------
    errors
        Quantiles of held-out errors, shape `(n_drugs, 101)`.
    deviations
        How far the response of lines moves if it is predicted from the platform, shape `(n_lines, n_drugs)`.

    Returns
    -------
    Quantiles of the sums, float32 of shape `(n_drugs, 101)`.
    """
    middles = (np.arange(2 * len(LEVELS)) + 0.5) / (2 * len(LEVELS))
    out = np.empty(errors.shape, dtype=np.float32)
    for j, row in enumerate(errors):
        out[j] = np.quantile(np.add.outer(np.interp(middles, LEVELS, row), deviations[:, j]), LEVELS)
    return out


def below(predicted: np.ndarray, errors: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Share of held-out errors with which the response would lie below the limit.

    Parameters
    ----------
    predicted
        Shape `(n, n_drugs)`.
    errors
        Quantiles of errors, shape `(n_drugs, 101)`.
    limits
        Shape `(n_drugs,)`.
    """
    out = np.empty(predicted.shape)
    for j in range(predicted.shape[1]):
        out[:, j] = np.interp(limits[j] - predicted[:, j], errors[j], LEVELS)
    return out


def fit_recalibration(Y: np.ndarray, held_out: np.ndarray, errors: np.ndarray, card: pd.DataFrame) -> np.ndarray:
    """How often lines were sensitive, given the share said: an increasing step curve at :data:`KNOTS`, over all drugs.

    Errors are not the same at both ends of the scale: lines with a low prediction vary more. Above one half the plain
    share is therefore too confident (0.95 said, 0.72 seen in GDSC2). The curve comes from held-out lines of the screen
    alone, by isotonic regression (Zadrozny & Elkan 2002) on bins of equal size, so that no end of it rests on few lines.
    """
    from sklearn.isotonic import IsotonicRegression

    limits = card["sensitive_below"].to_numpy()
    said = below(np.nan_to_num(held_out), errors, limits)
    there = np.isfinite(Y)
    order = np.argsort(said[there], kind="stable")
    bins = np.array_split(order, min(BINS, max(len(order) // 20, 1)))
    shares = np.array([said[there][part].mean() for part in bins])
    seen = np.array([(limits > Y)[there][part].mean() for part in bins])
    curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    curve.fit(shares, seen, sample_weight=np.array([len(part) for part in bins]))
    return curve.predict(KNOTS)


def probability(share: np.ndarray, recalibration: np.ndarray) -> np.ndarray:
    """P(sensitive) from the share of errors."""
    return np.interp(share, KNOTS, recalibration)


def interval(predicted: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the response at :data:`LEVEL`, each of shape `(n, n_drugs)`."""
    tail = (1 - LEVEL) / 2
    low, high = (np.array([np.interp(at, LEVELS, row) for row in errors]) for at in (tail, 1 - tail))
    return predicted + low, predicted + high
