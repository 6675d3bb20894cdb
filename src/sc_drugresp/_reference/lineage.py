"""Which tissue a sample looks most like."""

from __future__ import annotations

import numpy as np

from .card import MIN_LINES


def lineage_centroids(Z: np.ndarray, tissue: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Mean standardized profile of every lineage with at least five lines, shape `(n_lineages, n_genes)`."""
    names, counts = np.unique(tissue[tissue != ""], return_counts=True)
    kept = [str(name) for name, n in zip(names, counts) if n >= MIN_LINES]
    return kept, np.array([Z[tissue == name].mean(axis=0) for name in kept]).reshape(len(kept), Z.shape[1])


def likeness(Z: np.ndarray, centroids: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Correlation of samples with the centroids of lineages, shape `(n, n_lineages)`.

    The mean over lineages is taken from the centroids first: what all of them share cannot tell them apart.
    """
    a, b = Z[:, seen], centroids[:, seen] - centroids[:, seen].mean(axis=0)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    return a @ b.T / np.maximum(lengths, 1e-12)
