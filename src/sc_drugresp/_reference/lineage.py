"""Which tissue a sample looks most like, and whether that contradicts what it is said to be.

The nearest lineage alone would be wrong for every third line of its own screen: lung and basal breast lines look like other
epithelia. So a sample contradicts its lineage only if it is further from it than nearly all lines of that lineage are, or
if it looks like blood where a solid tumor is stated, or the other way around: T cells resemble leukemia lines at an
ordinary distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..names import lineages_agree
from .card import MIN_LINES

if TYPE_CHECKING:
    from collections.abc import Sequence


USUAL = 0.95
"""Share of the lines of a lineage whose gap is taken as usual."""
BLOOD = frozenset({"blood", "lymphoid", "myeloid", "plasma cell"})


def lineage_centroids(Z: np.ndarray, tissue: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Mean standardized profile of every lineage with at least five lines, shape `(n_lineages, n_genes)`."""
    names, counts = np.unique(tissue[tissue != ""].astype(str), return_counts=True)
    kept = [str(name) for name, n in zip(names, counts) if n >= MIN_LINES]
    return kept, np.array([Z[tissue == name].mean(axis=0) for name in kept]).reshape(len(kept), Z.shape[1])


def likeness(Z: np.ndarray, centroids: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Correlation of samples with the centroids of lineages, shape `(n, n_lineages)`.

    The mean over lineages is taken from the centroids first: what all of them share cannot tell them apart, and the effect
    of an unknown platform is shared.
    """
    if not len(centroids):
        return np.zeros((len(Z), 0))
    a, b = Z[:, seen], centroids[:, seen] - centroids[:, seen].mean(axis=0)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    return a @ b.T / np.maximum(lengths, 1e-12)


def usual_gaps(Z: np.ndarray, tissue: np.ndarray, lineages: Sequence[str], centroids: np.ndarray) -> np.ndarray:
    """How much less than the nearest lineage 95 % of the lines of a lineage resemble their own, shape `(n_lineages,)`.

    A line is compared with a centroid that it is not part of.
    """
    everywhere = np.ones(Z.shape[1], dtype=bool)
    limits = np.zeros(len(lineages))
    for k, name in enumerate(lineages):
        rows = np.flatnonzero(tissue == name)
        gaps = []
        for row in rows:
            without = centroids.copy()
            without[k] = (centroids[k] * len(rows) - Z[row]) / (len(rows) - 1)
            like = likeness(Z[row : row + 1], without, everywhere)[0]
            gaps.append(like.max() - like[k])
        limits[k] = np.quantile(gaps, USUAL)
    return limits


def contradiction(like: np.ndarray, lineages: Sequence[str], gaps: np.ndarray, stated: str | None) -> str:
    """Why a sample cannot be of the lineage that is stated, or `''`.

    Parameters
    ----------
    like
        Row of :func:`likeness`.
    lineages
        Names of its columns.
    gaps
        From :func:`usual_gaps`.
    stated
        The lineage; `None`, or one that the reference does not have, contradicts nothing.
    """
    own = [k for k, name in enumerate(lineages) if lineages_agree(name, stated)]
    if not own:
        return ""
    nearest = lineages[int(np.argmax(like))]
    near = max(own, key=lambda k: like[k])
    other_side = (nearest in BLOOD) != (lineages[near] in BLOOD)
    if not other_side and like.max() - like[near] <= gaps[near]:
        return ""
    return f"lineage: looks like {nearest} (r {like.max():.2f}), stated is {stated} (r {like[near]:.2f})"
