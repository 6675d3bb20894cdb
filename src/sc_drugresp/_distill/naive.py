"""What a student must beat: a ridge regression on the same inputs, and principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..models._refits import axes_of, column_sums, products

if TYPE_CHECKING:
    from scipy import sparse

    from .scales import Scales

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Per cell; the one that does best on the samples by which training stops is taken."""


@dataclass(frozen=True)
class Linear:
    """A linear map of standardized inputs to standardized targets: `weights` `(n_inputs, dim)` and `level` `(dim,)`."""

    weights: np.ndarray
    level: np.ndarray
    scales: Scales

    def predict(self, rows: sparse.csr_matrix) -> np.ndarray:
        """Standardized targets of rows of profiles."""
        weights = self.weights / self.scales.input_scale[:, None]
        return rows @ weights - self.scales.input_mean @ weights + self.level


class Naive:
    """Fits to the profiles that the student learns from, from sums over cells.

    Parameters
    ----------
    profiles, targets
        Inputs and standardized targets of the cells to learn from.
    scales
        Means and spreads of both.
    """

    def __init__(self, profiles: sparse.csr_matrix, targets: np.ndarray, scales: Scales) -> None:
        self.profiles, self.targets, self.scales, self.n = profiles, targets, scales, profiles.shape[0]
        self.products = products(profiles)
        self.mean = column_sums(profiles) / self.n

    def ridge(self, stop: sparse.csr_matrix, stop_targets: np.ndarray) -> Linear:
        """The regression with the penalty that suits the rows of `stop` best."""
        from scipy.linalg import solve

        scale = self.scales.input_scale.astype(np.float64)
        gram = (self.products - self.n * np.outer(self.mean, self.mean)) / np.outer(scale, scale)
        level = self.targets.mean(axis=0, dtype=np.float64)
        cross = (self.profiles.T @ (self.targets - level).astype(np.float64)) / scale[:, None]
        fits = []
        for penalty in PENALTIES:
            weights = solve(gram + penalty * self.n * np.eye(len(gram)), cross, assume_a="pos")
            fits.append(Linear(weights.astype(np.float32), level.astype(np.float32), self.scales))
        return min(fits, key=lambda fit: float(np.mean((fit.predict(stop) - stop_targets) ** 2)))

    def components(self, n_comps: int, *rows: sparse.csr_matrix) -> list[np.ndarray]:
        """Coordinates of rows along the principal axes of the genes; the depth is left out."""
        n_genes = self.profiles.shape[1] - 1
        n_comps = min(n_comps, self.n - 1, n_genes - 1)
        mean = self.mean[:n_genes]
        axes = axes_of(self.products[:n_genes, :n_genes], mean, self.n, n_comps)
        return [(part[:, :n_genes] @ axes - mean @ axes).astype(np.float32) for part in rows]


def regress(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Linear regression of `y` on `x`, for `new` rows."""
    center, level = x.mean(axis=0), y.mean(axis=0)
    weights, *_ = np.linalg.lstsq(x - center, y - level, rcond=None)
    return ((new - center) @ weights + level).astype(np.float32)
