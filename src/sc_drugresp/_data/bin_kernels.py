"""Numba kernels on CSR rows: bin values by quantile within a cell, choose a limited number of entries."""

from __future__ import annotations

import numpy as np

from .._core.compiling import njit
from .over_cells import over_cells

_TABLE = 4096  # integer counts below this are ranked by counting, not by sorting


@njit()
def _unique_sorted(x: np.ndarray, histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Distinct values, their cumulative counts, and whether they were counted in `histogram` (then they are integers)."""
    highest = 0
    for value in x:
        if value < 0 or value >= _TABLE or value != np.floor(value):
            highest = -1
            break
        highest = max(highest, int(value))
    if highest >= 0:
        n_unique = 0
        for value in x:
            histogram[int(value)] += 1
        for v in range(highest + 1):
            n_unique += histogram[v] > 0
        unique, ends = np.empty(n_unique, dtype=x.dtype), np.empty(n_unique, dtype=np.int64)
        k, end = 0, 0
        for v in range(highest + 1):
            if histogram[v]:
                end += histogram[v]
                unique[k], ends[k] = v, end
                histogram[v] = k  # from now on the place of the value
                k += 1
        return unique, ends, True
    ordered = np.sort(x)
    unique, ends = np.empty(len(x), dtype=x.dtype), np.empty(len(x), dtype=np.int64)
    k = -1
    for i in range(len(ordered)):
        if k < 0 or ordered[i] != unique[k]:
            k += 1
            unique[k] = ordered[i]
        ends[k] = i + 1
    return unique[: k + 1], ends[: k + 1], False


@over_cells(indptr="indptr", entries=("counts", "uniforms"))
@njit()
def quantile_bins(indptr: np.ndarray, counts: np.ndarray, uniforms: np.ndarray, n_bins: int) -> np.ndarray:
    """Bin the entries of each cell by the quantiles of that cell.

    There are `n_bins - 1` edges at equally spaced quantiles, interpolated linearly as in :func:`numpy.quantile`. A value
    that coincides with several edges lies in several bins; `uniforms` (on [0, 1), one per entry) chooses among them,
    0 takes the highest.

    Parameters
    ----------
    indptr, counts
        CSR rows without stored zeros; float32.
    uniforms
        A number per entry.
    n_bins
        Number of bins including bin 0, which is that of zeros.

    Returns
    -------
    Bins from 1 to `n_bins - 1`, float32.
    """
    out = np.empty(len(counts), dtype=np.float32)
    n_edges = n_bins - 1
    quantiles = np.linspace(0, 1, n_edges)
    edges = np.empty(n_edges, dtype=np.float64)
    histogram = np.zeros(_TABLE, dtype=np.int64)
    for cell in range(len(indptr) - 1):
        start, stop = indptr[cell], indptr[cell + 1]
        n = stop - start
        if n == 0:
            continue
        unique, ends, counted = _unique_sorted(counts[start:stop], histogram)
        low_at = high_at = 0
        for e in range(n_edges):
            position = (n - 1) * quantiles[e]
            low = int(np.floor(position))
            high = min(low + 1, n - 1)
            while ends[low_at] <= low:
                low_at += 1
            while ends[high_at] <= high:
                high_at += 1
            t = position - low
            step = unique[high_at] - unique[low_at]  # in the precision of the counts, as numpy does
            edges[e] = unique[low_at] + step * t if t < 0.5 else unique[high_at] - step * (1 - t)
        most, fewest = np.searchsorted(edges, unique, side="right"), np.searchsorted(edges, unique, side="left")
        for j in range(start, stop):
            k = histogram[int(counts[j])] if counted else np.searchsorted(unique, counts[j])
            out[j] = np.ceil(uniforms[j] * (fewest[k] - most[k]) + most[k])
        if counted:
            for k in range(len(unique)):
                histogram[int(unique[k])] = 0
    return out


@over_cells(indptr="indptr", entries=("keys",))
@njit()
def keep_smallest(indptr: np.ndarray, keys: np.ndarray, limit: int) -> np.ndarray:
    """Mark the `limit` entries of each row with the smallest keys; among equal keys the first.

    Returns
    -------
    Mask of shape `(n_entries,)`.
    """
    keep = np.ones(len(keys), dtype=np.bool_)
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        if stop - start <= limit:
            continue
        threshold = np.partition(keys[start:stop], limit - 1)[limit - 1] if limit > 0 else -np.inf
        room = limit  # for keys at the threshold, once those below it are counted
        for j in range(start, stop):
            room -= keys[j] < threshold
        for j in range(start, stop):
            keep[j] = keys[j] < threshold or (keys[j] == threshold and room > 0)
            room -= keys[j] == threshold
    return keep
