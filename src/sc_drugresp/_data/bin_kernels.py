"""Numba kernels on CSR rows: bin values by quantile within a cell, choose a limited number of entries."""

from __future__ import annotations

import numba
import numpy as np

_TABLE = 4096  # integer counts below this are ranked by counting, not by sorting
_BUCKETS = 1024


@numba.njit(cache=True)
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


@numba.njit(cache=True)
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
        most, fewest = np.zeros(len(unique), dtype=np.int64), np.zeros(len(unique), dtype=np.int64)
        for k in range(len(unique)):
            for e in range(n_edges):
                most[k] += edges[e] <= unique[k]
                fewest[k] += edges[e] < unique[k]
        for j in range(start, stop):
            k = histogram[int(counts[j])] if counted else np.searchsorted(unique, counts[j])
            out[j] = np.ceil(uniforms[j] * (fewest[k] - most[k]) + most[k])
        if counted:
            for k in range(len(unique)):
                histogram[int(unique[k])] = 0
    return out


@numba.njit(cache=True)
def keep_smallest(indptr: np.ndarray, keys: np.ndarray, limit: int) -> np.ndarray:
    """Mark the `limit` entries of each row with the smallest keys; among equal keys the first.

    Returns
    -------
    Mask of shape `(n_entries,)`.
    """
    keep = np.ones(len(keys), dtype=np.bool_)
    sizes = np.empty(_BUCKETS, dtype=np.int64)
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        if stop - start <= limit:
            continue
        if limit < 1:
            keep[start:stop] = False
            continue
        lowest = highest = keys[start]
        for j in range(start, stop):
            lowest, highest = min(lowest, keys[j]), max(highest, keys[j])
        scale = (_BUCKETS - 1) / (highest - lowest) if highest > lowest else 0.0
        sizes[:] = 0
        for j in range(start, stop):
            sizes[int((keys[j] - lowest) * scale)] += 1
        last, room = 0, limit  # only the bucket that the limit falls into has to be sorted
        while sizes[last] < room:
            room -= sizes[last]
            last += 1
        inside = np.empty(sizes[last], dtype=keys.dtype)
        n_inside = 0
        for j in range(start, stop):
            bucket = int((keys[j] - lowest) * scale)
            if bucket == last:
                inside[n_inside] = keys[j]
                n_inside += 1
            elif bucket > last:
                keep[j] = False
        inside.sort()
        threshold = inside[room - 1]
        ties = room
        for k in range(n_inside):
            ties -= inside[k] < threshold
        for j in range(start, stop):
            if keep[j] and keys[j] >= threshold and int((keys[j] - lowest) * scale) == last:
                if keys[j] == threshold and ties > 0:
                    ties -= 1
                else:
                    keep[j] = False
    return keep


@numba.njit(cache=True)
def prepend_token(
    indptr: np.ndarray, ids: np.ndarray, values: np.ndarray, keep: np.ndarray, token: int, value: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put a token before the entries of each row that `keep` marks.

    Returns
    -------
    `indptr`, ids and values of the sequences.
    """
    n_rows = len(indptr) - 1
    n_kept = np.sum(keep)
    out_indptr = np.zeros(n_rows + 1, dtype=np.int64)
    out_ids, out_values = np.empty(n_kept + n_rows, dtype=np.int32), np.empty(n_kept + n_rows, dtype=np.float32)
    end = 0
    for row in range(n_rows):
        out_ids[end], out_values[end] = token, value
        end += 1
        for j in range(indptr[row], indptr[row + 1]):
            if keep[j]:
                out_ids[end], out_values[end] = ids[j], values[j]
                end += 1
        out_indptr[row + 1] = end
    return out_indptr, out_ids, out_values
