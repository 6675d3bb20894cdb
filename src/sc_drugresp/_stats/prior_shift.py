"""Other prevalence than in training: estimate it, correct for it, and say so - or say that these data cannot tell.

Sources: Saerens, Latinne & Decaestecker (2002, Neural Computation 14:21) for the estimate; Fieller (1954, J. R. Stat. Soc. B
16:175) for limits of a ratio by inverting a test, which are unbounded where the denominator may be zero. Assumes that cells
of a class look alike in training and here (label shift), and that probabilities are calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.json import jsonable
from .groups import encode_groups
from .state import State

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .groups import BoolArray, FloatArray

MIN_SAMPLES, MIN_PER_CLASS = 4, 6
"""New samples below which the estimate has no interval, and training samples of a class below which nothing is estimated."""
LEVEL = 0.9
"""Nominal coverage of the interval of the prevalence."""
_FLAT = 0.01
"""One-sided p-value above which the mean scores of both classes are taken to be the same."""
_INNER = 0.95
"""Level of the test that is inverted. An estimate is made only where the classes look different, and then they look more
different than they are: half of the permitted error is kept for that."""
_STEPS, _GRID = 40, 1_001
_CLIP = 1e-12


@dataclass(frozen=True, eq=False)
class ClassScores(State):
    """Mean P(sensitive) of held-out samples of each class, resistant first, and how well it is known."""

    n: FloatArray
    """Samples of each class."""
    means: FloatArray
    covariance: FloatArray
    """Of the means, `(2, 2)`; samples with both classes make them depend on each other."""

    @classmethod
    def of(cls, prob: ArrayLike, y: ArrayLike, groups: ArrayLike) -> ClassScores:
        """Learn from held-out cells; every sample weighs the same within its class.

        Two numbers of the calibration were fitted to the same samples, which the covariance allows for.

        Parameters
        ----------
        prob
            Calibrated P(sensitive).
        y
            1 = sensitive, 0 = resistant.
        groups
            Sample of each cell.
        """
        p, labels, (codes, names) = np.asarray(prob, dtype=np.float64), np.asarray(y), encode_groups(groups)
        flat = labels * len(names) + codes
        size = np.bincount(flat, minlength=2 * len(names)).reshape(2, -1)
        total = np.bincount(flat, weights=p, minlength=2 * len(names)).reshape(2, -1)
        here, n = size > 0, (size > 0).sum(axis=1)
        each = total / np.maximum(size, 1)
        means = (each * here).sum(axis=1) / np.maximum(n, 1)
        rest = (each - means[:, None]) * here
        few = np.where(n > 1, n / np.maximum(n - 1, 1), np.nan) * n.sum() / max(n.sum() - 2, 1)
        covariance = rest @ rest.T * np.sqrt(np.outer(few, few)) / np.maximum(np.outer(n, n), 1)
        return cls(n.astype(np.float64), means, covariance)

    @property
    def flat(self) -> bool:
        """Whether the score does not tell the classes apart for certain."""
        from scipy.stats import t

        variance, df = _welch(np.array([[1.0, -1.0]]), self)
        if not np.isfinite(variance[0]) or not variance[0] > 0:
            return not (self.means[1] > self.means[0] and np.isfinite(variance[0]))
        return bool(t.sf((self.means[1] - self.means[0]) / np.sqrt(variance[0]), df[0]) > _FLAT)


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
    refused: str
    """Why there is no estimate; the probabilities are then those that were given, all else is `NaN`."""
    prob: FloatArray
    """P(sensitive) under the estimated prevalence, `(n,)`."""

    @property
    def shifted(self) -> bool:
        """Whether the interval leaves out the prevalence of training."""
        return bool(np.isfinite(self.low) and not self.low <= self.train_prevalence <= self.high)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values for `.uns` and cards, without the probabilities."""
        names = ("prevalence", "low", "high", "train_prevalence", "level", "n_samples", "shifted", "note", "refused")
        return {"method": "em", "statement": self.statement()} | {name: jsonable(getattr(self, name)) for name in names}

    def statement(self) -> str:
        """One sentence for logs, tables and reports."""
        if self.refused:
            return f"The prevalence was not estimated, and probabilities are unchanged: {self.refused}."
        limits = (
            f" ({self.low:.2f} to {self.high:.2f})" if np.isfinite(self.low) else " (too few samples for an interval)"
        )
        text = f"Estimated prevalence of sensitive cells {self.prevalence:.2f}{limits}, in training {self.train_prevalence:.2f}."
        return f"{text} {self.note}".strip()


def correct_prior(prob: ArrayLike, groups: ArrayLike, *, train_prevalence: float, classes: ClassScores) -> PriorShift:
    """Estimate the prevalence of sensitive cells among new cells and correct their probabilities.

    The estimate maximizes the likelihood of the mixture. Its interval holds each prevalence at which the mean score of the new
    samples is compatible with the class means of held-out training samples: it knows that both are estimates. If the class
    means are not told apart for certain, or no prevalence or every one is compatible, nothing is estimated.

    Parameters
    ----------
    prob
        Calibrated P(sensitive) of the new cells, shape `(n,)`.
    groups
        Group (sample) of each cell; every group weighs the same.
    train_prevalence
        Prevalence for which `prob` is calibrated (`Calibration.prevalence`).
    classes
        Scores of held-out training samples.

    Returns
    -------
    Prevalence with its 90 % interval (`NaN` below 4 groups) and corrected probabilities, in the order of the input; or the
    reason of the refusal and the probabilities as they were.

    Examples
    --------
    >>> known = ClassScores.of([0.8, 0.7, 0.3, 0.2] * 3, [1, 1, 0, 0] * 3, range(12))
    >>> found = correct_prior([0.8] * 65 + [0.2] * 35, ["a"] * 100, train_prevalence=0.5, classes=known)
    >>> round(found.prevalence, 3), found.prob.round(3)[[0, 99]].tolist()
    (0.75, [0.923, 0.429])
    """
    p = np.asarray(prob, dtype=np.float64)
    codes, names = encode_groups(groups)
    common: dict[str, Any] = {"level": LEVEL, "train_prevalence": train_prevalence, "n_samples": len(names)}

    def refuse(reason: str) -> PriorShift:
        return PriorShift(prevalence=np.nan, low=np.nan, high=np.nan, note="", refused=reason, prob=p, **common)

    if classes.n.min() < MIN_PER_CLASS:
        n_resistant, n_sensitive = classes.n.astype(int)
        return refuse(
            f"this needs {MIN_PER_CLASS} held-out samples of each class, found {n_sensitive} sensitive and {n_resistant} resistant"
        )
    if classes.flat:
        return refuse("the score does not tell sensitive from resistant held-out samples for certain")
    size = np.bincount(codes)
    each = np.bincount(codes, weights=p) / size
    ratio = _likelihood_ratio(p, train_prevalence)
    prevalence = _maximize(1.0 / size[codes] / len(names), ratio)
    # With n cells seen, a class that seems to be absent may still be half a cell of them: odds stay finite.
    floor = 1 / (2 * len(p) + 2)
    low = high = np.nan
    if len(names) >= MIN_SAMPLES:
        grid = np.linspace(0, 1, _GRID)
        inside = grid[_compatible(grid, each, classes)]
        if not len(inside):
            return refuse("the scores here are unlike any mixture of the classes in training")
        low, high = float(inside.min()), float(inside.max())
        if low == 0 and high == 1:
            return refuse("the scores here are compatible with any prevalence")
        prevalence = min(max(prevalence, low), high)
    prevalence = min(max(prevalence, floor), 1 - floor)
    edge = min(prevalence, 1 - prevalence) < 0.01
    return PriorShift(
        prevalence=prevalence,
        low=min(low, prevalence),
        high=max(high, prevalence),
        note="The estimate is at the edge of the range: a single class seems to be present." if edge else "",
        refused="",
        prob=prevalence * ratio / (prevalence * ratio + 1 - prevalence),
        **common,
    )


def _compatible(grid: FloatArray, each: FloatArray, classes: ClassScores) -> BoolArray:
    """Mixtures of the class means that the mean of the new samples does not contradict (Welch's test)."""
    from scipy.stats import t

    mix = np.column_stack([1 - grid, grid])
    own = float(each.var(ddof=1)) / len(each)
    variance, df = _welch(mix, classes, own, len(each))
    gap = np.abs(each.mean() - mix @ classes.means)
    return np.asarray(gap <= t.ppf(0.5 + _INNER / 2, df) * np.sqrt(variance) + 1e-12)


def _welch(
    weights: FloatArray, classes: ClassScores, own: float = 0.0, n_own: int = 2
) -> tuple[FloatArray, FloatArray]:
    """Variance of weighted class means and of an independent mean, and its degrees of freedom (Satterthwaite)."""
    variance = np.einsum("gi,ij,gj->g", weights, classes.covariance, weights) + own
    parts = np.square(weights) * np.diag(classes.covariance)
    spread = (np.square(parts) / np.maximum(classes.n - 1, 1)).sum(axis=1) + own**2 / (n_own - 1)
    return variance, np.maximum(np.square(variance) / np.maximum(spread, 1e-300), 1.0)


def _likelihood_ratio(p: FloatArray, prevalence: float) -> FloatArray:
    """How much more likely a cell is among sensitive than among resistant cells."""
    p = np.clip(p, _CLIP, 1 - _CLIP)
    return p / (1 - p) * (1 - prevalence) / prevalence


def _maximize(weights: FloatArray, ratio: FloatArray) -> float:
    """Most likely prevalence: where the slope of the concave log-likelihood changes sign.

    This is the point that the steps of expectation maximization climb to; bisection gets there at a known cost.
    """
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        slope = float(weights @ ((ratio - 1) / (middle * (ratio - 1) + 1)))
        low, high = (middle, high) if slope > 0 else (low, middle)
    return (low + high) / 2
