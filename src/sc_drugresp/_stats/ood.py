"""Cells that the training data say nothing about: distance in the embedding, and what can be seen before it.

Sources: Sun et al. (2022, arXiv:2204.06507) for the distance to the k-th neighbor, Lee et al. (2018, arXiv:1807.03888) for
class-conditional Mahalanobis distances with a shared covariance (here shrunk as Ledoit and Wolf, 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .distances import MIN_CELLS, SampleSums, Space, blocks, check_embedding, mean_cosine
from .groups import State, check_labels, encode_groups, equal_weights, sample_classes, weighted_quantile

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from .groups import BoolArray, FloatArray, IntArray

MAX_REFERENCE = 2_000
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
    128: "the sample as a whole lies far from the training samples",
    256: "cells of the sample vary much less than in training samples (squeezed by the encoder)",
}
"""Bits of `OODResult.codes` and their meaning."""
_KNN, _MAHALANOBIS, _GENES, _DEPTH, _COLLAPSE, _SPECIES, _EMPTY, _SHIFT, _SPREAD = REASONS
MIN_SAMPLES = 3
"""Training samples from which samples as a whole are compared."""
MAX_FOLDS = 10
_SAME, _TWINS = 1e-3, 2
"""A cell this near (in thresholds) is the reference cell; a sample with so many of them is a training sample."""


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
    fitted: bool
    """Whether the encoder was fitted to the training cells; these are then not judged by distance, see `score`."""
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
    whole: FloatArray
    """Of samples as a whole: mean and SD over left-out samples of the log shift (row 0) and the log spread (row 1)."""

    def score(
        self,
        X: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        gene_coverage: ArrayLike | None = None,
        depth: ArrayLike | None = None,
        species: str | None = None,
    ) -> OODResult:
        """Measure how unlike the training cells each cell is.

        Parameters
        ----------
        X
            Embedding of cells, `(n, d)`, from the encoder that made the reference. Rows of `NaN` are flagged. Cells of
            the reference are recognized: if the encoder was fitted to them, they and their samples are not judged by
            distance.
        groups
            Sample of each cell. With it, samples are also judged as a whole: an encoder that was fitted to the training
            cells squeezes foreign cells together right among them, where no single cell stands out.
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
        cells = check_embedding(X, len(self.center))
        n = len(cells)
        codes = np.zeros(n, dtype=np.intp)
        knn, maha, empty = np.empty(n), np.empty(n), np.zeros(n, dtype=bool)
        samples = np.zeros(n, dtype=np.intp) if groups is None else encode_groups(groups, n)[0]
        sums = SampleSums(int(samples.max(initial=-1)) + 1, len(self.precision))
        same = np.zeros(n, dtype=bool)
        space = Space(self.center, self.scale, self.components, self.cells, self.means, self.precision)
        for rows, block in blocks(cells):
            empty[rows] = np.isnan(block).any(axis=1)
            points = space.points(block)
            knn[rows], first, maha[rows] = space.distances(points, self.k)
            same[rows] = first < _SAME * self.knn_threshold
            sums.add(points[~empty[rows]], samples[rows][~empty[rows]])
        codes[knn > self.knn_threshold] |= _KNN
        codes[maha > self.mahalanobis_threshold] |= _MAHALANOBIS
        ratio = np.maximum(knn / self.knn_threshold, maha / self.mahalanobis_threshold)
        if groups is not None:
            codes |= self._judge_samples(sums)[samples]
            same |= np.bincount(samples, same, minlength=len(sums.n))[samples] >= _TWINS
        if self.fitted:
            # An encoder spreads the cells that it was fitted to wider than any new ones; they are known anyway.
            codes[same], ratio[same] = 0, np.minimum(ratio[same], 1.0)
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
        codes[empty], ratio[empty] = _EMPTY, np.nan
        return OODResult(ratio, codes > 0, codes, knn, maha, cosine, "; ".join(filter(None, [self.note, *notes])))

    def _judge_samples(self, sums: SampleSums) -> IntArray:
        """Bits of each sample: beyond the 99 % prediction limit for one more training sample."""
        from scipy.stats import t

        codes = np.zeros(len(sums.n), dtype=np.intp)
        large = sums.n >= MIN_CELLS
        if self.n_samples < MIN_SAMPLES or not np.isfinite(self.whole).all() or not large.any():
            return codes
        shift, spread = sums.shift_and_spread(self.means, self.precision)
        unit = self.whole[:, 1] * np.sqrt(1 + 1 / self.n_samples)
        df = self.n_samples - 1
        codes[large & (shift > self.whole[0, 0] + t.ppf(0.99, df) * unit[0])] |= _SHIFT
        codes[large & (spread < self.whole[1, 0] - t.ppf(0.99, df) * unit[1])] |= _SPREAD
        return codes


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
    embed: Callable[[IntArray, IntArray], tuple[FloatArray, FloatArray]] | None = None,
    depth: ArrayLike | None = None,
    species: str | None = None,
    k: int = 10,
    quantile: float = 0.99,
    max_cells: int = MAX_REFERENCE,
    rng: np.random.Generator | int = 0,
) -> OODReference:
    """Learn what is usual among the training samples.

    A cell is unusual if its distance to the k-th neighbor, or to the nearer class mean, exceeds the `quantile` of the
    distances that cells of left-out training samples have to the others: a new sample may differ as much as the training
    samples differ from each other. A sample is unusual if its mean lies farther from both classes, or its cells vary less,
    than 99 % of further training samples would by the t prediction interval of left-out samples.

    Parameters
    ----------
    X
        Embedding of the training cells, `(n, d)`.
    groups
        Sample of each cell.
    y
        1 = sensitive, 0 = resistant. `None` treats all cells as one class.
    embed
        For an encoder that was fitted to these cells: `embed(train, test)` fits it to some rows and gives the embeddings of
        both sets of rows. Without it, left-out samples look better known than a new one would.
    depth
        Total counts of each cell, for the usual range of depth (widened twofold on both sides).
    species
        Species of the training cells.
    k
        Which neighbor counts.
    quantile
        Of the distances of left-out samples, every sample weighing the same.
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
        Fewer than 20 cells, all cells alike, or values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(np.arange(6), 40)
    >>> reference = fit_ood(rng.normal(size=(240, 8)), groups)
    >>> reference.score(np.full((1, 8), 9.0)).flag.tolist()
    [True]
    """
    cells = check_embedding(X)
    n = len(cells)
    if n < 20:
        msg = f"A reference needs at least 20 training cells, found {n}."
        raise ValueError(msg)
    if any(np.isnan(block).any() for _, block in blocks(cells)):
        msg = "`X` has cells with values that are not finite; fit on the cells that have an embedding."
        raise ValueError(msg)
    codes, names = encode_groups(groups, n)
    labels = np.zeros(n, dtype=np.intp) if y is None else check_labels(y, n)
    picked = _balanced(codes * 2 + labels, max_cells, np.random.default_rng(rng))
    k = max(1, min(k, len(picked) // 2))
    space = Space.of(cells[picked].astype(np.float64), labels[picked])
    note, whole = "", np.full((2, 2), np.nan)
    if len(names) > 1:
        knn, maha, whole = _left_out(cells, labels, codes, picked, k, embed)
        weights = equal_weights(np.unique(codes[picked], return_inverse=True)[1])
    else:
        note = "one training sample: distances within it set the thresholds, so new samples are flagged too often"
        # Each cell is its own nearest reference, so the next one counts.
        knn, _, maha = space.distances(space.points(cells[picked].astype(np.float64)), k + 1)
        weights = np.ones(len(picked))
    low = high = np.nan
    if depth is not None:
        total, mass = _per_cell(depth, n, "depth"), equal_weights(codes)
        low = weighted_quantile(total, mass, 0.005) / DEPTH_MARGIN
        high = weighted_quantile(total, mass, 0.995) * DEPTH_MARGIN
    return OODReference(
        k=k,
        quantile=float(quantile),
        n_samples=len(names),
        knn_threshold=_at_least_tiny(weighted_quantile(knn, weights, quantile)),
        mahalanobis_threshold=_at_least_tiny(weighted_quantile(maha, weights, quantile)),
        depth_low=float(low),
        depth_high=float(high),
        species=species,
        training_cosine=mean_cosine(cells),
        fitted=embed is not None,
        note=note,
        center=space.center,
        scale=space.scale,
        cells=space.cells,
        components=space.components,
        means=space.means,
        precision=space.precision,
        whole=whole,
    )


def _left_out(
    cells: NDArray[Any],
    labels: IntArray,
    codes: IntArray,
    picked: IntArray,
    k: int,
    embed: Callable[[IntArray, IntArray], tuple[FloatArray, FloatArray]] | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distances of the picked cells, and shifts and spreads of samples, in spaces that never saw their sample."""
    knn, maha, each = np.empty(len(picked)), np.empty(len(picked)), []
    n_samples = int(codes.max()) + 1
    # Samples of a class are dealt out in turn, so that every fold keeps both classes.
    order = np.argsort(sample_classes(labels, codes, n_samples), kind="stable")
    fold = np.empty(n_samples, dtype=np.intp)
    fold[order] = np.arange(n_samples) % min(n_samples, MAX_FOLDS)
    for index in range(int(fold.max()) + 1):
        here = fold[codes[picked]] == index
        test, rest = picked[here], picked[~here]
        if embed is None:
            known, new = cells[rest].astype(np.float64), cells[test].astype(np.float64)
        else:
            train = np.flatnonzero(fold[codes] != index)
            embedded, found = embed(train, test)
            known = np.asarray(embedded[np.searchsorted(train, rest)], dtype=np.float64)
            new = np.asarray(found, dtype=np.float64)
        space = Space.of(known, labels[rest])
        points = space.points(new)
        knn[here], _, maha[here] = space.distances(points, k)
        own = np.unique(codes[test], return_inverse=True)[1]
        sums = SampleSums(int(own.max()) + 1, points.shape[1])
        sums.add(points, own)
        pairs = np.column_stack(sums.shift_and_spread(space.means, space.precision))
        each.append(pairs[sums.n >= MIN_CELLS])
    known_samples = np.concatenate(each)
    if len(known_samples) < MIN_SAMPLES:
        return knn, maha, np.full((2, 2), np.nan)
    return knn, maha, np.column_stack([known_samples.mean(axis=0), known_samples.std(axis=0, ddof=1)])


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
