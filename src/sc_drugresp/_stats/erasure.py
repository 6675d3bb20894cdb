"""Erase a concept from an embedding in closed form (LEACE: Belrose et al. 2023, arXiv:2306.03819)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .groups import FloatArray

_SINGULAR = 1e-8


@dataclass(frozen=True)
class Eraser:
    """An affine map that removes a concept: `x - ((x - mean) @ read) * write`."""

    mean: FloatArray
    read: FloatArray
    """`(d,)`, reads the concept; zero if there is nothing to erase."""
    write: FloatArray
    """`(d,)`, what is subtracted for it."""

    def transform(self, X: ArrayLike) -> FloatArray:
        """Erase the concept from embeddings.

        Parameters
        ----------
        X
            Embedding, `(n, d)`.
        """
        cells = np.asarray(X, dtype=np.float64)
        return cells - np.outer((cells - self.mean) @ self.read, self.write)


def fit_eraser(X: ArrayLike, concept: ArrayLike, weights: ArrayLike) -> Eraser:
    """Find the smallest linear change after which `concept` and the embedding are uncorrelated.

    With `S` the covariance of the embedding, `C` its covariance with the concept and `W` the inverse square root of `S`,
    the change removes the projection onto `W C` in whitened space. `S` is shrunk (Ledoit and Wolf), which
    leaves the erasure exact and keeps it stable with fewer cells than dimensions.

    Parameters
    ----------
    X
        Embedding of the training cells, `(n, d)`.
    concept
        One number per cell, `(n,)`.
    weights
        Weight of each cell.

    Returns
    -------
    The map; it changes nothing if the concept is constant.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> treated = np.arange(100) % 2
    >>> X = rng.normal(size=(100, 3)) + treated[:, None]
    >>> erased = fit_eraser(X, treated, np.ones(100)).transform(X)
    >>> bool(np.allclose(erased[treated == 0].mean(0), erased[treated == 1].mean(0)))
    True
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    cells = np.asarray(X, dtype=np.float64)
    numbers, w = np.asarray(concept, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    w = w / w.sum()
    mean = w @ cells
    centered = cells - mean
    rooted = centered * np.sqrt(w * len(w))[:, None]
    covariance = rooted.T @ rooted / len(w)
    amount = ledoit_wolf_shrinkage(rooted, assume_centered=True)
    average = np.trace(covariance) / len(mean)
    covariance = (1 - amount) * covariance + amount * average * np.eye(len(mean))
    values, vectors = np.linalg.eigh(covariance)
    keep = values > _SINGULAR * max(values[-1], 0.0)
    vectors, root = vectors[:, keep], np.sqrt(values[keep])
    concept_centered = numbers - w @ numbers
    cross = (centered * w[:, None]).T @ concept_centered
    # Only directions in which the embedding varies can carry the concept; work in their whitened coordinates.
    direction = (vectors / root).T @ cross
    strength, spread = np.linalg.norm(direction), np.sqrt(w @ np.square(concept_centered))
    if not strength > _SINGULAR * spread:
        return Eraser(mean, np.zeros_like(mean), np.zeros_like(mean))
    direction = direction / strength
    return Eraser(mean, (vectors / root) @ direction, (vectors * root) @ direction)
