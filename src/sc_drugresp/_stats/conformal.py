"""Calls with a stated error level: conformal prediction sets whose unit is the group (sample).

A cell's set holds each class that its score does not contradict at error level `alpha`: {sensitive}, {resistant}, both
(uncertain) or none (unlike either class). Cells of one group are not exchangeable with cells of a new one, so groups are
the unit: quantiles of cells alone would be overconfident.

Sources: Dunn, Wasserman & Ramdas (2023, arXiv:1809.07441) for pooled distribution functions of two-layer data; Vovk et al.
(2005) for class-conditional (Mondrian) sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .groups import encode_groups, equal_weights, groups_per_class, weighted_quantile
from .state import State

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .groups import BoolArray, FloatArray, IntArray

MIN_PER_CLASS = 4
"""Held-out samples of each class below which no error level is stated: a single one would decide the threshold."""
_LEVELS = np.linspace(0.5, 1.0, 501)
_GRID = 1_000


@dataclass(frozen=True, eq=False)
class Conformal(State):
    """Thresholds on the logit that give each class a stated error level."""

    status: str
    """`"OK"` or `"TOO_FEW_SAMPLES"`; then every cell is uncertain and `reason` says what is missing."""
    reason: str
    alpha: float
    n_sensitive: int
    n_resistant: int
    thresholds: FloatArray
    """"Sensitive" is in the set of a cell if its logit is at least the first, "resistant" if at most the second."""

    @property
    def available(self) -> bool:
        """Whether there were enough samples for the stated error level."""
        return self.status == "OK"

    def sets(self, logits: ArrayLike) -> BoolArray:
        """Prediction sets: columns sensitive, resistant; shape `(n, 2)`.

        Parameters
        ----------
        logits
            Scores of the head, larger = more sensitive. A score that is missing excludes nothing.
        """
        z = np.asarray(logits, dtype=np.float64)
        low, high = self.thresholds
        return np.column_stack([(z >= low) | np.isnan(z), (z <= high) | np.isnan(z)])

    def statement(self) -> str:
        """What the calls promise, in one sentence for tables and reports."""
        if not self.available:
            return f"No error level can be stated: {self.reason}."
        return (
            f"Calls aim at an error of {self.alpha:.0%} for a random cell of a new sample, in each class "
            f"({self.n_sensitive} sensitive, {self.n_resistant} resistant samples); an estimate, not a guarantee."
        )


def fit_conformal(logits: ArrayLike, y: ArrayLike, groups: ArrayLike, *, alpha: float = 0.1) -> Conformal:
    """Find the logits from which a class may be excluded at error level `alpha`, for each class on its own.

    Every group has the same mass. The quantile is the one at which groups that are left out in turn are covered at
    `1 - alpha` on average: coverage close to nominal, without a proof.

    Parameters
    ----------
    logits
        Scores of cells by a head that was fitted without their group, shape `(n,)`.
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    groups
        Group (patient, cell line) of each cell, shape `(n,)`.
    alpha
        Error level.

    Returns
    -------
    Thresholds; with fewer than four groups of a class `status` is `"TOO_FEW_SAMPLES"`, `reason` says what is missing and
    all cells are uncertain.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(np.arange(12), 50)
    >>> y = groups % 2
    >>> fitted = fit_conformal(rng.normal(4.0 * y - 2), y, groups)
    >>> fitted.sets([-3.0, 3.0]).tolist()
    [[False, True], [True, False]]
    """
    z, labels = np.asarray(logits, dtype=np.float64), np.asarray(y)
    codes, _ = encode_groups(groups)
    n_resistant, n_sensitive = groups_per_class(labels, codes)
    found: dict[str, Any] = {"alpha": float(alpha), "n_sensitive": n_sensitive, "n_resistant": n_resistant}
    if min(n_sensitive, n_resistant) < MIN_PER_CLASS:
        reason = (
            f"an error level of {alpha:.0%} needs {MIN_PER_CLASS} held-out samples of each class, found {n_sensitive} "
            f"sensitive and {n_resistant} resistant"
        )
        return Conformal(status="TOO_FEW_SAMPLES", reason=reason, thresholds=np.array([-np.inf, np.inf]), **found)
    # Nonconformity is the score against the class: -logit for sensitive, logit for resistant.
    low = -_quantile(-z[labels == 1], codes[labels == 1], alpha)
    high = _quantile(z[labels == 0], codes[labels == 0], alpha)
    return Conformal(status="OK", reason="", thresholds=np.array([low, high]), **found)


def _quantile(scores: FloatArray, codes: IntArray, alpha: float) -> float:
    codes = np.unique(codes, return_inverse=True)[1]
    weights = equal_weights(codes)
    return weighted_quantile(scores, weights, _left_out_level(scores, codes, weights, alpha))


def _left_out_level(scores: FloatArray, codes: IntArray, weights: FloatArray, alpha: float) -> float:
    """Smallest level at which each group, left out in turn, is covered at `1 - alpha` on average.

    The plain level `1 - alpha` covers new groups too rarely, the more so the fewer and the more different they are.
    """
    order = np.argsort(scores, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    at = np.unique(np.minimum(np.searchsorted(share, np.linspace(0, 1, _GRID)), len(scores) - 1))
    grid = scores[order][at]
    n = int(codes.max()) + 1
    by_group = np.split(scores[np.argsort(codes, kind="stable")], np.cumsum(np.bincount(codes))[:-1])
    # Distribution function of each group on the grid, (groups, grid).
    inside = np.array([np.searchsorted(np.sort(values), grid, side="right") / len(values) for values in by_group])
    covered = np.zeros(len(_LEVELS))
    total = inside.sum(axis=0)
    for own in inside:
        rest = (total - own) / (n - 1)
        index = np.searchsorted(rest, np.minimum(_LEVELS, rest[-1]) - 1e-12)
        covered += own[np.minimum(index, len(grid) - 1)] / n
    enough = np.flatnonzero(covered >= 1 - alpha - 1e-12)
    return float(_LEVELS[enough[0]]) if len(enough) else 1.0
