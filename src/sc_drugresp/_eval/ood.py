"""Cells that the training data say nothing about: distance in the embedding, and what can be seen before it.

Sources: Sun et al. (2022, arXiv:2204.06507) for the distance to the k-th neighbor, Lee et al. (2018, arXiv:1807.03888) for
class-conditional Mahalanobis distances with a shared covariance (here shrunk as Ledoit and Wolf, 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._samples import State, check_labels, encode_groups, equal_weights, weighted_quantile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from ._samples import BoolArray, FloatArray, IntArray

MAX_REFERENCE = 2_000
N_COMPONENTS = 64
COLLAPSED = 0.98
MIN_COVERAGE = 0.8
DEPTH_MARGIN = 2.0
REASONS = {
    1: "far from the training cells (nearest neighbors)",
    2: "far from both classes (Mahalanobis)",
    4: "genes known to the model hold less than 80 % of the counts",
    8: "sequencing depth outside the training range",
    16: "embedding collapsed (cells are nearly identical)",
    32: "other species than the training cells",
    64: "no embedding (no gene that the model knows is expressed)",
}
"""Bits of `OODResult.codes` and their meaning."""
_KNN, _MAHALANOBIS, _GENES, _DEPTH, _COLLAPSE, _SPECIES, _EMPTY = REASONS
_BLOCK = 8_192


@dataclass(frozen=True, eq=False)
class OODReference(State):
    """A bounded sample of the training cells and the distances that are usual between samples."""

    k: int
    quantile: float
    n_samples: int
    knn_threshold: float
    mahalanobis_threshold: float
    depth_low: float
    depth_high: float
    species: str | None
    training_cosine: float
    note: str
    center: FloatArray
    scale: FloatArray
    cells: NDArray[np.float32]
    """Coordinates of the reference cells, `(m, c)` or `(m, c + 1)`."""
    components: FloatArray
    """Principal axes of the standardized embedding, `(c, d)`. Distances are between coordinates along these axes and, if
    there are more dimensions than axes, the length of what the axes leave out."""
    means: FloatArray
    precision: FloatArray

    def score(
        self,
        X: ArrayLike,
        *,
        gene_coverage: ArrayLike | None = None,
        depth: ArrayLike | None = None,
        species: str | None = None,
    ) -> OODResult:
        """Measure how unlike the training cells each cell is.

        Parameters
        ----------
        X
            Embedding of cells, `(n, d)`, from the encoder that made the reference. Rows of `NaN` are flagged.
        gene_coverage
            Share of each cell's counts that falls on genes known to the encoder.
        depth
            Total counts of each cell.
        species
            Species of the cells.

        Returns
        -------
        Score, flag and reasons of each cell.

        Raises
        ------
        ValueError
            The embedding has another width, or values that are infinite.
        """
        cells = _check_embedding(X, len(self.center))
        n = len(cells)
        codes = np.zeros(n, dtype=np.intp)
        knn, maha, empty = np.empty(n), np.empty(n), np.zeros(n, dtype=bool)
        finder = _neighbors(self.cells, self.k)
        for rows, block in _blocks(cells):
            empty[rows] = np.isnan(block).any(axis=1)
            points = _coordinates((np.where(np.isnan(block), 0.0, block) - self.center) / self.scale, self.components)
            knn[rows] = finder.kneighbors(points.astype(np.float32))[0][:, -1]
            maha[rows] = _mahalanobis(points, self.means, self.precision)
        codes[knn > self.knn_threshold] |= _KNN
        codes[maha > self.mahalanobis_threshold] |= _MAHALANOBIS
        if gene_coverage is not None:
            codes[_per_cell(gene_coverage, n, "gene_coverage") < MIN_COVERAGE] |= _GENES
        if depth is not None:
            total = _per_cell(depth, n, "depth")
            # NaN limits (depth of the training cells unknown) compare as false.
            codes[(total < self.depth_low) | (total > self.depth_high)] |= _DEPTH
        notes = []
        cosine = mean_cosine(cells)
        if cosine > COLLAPSED and self.training_cosine > COLLAPSED:
            notes.append(f"the embedding is nearly constant in the training cells, too (mean cosine {cosine:.3f})")
        elif cosine > COLLAPSED:
            codes |= _COLLAPSE
        if species is not None and self.species is not None and species.lower() != self.species.lower():
            codes |= _SPECIES
        ratio = np.maximum(knn / self.knn_threshold, maha / self.mahalanobis_threshold)
        codes[empty], ratio[empty] = _EMPTY, np.nan
        return OODResult(ratio, codes > 0, codes, knn, maha, cosine, "; ".join(filter(None, [self.note, *notes])))


@dataclass(frozen=True, eq=False)
class OODResult:
    """Out-of-distribution score and flag of each cell."""

    score: FloatArray
    """Larger of the two distances, each as a multiple of its threshold: above 1 is unusual. `NaN` without embedding."""
    flag: BoolArray
    codes: IntArray
    """Sum of the bits of `REASONS`."""
    knn: FloatArray
    mahalanobis: FloatArray
    cosine: float
    """Mean cosine between pairs of cells."""
    note: str

    def reasons(self) -> NDArray[np.object_]:
        """Reasons of each cell in words, empty where there are none."""
        texts = {int(code): reason_text(int(code)) for code in np.unique(self.codes)}
        return np.array([texts[int(code)] for code in self.codes], dtype=object)

    def summary(self, groups: ArrayLike) -> pd.DataFrame:
        """Summarize by sample.

        Parameters
        ----------
        groups
            Sample of each cell.

        Returns
        -------
        One row per sample: `n_cells`, `ood_fraction`, `median_score`, `ood` (more than half of the cells are flagged) and
        `reasons` (those of at least a tenth of the cells, most frequent first).
        """
        import pandas as pd

        codes, names = encode_groups(groups, len(self.score))
        rows = []
        for index in range(len(names)):
            own = np.flatnonzero(codes == index)
            scores = self.score[own][np.isfinite(self.score[own])]
            share = {bit: float(((self.codes[own] & bit) > 0).mean()) for bit in REASONS}
            often = sorted((bit for bit in REASONS if share[bit] >= 0.1), key=lambda bit: -share[bit])
            rows.append(
                {
                    "n_cells": len(own),
                    "ood_fraction": float(self.flag[own].mean()),
                    "median_score": float(np.median(scores)) if len(scores) else np.nan,
                    "ood": bool(self.flag[own].mean() > 0.5),
                    "reasons": "; ".join(f"{REASONS[bit]}: {share[bit]:.0%}" for bit in often),
                }
            )
        return pd.DataFrame(rows, index=pd.Index(names.astype(str), name="sample"))


def reason_text(code: int) -> str:
    """Say the bits of `code` in words."""
    return "; ".join(text for bit, text in REASONS.items() if code & bit)


def fit_ood(
    X: ArrayLike,
    groups: ArrayLike,
    *,
    y: ArrayLike | None = None,
    depth: ArrayLike | None = None,
    species: str | None = None,
    k: int = 10,
    quantile: float = 0.99,
    max_cells: int = MAX_REFERENCE,
    rng: np.random.Generator | int = 0,
) -> OODReference:
    """Learn what is usual among the training samples.

    A cell is unusual if its distance to the k-th neighbor, or to the nearer class mean, exceeds the `quantile` of the
    distances that cells of a training sample have to the other samples: a new sample may differ as much as the training
    samples differ from each other.

    Parameters
    ----------
    X
        Embedding of the training cells, `(n, d)`.
    groups
        Sample of each cell.
    y
        1 = sensitive, 0 = resistant. `None` treats all cells as one class.
    depth
        Total counts of each cell, for the usual range of depth (widened twofold on both sides).
    species
        Species of the training cells.
    k
        Which neighbor counts.
    quantile
        Of the distances between left-out samples and the rest, every sample weighing the same.
    max_cells
        Cells that are kept, balanced over samples and classes.
    rng
        Seed or generator for the choice of these cells.

    Returns
    -------
    The reference; its `note` says if there was only one sample and distances within it had to do.

    Raises
    ------
    ValueError
        Fewer than 20 cells, or values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(np.arange(6), 40)
    >>> reference = fit_ood(rng.normal(size=(240, 8)), groups)
    >>> reference.score(np.full((1, 8), 9.0)).flag.tolist()
    [True]
    """
    cells = _check_embedding(X)
    n = len(cells)
    if n < 20:
        msg = f"A reference needs at least 20 training cells, found {n}."
        raise ValueError(msg)
    codes, names = encode_groups(groups, n)
    labels = np.zeros(n, dtype=np.intp) if y is None else check_labels(y, n)
    picked = _balanced(codes * 2 + labels, max_cells, np.random.default_rng(rng))
    training_cosine = mean_cosine(cells)
    cells, labels, owner = cells[picked].astype(np.float64), labels[picked], codes[picked]
    if not np.isfinite(cells).all():
        msg = "`X` has cells with values that are not finite; fit on the cells that have an embedding."
        raise ValueError(msg)
    center, spread = cells.mean(axis=0), cells.std(axis=0)
    if not spread.max() > 0:
        msg = "All training cells have the same embedding: nothing can be called unusual. Check the encoder and its input."
        raise ValueError(msg)
    scale = np.where(spread > 1e-8 * spread.max(), spread, 1.0)
    k = max(1, min(k, len(cells) // 2))
    components = _principal_axes((cells - center) / scale)
    points = _coordinates((cells - center) / scale, components)
    cells = points.astype(np.float32)
    means, precision = _classes(points, labels)
    note = ""
    if len(names) > 1:
        knn, maha = np.empty(len(cells)), np.empty(len(cells))
        for sample in np.unique(owner):
            own = owner == sample
            rest = cells[~own]
            knn[own] = _neighbors(rest, min(k, len(rest))).kneighbors(cells[own])[0][:, -1]
            maha[own] = _mahalanobis(points[own], *_classes(points[~own], labels[~own]))
        weights = equal_weights(np.unique(owner, return_inverse=True)[1])
    else:
        note = "one training sample: distances within it set the thresholds, so new samples are flagged too often"
        knn = _neighbors(cells, k + 1).kneighbors(cells)[0][:, -1]
        maha = _mahalanobis(points, means, precision)
        weights = np.ones(len(cells))
    low = high = np.nan
    if depth is not None:
        total, mass = _per_cell(depth, n, "depth"), equal_weights(codes)
        low = weighted_quantile(total, mass, 0.005) / DEPTH_MARGIN
        high = weighted_quantile(total, mass, 0.995) * DEPTH_MARGIN
    return OODReference(
        k=k,
        quantile=float(quantile),
        n_samples=len(names),
        knn_threshold=_at_least_tiny(weighted_quantile(np.asarray(knn, dtype=np.float64), weights, quantile)),
        mahalanobis_threshold=_at_least_tiny(weighted_quantile(maha, weights, quantile)),
        depth_low=float(low),
        depth_high=float(high),
        species=species,
        training_cosine=training_cosine,
        note=note,
        center=center,
        scale=scale,
        cells=cells,
        components=components,
        means=means,
        precision=precision,
    )


def mean_cosine(X: ArrayLike) -> float:
    """Mean cosine between pairs of different cells, in one pass over the cells.

    Parameters
    ----------
    X
        Embedding, `(n, d)`; rows with `NaN` are left out. The result is `NaN` for fewer than two cells.
    """
    cells = np.asarray(X)
    total, squares, n = 0.0, 0.0, 0
    for _, block in _blocks(cells):
        block = block[~np.isnan(block).any(axis=1)]
        length = np.linalg.norm(block, axis=1, keepdims=True)
        units = np.divide(block, length, out=np.zeros_like(block), where=length > 0)
        total, squares, n = total + units.sum(axis=0), squares + float(np.square(units).sum()), n + len(units)
    if n < 2:
        return np.nan
    # |sum of units|^2 holds every pair twice and each cell with itself once.
    return float((np.square(total).sum() - squares) / (n * (n - 1)))


def _check_embedding(X: ArrayLike, width: int | None = None) -> NDArray[Any]:
    cells = np.asarray(X)
    if cells.ndim != 2 or (width is not None and cells.shape[1] != width):
        msg = f"`X` must be an embedding of shape (cells, {width or 'dimensions'}), found {cells.shape}."
        raise ValueError(msg)
    if any(np.isinf(block).any() for _, block in _blocks(cells)):
        msg = "`X` has values that are infinite."
        raise ValueError(msg)
    return cells


def _blocks(cells: NDArray[Any]) -> Iterator[tuple[slice, FloatArray]]:
    """Some thousand cells at once, as float64: the whole embedding is never copied."""
    for start in range(0, len(cells), _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield rows, np.asarray(cells[rows], dtype=np.float64)


def _per_cell(values: ArrayLike, n: int, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n,):
        msg = f"`{name}` must hold one number for each of {n} cells, found shape {array.shape}."
        raise ValueError(msg)
    return array


def _at_least_tiny(value: float) -> float:
    return max(value, np.finfo(np.float64).tiny)


def _balanced(strata: IntArray, size: int, rng: np.random.Generator) -> IntArray:
    """Indices of at most `size` cells, as equal over strata as their sizes allow."""
    if len(strata) <= size:
        return np.arange(len(strata), dtype=np.intp)
    _, codes = np.unique(strata, return_inverse=True)
    shuffled = rng.permutation(len(strata))
    order = shuffled[np.argsort(codes[shuffled], kind="stable")]
    counts = np.bincount(codes)
    turn = np.arange(len(strata)) - np.repeat(np.r_[0, np.cumsum(counts)[:-1]], counts)
    # First cell of each stratum, then the second of each, and so on.
    return np.sort(order[np.argsort(turn, kind="stable")[:size]])


def _neighbors(cells: NDArray[np.float32], k: int) -> Any:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(cells)


def _principal_axes(cells: FloatArray) -> FloatArray:
    from sklearn.decomposition import PCA

    n = min(N_COMPONENTS, cells.shape[1], max(len(cells) // 10, 1))
    solver = "covariance_eigh" if cells.shape[1] < len(cells) else "full"
    return np.asarray(PCA(n, svd_solver=solver).fit(cells).components_, dtype=np.float64)


def _coordinates(values: FloatArray, components: FloatArray) -> FloatArray:
    """Coordinates along the principal axes, and the length of what they leave out."""
    along = values @ components.T
    if len(components) == values.shape[1]:
        return along
    across = np.sqrt(np.maximum(np.square(values).sum(axis=1) - np.square(along).sum(axis=1), 0.0))
    return np.column_stack([along, across])


def _classes(points: FloatArray, labels: IntArray) -> tuple[FloatArray, FloatArray]:
    """Class means and the shared, shrunk precision matrix."""
    from sklearn.covariance import LedoitWolf

    present, own = np.unique(labels, return_inverse=True)
    means = np.array([points[labels == k].mean(axis=0) for k in present])
    fitted = LedoitWolf(assume_centered=True).fit(points - means[own])
    return means, np.asarray(fitted.precision_, dtype=np.float64)


def _mahalanobis(points: FloatArray, means: FloatArray, precision: FloatArray) -> FloatArray:
    """Distance to the nearest class mean."""
    root = np.linalg.cholesky(precision)
    gaps = (points @ root)[:, None, :] - means @ root
    return np.asarray(np.sqrt(np.square(gaps).sum(axis=2)).min(axis=1))
