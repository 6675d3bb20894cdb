"""Distances between cells, classes and groups (samples) in a standardized embedding; used by :mod:`.ood`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from .groups import FloatArray, IntArray

N_COMPONENTS = 64
MIN_CELLS = 10
"""Cells from which a group is compared as a whole."""
BLOCK = 8_192


@dataclass(frozen=True, eq=False)
class Space:
    """Standardized principal coordinates of reference cells, with their classes."""

    center: FloatArray
    scale: FloatArray
    components: FloatArray
    cells: NDArray[np.float32]
    means: FloatArray
    precision: FloatArray

    @classmethod
    def of(cls, X: FloatArray, labels: IntArray, n_axes: int) -> Space:
        """Learn the space from the embedding of reference cells.

        Distances grow with the number of axes: those of two spaces can be compared only if they have the same.
        """
        center, spread = X.mean(axis=0), X.std(axis=0)
        if not spread.max() > 0:
            msg = "All training cells have the same embedding: nothing can be called unusual. Check the encoder."
            raise ValueError(msg)
        scale = np.where(spread > 1e-8 * spread.max(), spread, 1.0)
        values = (X - center) / scale
        components = principal_axes(values, n_axes)
        points = coordinates(values, components)
        return cls(center, scale, components, points.astype(np.float32), *class_means(points, labels))

    def points(self, X: FloatArray) -> FloatArray:
        """Coordinates of cells; a missing embedding is put at the center."""
        return coordinates((np.where(np.isnan(X), self.center, X) - self.center) / self.scale, self.components)

    def distances(self, points: FloatArray, k: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Distance to the k-th and to the first reference cell, and to the nearer class mean."""
        finder = neighbors(self.cells, min(k, len(self.cells)))
        near = np.asarray(finder.kneighbors(points.astype(np.float32))[0], dtype=np.float64)
        return near[:, -1], near[:, 0], mahalanobis(points, self.means, self.precision)


def mean_cosine(X: ArrayLike) -> float:
    """Mean cosine between pairs of different cells, in one pass over the cells.

    Parameters
    ----------
    X
        Embedding, `(n, d)`; rows with `NaN` are left out. The result is `NaN` for fewer than two cells.
    """
    cells = np.asarray(X)
    total, squares, n = 0.0, 0.0, 0
    for _, block in blocks(cells):
        block = block[~np.isnan(block).any(axis=1)]
        length = np.linalg.norm(block, axis=1, keepdims=True)
        units = np.divide(block, length, out=np.zeros_like(block), where=length > 0)
        total, squares, n = total + units.sum(axis=0), squares + float(np.square(units).sum()), n + len(units)
    if n < 2:
        return np.nan
    # |sum of units|^2 holds every pair twice and each cell with itself once.
    return float((np.square(total).sum() - squares) / (n * (n - 1)))


def blocks(cells: NDArray[Any]) -> Iterator[tuple[slice, FloatArray]]:
    """Some thousand cells at once, as float64: the whole embedding is never copied."""
    for start in range(0, len(cells), BLOCK):
        rows = slice(start, start + BLOCK)
        yield rows, np.asarray(cells[rows], dtype=np.float64)


def finite_rows(cells: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of the cells without a missing value."""
    return np.concatenate([np.isfinite(block).all(axis=1) for _, block in blocks(cells)] or [np.zeros(0, dtype=bool)])


def neighbors(cells: NDArray[np.float32], k: int) -> Any:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(cells)


def axes_for(n_cells: int, dim: int) -> int:
    """Principal axes that so many cells can support."""
    return min(N_COMPONENTS, dim, max(n_cells // 10, 1))


def principal_axes(cells: FloatArray, n: int) -> FloatArray:
    from sklearn.decomposition import PCA

    solver = "covariance_eigh" if cells.shape[1] < len(cells) else "full"
    return np.asarray(PCA(n, svd_solver=solver).fit(cells).components_, dtype=np.float64)


def coordinates(values: FloatArray, components: FloatArray) -> FloatArray:
    """Coordinates along the principal axes, and the length of what they leave out."""
    along = values @ components.T
    if len(components) == values.shape[1]:
        return along
    across = np.sqrt(np.maximum(np.square(values).sum(axis=1) - np.square(along).sum(axis=1), 0.0))
    return np.column_stack([along, across])


def class_means(points: FloatArray, labels: IntArray) -> tuple[FloatArray, FloatArray]:
    """Class means and the shared, shrunk precision matrix."""
    from sklearn.covariance import LedoitWolf

    present, own = np.unique(labels, return_inverse=True)
    means = np.array([points[labels == k].mean(axis=0) for k in present])
    fitted = LedoitWolf(assume_centered=True).fit(points - means[own])
    return means, np.asarray(fitted.precision_, dtype=np.float64)


class GroupMoments:
    """Sums over the cells of each group from which its mean and spread follow."""

    def __init__(self, n_groups: int, dim: int) -> None:
        self.n = np.zeros(n_groups)
        self.first, self.second = np.zeros((n_groups, dim)), np.zeros((n_groups, dim, dim))

    def add(self, points: FloatArray, codes: IntArray) -> None:
        for code in np.unique(codes):
            own = points[codes == code]
            self.n[code] += len(own)
            self.first[code] += own.sum(axis=0)
            self.second[code] += own.T @ own

    def shift_and_spread(self, means: FloatArray, precision: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Log distance of the group's mean to the nearer class, and log mean variance, both whitened."""
        n = np.maximum(self.n, 1)
        center = self.first / n[:, None]
        covariance = self.second / n[:, None, None] - center[:, :, None] * center[:, None, :]
        variance = np.einsum("sde,ed->s", covariance, precision) / len(precision)
        tiny = np.finfo(np.float64).tiny
        return np.log(np.maximum(mahalanobis(center, means, precision), tiny)), np.log(np.maximum(variance, tiny)) / 2


def mahalanobis(points: FloatArray, means: FloatArray, precision: FloatArray) -> FloatArray:
    """Distance to the nearest class mean."""
    root = np.linalg.cholesky(precision)
    gaps = (points @ root)[:, None, :] - means @ root
    return np.asarray(np.sqrt(np.square(gaps).sum(axis=2)).min(axis=1))
