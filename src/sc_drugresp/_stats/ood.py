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
    128: "the samples here together lie farther from the training samples than these from each other (another batch)",
}
"""Bits of `OODResult.codes` and their meaning."""
_KNN, _MAHALANOBIS, _DEPTH, _COLLAPSE, _EMPTY, _SHIFT, _SPREAD, _BATCH = REASONS
MIN_SAMPLES = 3
"""Training groups from which groups as a whole are compared."""
THINNED = (0.5, 0.25)
DEPTH_STEPS = np.log([1.0, *THINNED])
"""Log depth, relative to the usual one, for which distances are known."""
_SAME_DEPTH = 0.2
_SAME, _TWINS = 1e-3, 2
"""A cell this near (in thresholds) is the reference cell; a group with so many of them is a training sample."""


def log_counts(depth: ArrayLike | None, n: int) -> FloatArray:
    """Log of the counts of each cell; 0 where depth is not known."""
    return np.zeros(n) if depth is None else np.log(np.maximum(np.asarray(depth, dtype=np.float64), 1.0))


def allowances(moved: FloatArray, table: FloatArray) -> FloatArray:
    """Rows of `OODReference.depth_allowance` for log depths relative to the usual one, `(n, 4)`; deeper cells get none."""
    return np.column_stack([np.interp(moved, DEPTH_STEPS[::-1], column[::-1]) for column in table.T])


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
    depth_center: float
    depth_allowance: FloatArray
    """What is added to the log distance to cells and to classes, and to the log shift and log spread of groups (columns), at the
    usual depth, a half and a quarter of it (rows), `(3, 4)`."""

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
        moved = self._from_usual_depth(depth, n)
        allowed = allowances(moved, self.depth_allowance)
        knn, maha = knn / np.exp(allowed[:, 0]), maha / np.exp(allowed[:, 1])
        codes[knn > self.knn_threshold] |= _KNN
        codes[maha > self.mahalanobis_threshold] |= _MAHALANOBIS
        ratio = np.maximum(knn / self.knn_threshold, maha / self.mahalanobis_threshold)
        if groups is not None:
            known = np.bincount(group, same, minlength=len(sums.n)) >= _TWINS
            moved = np.bincount(group[~empty], moved[~empty], minlength=len(sums.n)) / np.maximum(sums.n, 1)
            codes |= self._judge_groups(sums, known, moved)[group]
            same |= known[group]
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

    def _from_usual_depth(self, depth: ArrayLike | None, n: int) -> FloatArray:
        """Log depth of each cell minus the usual one, at most as far as the training range reaches; 0 where unknown."""
        if depth is None or not np.isfinite(self.depth_low):
            return np.zeros(n)
        within = np.clip(np.asarray(depth, dtype=np.float64), self.depth_low, self.depth_high)
        return log_counts(within, n) - self.depth_center

    def _judge_groups(self, sums: GroupMoments, known: BoolArray, moved: FloatArray) -> IntArray:
        """Bits of each group: beyond the 99 % prediction limit for one more training group; all of them: beyond that of a mean.

        A new batch may move every sample by less than samples differ, and yet all of them together.
        """
        from scipy.stats import t

        codes = np.zeros(len(sums.n), dtype=np.intp)
        large = sums.n >= MIN_CELLS
        if self.n_samples < MIN_SAMPLES or not np.isfinite(self.whole).all() or not large.any():
            return codes
        allowed = allowances(moved, self.depth_allowance)
        shift, spread = sums.shift_and_spread(self.means, self.precision)
        shift, spread = shift - allowed[:, 2], spread - allowed[:, 3]
        unit, df = self.whole[:, 1], self.n_samples - 1
        reach = t.ppf(0.99, df) * unit * np.sqrt(1 + 1 / self.n_samples)
        codes[large & (shift > self.whole[0, 0] + reach[0])] |= _SHIFT
        codes[large & (spread < self.whole[1, 0] - reach[1])] |= _SPREAD
        # All of them together are judged at the usual depth alone: the allowance is an estimate, too.
        new = large & ~known & (np.abs(moved) < _SAME_DEPTH)
        if (n := int(new.sum())) >= MIN_SAMPLES:
            reach = t.ppf(0.999, df) * unit * np.sqrt(1 / n + 1 / self.n_samples)
            if shift[new].mean() > self.whole[0, 0] + reach[0]:
                codes[new] |= _BATCH
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
