"""Other prevalence than in training: estimate it, correct for it, and say so.

Sources: Saerens, Latinne & Decaestecker (2002, Neural Computation 14:21) for expectation maximization; Lipton, Wang & Smola
(2018, arXiv:1802.03916) for black-box shift estimation from a confusion matrix. Both assume that cells of a class look
alike in training and here (label shift), and EM also that probabilities are calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .groups import bootstrap_counts, check_scores, encode_groups

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .groups import FloatArray

MIN_SAMPLES = 4
"""Samples below which the estimate has no interval."""
_BINS = 200
_STEPS = 40
_CLIP = 1e-12


@dataclass(frozen=True, eq=False)
class PriorShift:
    """Estimated prevalence of sensitive cells and the probabilities that follow from it."""

    method: str
    prevalence: float
    low: float
    high: float
    level: float
    train_prevalence: float
    n_samples: int
    note: str
    prob: FloatArray
    """P(sensitive) under the estimated prevalence, `(n,)`."""

    @property
    def shifted(self) -> bool:
        """Whether the interval leaves out the prevalence of training."""
        return bool(np.isfinite(self.low) and not self.low <= self.train_prevalence <= self.high)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values for `.uns` and cards, without the probabilities."""
        values = {name: getattr(self, name) for name in ("prevalence", "low", "high", "train_prevalence", "level")}
        numbers = {name: None if np.isnan(value) else float(value) for name, value in values.items()}
        found = {"n_samples": self.n_samples, "shifted": self.shifted, "note": self.note}
        return {"method": self.method, **numbers, **found}

    def statement(self) -> str:
        """One sentence for logs, tables and reports."""
        if np.isnan(self.prevalence):
            return f"Prevalence could not be estimated: {self.note}."
        limits = (
            f" ({self.low:.2f} to {self.high:.2f})" if np.isfinite(self.low) else " (too few samples for an interval)"
        )
        text = f"Estimated prevalence of sensitive cells {self.prevalence:.2f}{limits}, in training {self.train_prevalence:.2f}."
        return f"{text} {self.note}".strip()


def correct_prior(
    prob: ArrayLike,
    groups: ArrayLike,
    *,
    train_prevalence: float,
    method: Literal["em", "bbse"] = "em",
    recall: float | None = None,
    false_positive_rate: float | None = None,
    level: float = 0.9,
    n_boot: int = 500,
    rng: np.random.Generator | int = 0,
) -> PriorShift:
    """Estimate the prevalence of sensitive cells among new cells and correct their probabilities.

    Parameters
    ----------
    prob
        Calibrated P(sensitive) of the new cells, shape `(n,)`.
    groups
        Sample of each cell; every sample weighs the same.
    train_prevalence
        Prevalence for which `prob` is calibrated (`Calibration.prevalence`).
    method
        `"em"` maximizes the likelihood of the mixture; `"bbse"` solves for the prevalence from the share of cells called
        sensitive, which needs `recall` and `false_positive_rate` and no calibration.
    recall
        Held-out share of sensitive cells with `prob >= 0.5`; for `"bbse"`.
    false_positive_rate
        Held-out share of resistant cells with `prob >= 0.5`; for `"bbse"`.
    level
        Of the interval of the prevalence, from redrawing samples.
    n_boot
        Number of redraws.
    rng
        Seed or generator.

    Returns
    -------
    Prevalence with interval (`NaN` below 4 samples) and corrected probabilities, in the order of the input.

    Raises
    ------
    ValueError
        Values outside their range, or rates missing for `"bbse"`.

    Examples
    --------
    >>> found = correct_prior([0.8] * 65 + [0.2] * 35, ["a"] * 100, train_prevalence=0.5)
    >>> round(found.prevalence, 3), found.prob.round(3)[[0, 99]].tolist()
    (0.75, [0.923, 0.429])
    """
    p = check_scores(prob, "prob")
    if len(p) == 0 or p.min() < 0 or p.max() > 1:
        found = f"values from {p.min():.3g} to {p.max():.3g}" if len(p) else "no cells"
        msg = f"`prob` must hold probabilities of at least one cell, found {found}."
        raise ValueError(msg)
    if not 0 < train_prevalence < 1:
        msg = f"`train_prevalence` must be between 0 and 1, found {train_prevalence}."
        raise ValueError(msg)
    if method not in ("em", "bbse"):
        msg = f"`method` must be 'em' or 'bbse', found {method!r}."
        raise ValueError(msg)
    codes, names = encode_groups(groups, len(p))
    # Sums over bins of each sample carry all that the estimates need, whatever the number of cells.
    bins = np.minimum((p * _BINS).astype(np.intp), _BINS - 1)
    size = np.bincount(codes)
    flat = codes * _BINS + bins
    mass = (np.bincount(flat, minlength=len(names) * _BINS) / np.repeat(size, _BINS)).reshape(len(names), _BINS)
    total = np.bincount(bins, minlength=_BINS)
    center = np.divide(np.bincount(bins, weights=p, minlength=_BINS), total, out=np.full(_BINS, 0.5), where=total > 0)
    everyone = np.ones((1, len(names)))
    draws = bootstrap_counts(np.zeros(len(names), dtype=np.intp), n_boot, np.random.default_rng(rng))
    note = ""
    if method == "em":
        ratio = _likelihood_ratio(center, train_prevalence)
        weights = (1.0 / size[codes] / len(names))[None, :]
        estimate = _maximize(weights, _likelihood_ratio(p, train_prevalence))
        drawn = _maximize(draws @ mass / len(names), ratio)
        prevalence = float(estimate[0])
    else:
        rates = _rates(recall, false_positive_rate)
        called = mass[:, _BINS // 2 :].sum(axis=1)
        prevalence = float(_solve(everyone @ called / len(names), rates)[0])
        drawn = _solve(draws @ called / len(names), rates)
        if rates[0] - rates[1] < 0.1:
            note = "Calls hardly depend on the class, so the estimate is unstable."
    # With n cells seen, a class that seems to be absent may still be half a cell of them: odds stay finite.
    floor = 1 / (2 * len(p) + 2)
    prevalence, drawn = min(max(prevalence, floor), 1 - floor), np.clip(drawn, floor, 1 - floor)
    if len(names) >= MIN_SAMPLES:
        low, high = (float(v) for v in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    else:
        low = high = np.nan
    if min(prevalence, 1 - prevalence) < 0.01:
        note = f"{note} The estimate is at the edge of the range: a single class seems to be present.".strip()
    adjusted = _adjust(_likelihood_ratio(p, train_prevalence), prevalence)
    return PriorShift(
        method,
        prevalence,
        low,
        high,
        float(level),
        float(train_prevalence),
        len(names),
        note,
        adjusted,
    )


def _likelihood_ratio(p: FloatArray, prevalence: float) -> FloatArray:
    """How much more likely a cell is among sensitive than among resistant cells."""
    p = np.clip(p, _CLIP, 1 - _CLIP)
    return p / (1 - p) * (1 - prevalence) / prevalence


def _adjust(ratio: FloatArray, prevalence: float | FloatArray) -> FloatArray:
    return np.asarray(prevalence * ratio / (prevalence * ratio + 1 - prevalence))


def _maximize(weights: FloatArray, ratio: FloatArray) -> FloatArray:
    """Most likely prevalence for every row of weights: where the slope of the concave log-likelihood changes sign.

    This is the point that the steps of expectation maximization climb to; bisection gets there at a known cost.
    """
    low, high = np.zeros(len(weights)), np.ones(len(weights))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        slope = np.einsum("bn,bn->b", weights, (ratio - 1) / (middle[:, None] * (ratio - 1) + 1))
        low, high = np.where(slope > 0, middle, low), np.where(slope > 0, high, middle)
    return (low + high) / 2


def _rates(recall: float | None, false_positive_rate: float | None) -> tuple[float, float]:
    if recall is None or false_positive_rate is None or not 0 <= false_positive_rate < recall <= 1:
        msg = (
            "method='bbse' needs held-out `recall` above `false_positive_rate`, both between 0 and 1; found "
            f"{recall} and {false_positive_rate}. A score that does not separate the classes cannot count them."
        )
        raise ValueError(msg)
    return float(recall), float(false_positive_rate)


def _solve(called: FloatArray, rates: tuple[float, float]) -> FloatArray:
    recall, false_positive_rate = rates
    return np.clip((called - false_positive_rate) / (recall - false_positive_rate), 0.0, 1.0)
