"""Cells that the training data say nothing about: distance in the embedding, and what can be seen before it.

Sources: Sun et al. (2022, arXiv:2204.06507) for the distance to the k-th neighbor, Lee et al. (2018, arXiv:1807.03888) for
class-conditional Mahalanobis distances with a shared covariance (here shrunk as Ledoit and Wolf, 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .distances import MIN_CELLS, GroupMoments, Space, blocks, mean_cosine
from .groups import encode_groups
from .state import State

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .groups import BoolArray, FloatArray, IntArray

COLLAPSED = 0.98
REASONS = {
    1: "far from the training cells (nearest neighbors)",
    2: "far from both classes (Mahalanobis)",
    4: "sequencing depth outside the training range",
    8: "embedding collapsed (cells are nearly identical)",
    16: "no embedding (no gene that the model knows is expressed)",
    32: "the sample as a whole lies far from the training samples",
    64: "cells of the sample vary much less than in training samples (squeezed by the encoder)",
}
"""Bits of `OODResult.codes` and their meaning."""
_KNN, _MAHALANOBIS, _DEPTH, _COLLAPSE, _EMPTY, _SHIFT, _SPREAD = REASONS
MIN_SAMPLES = 3
"""Training groups from which groups as a whole are compared."""
_SAME, _TWINS = 1e-3, 2
"""A cell this near (in thresholds) is the reference cell; a group with so many of them is a training sample."""


@dataclass(frozen=True, eq=False)
class OODReference(State):
    """A bounded choice of the training cells and the distances that are usual between groups (samples)."""

    k: int
    n_samples: int
    knn_threshold: float
    mahalanobis_threshold: float
    depth_low: float
    depth_high: float
    training_cosine: float
    fitted: bool
    """Whether the encoder was fitted to the training cells; these are then not judged by distance, see `score`."""
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
    """Of groups as a whole: mean and SD over left-out groups of the log shift (row 0) and the log spread (row 1)."""

    def score(
        self,
        X: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        depth: ArrayLike | None = None,
    ) -> OODResult:
        """Measure how unlike the training cells each cell is.

        Parameters
        ----------
        X
            Embedding of cells, `(n, d)`, from the encoder that made the reference. Rows of `NaN` are flagged. Cells of
            the reference are recognized: if the encoder was fitted to them, they and their groups are not judged by
            distance.
        groups
            Group (sample) of each cell. With it, groups are also judged as a whole: an encoder that was fitted to the training
            cells squeezes foreign cells together right among them, where no single cell stands out.
        depth
            Total counts of each cell.

        Returns
        -------
        Score and reasons of each cell.
        """
        cells = np.asarray(X)
        n = len(cells)
        codes = np.zeros(n, dtype=np.intp)
        knn, maha = np.empty(n), np.empty(n)
        empty, same = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        group = np.zeros(n, dtype=np.intp) if groups is None else encode_groups(groups)[0]
        sums = GroupMoments(int(group.max(initial=-1)) + 1, len(self.precision))
        space = Space(self.center, self.scale, self.components, self.cells, self.means, self.precision)
        for rows, block in blocks(cells):
            empty[rows] = np.isnan(block).any(axis=1)
            points = space.points(block)
            knn[rows], first, maha[rows] = space.distances(points, self.k)
            same[rows] = first < _SAME * self.knn_threshold
            sums.add(points[~empty[rows]], group[rows][~empty[rows]])
        codes[knn > self.knn_threshold] |= _KNN
        codes[maha > self.mahalanobis_threshold] |= _MAHALANOBIS
        ratio = np.maximum(knn / self.knn_threshold, maha / self.mahalanobis_threshold)
        if groups is not None:
            codes |= self._judge_groups(sums)[group]
            same |= np.bincount(group, same, minlength=len(sums.n))[group] >= _TWINS
        if self.fitted:
            # An encoder spreads the cells that it was fitted to wider than any new ones; they are known anyway.
            codes[same], ratio[same] = 0, np.minimum(ratio[same], 1.0)
        if depth is not None:
            total = np.asarray(depth)
            # NaN limits (depth of the training cells unknown) compare as false.
            codes[(total < self.depth_low) | (total > self.depth_high)] |= _DEPTH
        if self.training_cosine <= COLLAPSED < mean_cosine(cells):
            codes |= _COLLAPSE
        codes[empty], ratio[empty] = _EMPTY, np.nan
        return OODResult(ratio, codes)

    def _judge_groups(self, sums: GroupMoments) -> IntArray:
        """Bits of each group: beyond the 99 % prediction limit for one more training group."""
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
    """Out-of-distribution score of each cell, and why it is flagged."""

    score: FloatArray
    """Larger of the two distances, each as a multiple of its threshold: above 1 is unusual. `NaN` without embedding."""
    codes: IntArray
    """Sum of the bits of `REASONS`."""

    @property
    def flag(self) -> BoolArray:
        """Whether there is any reason."""
        return self.codes > 0
