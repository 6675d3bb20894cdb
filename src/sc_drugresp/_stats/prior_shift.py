"""Other prevalence than in training: estimate it, correct for it, and say so.

Source: Saerens, Latinne & Decaestecker (2002, Neural Computation 14:21). Assumes that cells of a class look alike in
training and here (label shift), and that probabilities are calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.json import jsonable
from .groups import bootstrap_counts, encode_groups

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .groups import FloatArray

MIN_SAMPLES = 4
"""Samples below which the estimate has no interval."""
LEVEL = 0.9
"""Nominal coverage of the interval of the prevalence."""
_BINS = 200
_STEPS = 40
_CLIP = 1e-12


@dataclass(frozen=True, eq=False)
class PriorShift:
    """Estimated prevalence of sensitive cells and the probabilities that follow from it."""

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
        names = ("prevalence", "low", "high", "train_prevalence", "level", "n_samples", "shifted", "note")
        return {"method": "em", **{name: jsonable(getattr(self, name)) for name in names}}

    def statement(self) -> str:
        """One sentence for logs, tables and reports."""
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
    n_boot: int = 500,
    rng: np.random.Generator | int = 0,
) -> PriorShift:
    """Estimate the prevalence of sensitive cells among new cells and correct their probabilities.

    Parameters
    ----------
    prob
        Calibrated P(sensitive) of the new cells, shape `(n,)`.
    groups
        Group (sample) of each cell; every group weighs the same.
    train_prevalence
        Prevalence for which `prob` is calibrated (`Calibration.prevalence`).
    n_boot
        Number of times that groups are redrawn for the 90 % interval of the prevalence.
    rng
        Seed or generator.

    Returns
    -------
    Prevalence with interval (`NaN` below 4 groups) and corrected probabilities, in the order of the input.

    Examples
    --------
    >>> found = correct_prior([0.8] * 65 + [0.2] * 35, ["a"] * 100, train_prevalence=0.5)
    >>> round(found.prevalence, 3), found.prob.round(3)[[0, 99]].tolist()
    (0.75, [0.923, 0.429])
    """
    p = np.asarray(prob, dtype=np.float64)
    codes, names = encode_groups(groups)
    # Sums over bins of each group carry all that the estimates need, whatever the number of cells.
    bins = np.minimum((p * _BINS).astype(np.intp), _BINS - 1)
    size = np.bincount(codes)
    flat = codes * _BINS + bins
    mass = (np.bincount(flat, minlength=len(names) * _BINS) / np.repeat(size, _BINS)).reshape(len(names), _BINS)
    total = np.bincount(bins, minlength=_BINS)
    center = np.divide(np.bincount(bins, weights=p, minlength=_BINS), total, out=np.full(_BINS, 0.5), where=total > 0)
    draws = bootstrap_counts(np.zeros(len(names), dtype=np.intp), n_boot, np.random.default_rng(rng))
    ratio = _likelihood_ratio(p, train_prevalence)
    prevalence = float(_maximize((1.0 / size[codes] / len(names))[None, :], ratio)[0])
    drawn = _maximize(draws @ mass / len(names), _likelihood_ratio(center, train_prevalence))
    # With n cells seen, a class that seems to be absent may still be half a cell of them: odds stay finite.
    floor = 1 / (2 * len(p) + 2)
    prevalence, drawn = min(max(prevalence, floor), 1 - floor), np.clip(drawn, floor, 1 - floor)
    low, high = (
        np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(names) >= MIN_SAMPLES else (np.nan, np.nan)
    )
    edge = min(prevalence, 1 - prevalence) < 0.01
    return PriorShift(
        prevalence=prevalence,
        low=float(low),
        high=float(high),
        level=LEVEL,
        train_prevalence=train_prevalence,
        n_samples=len(names),
        note="The estimate is at the edge of the range: a single class seems to be present." if edge else "",
        prob=prevalence * ratio / (prevalence * ratio + 1 - prevalence),
    )


def _likelihood_ratio(p: FloatArray, prevalence: float) -> FloatArray:
    """How much more likely a cell is among sensitive than among resistant cells."""
    p = np.clip(p, _CLIP, 1 - _CLIP)
    return p / (1 - p) * (1 - prevalence) / prevalence


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
