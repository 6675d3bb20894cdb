"""Numba kernels shared by the tokenizers: gene alignment, and random streams keyed by a cell's counts."""

from __future__ import annotations

import numpy as np

from .._core.compiling import njit
from .over_cells import over_cells

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_TO_UNIT = 1.0 / 9007199254740992.0  # 2**-53
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT = np.zeros(64, dtype=np.int64)  # position of the lowest set bit, read through a De Bruijn product
for _i in range(64):
    _BIT[((int(_DE_BRUIJN) << _i) & (2**64 - 1)) >> 58] = _i


@over_cells(indptr="indptr", entries=("indices", "data"))
@njit()
def restrict_rows(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, rank: np.ndarray, n_ranks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Keep the entries of CSR rows whose column is known, order them by rank, add those that share a rank.

    Parameters
    ----------
    indptr, indices, data
        CSR rows.
    rank
        Place of each column in the output order, -1 for columns to drop, shape `(n_columns,)`.
    n_ranks
        Number of places.

    Returns
    -------
    `indptr`, ranks and counts of the output, and the sum of each input row over all its columns (float64).
    """
    n_rows = len(indptr) - 1
    out_indptr = np.zeros(n_rows + 1, dtype=np.int64)
    out_rank = np.empty(len(data), dtype=np.int32)
    out_data = np.empty(len(data), dtype=data.dtype)
    totals = np.zeros(n_rows, dtype=np.float64)
    seen = np.zeros((n_ranks >> 6) + 1, dtype=np.uint64)  # a bit per rank: reading it in order replaces a sort
    sums = np.zeros(n_ranks, dtype=data.dtype)
    end = 0
    for row in range(n_rows):
        for j in range(indptr[row], indptr[row + 1]):
            totals[row] += data[j]
            r = rank[indices[j]]
            if r >= 0:
                bit = np.uint64(1) << np.uint64(r & 63)
                if seen[r >> 6] & bit:
                    sums[r] += data[j]
                else:
                    seen[r >> 6] |= bit
                    sums[r] = data[j]
        for word in range(len(seen)):
            bits = seen[word]
            while bits != np.uint64(0):
                lowest = bits & (~bits + np.uint64(1))
                r = (word << 6) + _BIT[(lowest * _DE_BRUIJN) >> np.uint64(58)]
                out_rank[end], out_data[end] = r, sums[r]
                end += 1
                bits ^= lowest
            seen[word] = np.uint64(0)
        out_indptr[row + 1] = end
    return out_indptr, out_rank[:end].copy(), out_data[:end].copy(), totals


@njit(inline="always")
def mix64(x: np.uint64) -> np.uint64:
    """Finalizer of SplitMix64 (Steele et al., OOPSLA 2014): a bijection that spreads every bit."""
    x = np.uint64(x)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(inline="always")
def uniform(stream: np.uint64, counter: np.uint64) -> float:
    """Number `counter` of a stream, uniform on [0, 1)."""
    return float(mix64(np.uint64(stream) + _GOLDEN * (np.uint64(counter) + np.uint64(1))) >> np.uint64(11)) * _TO_UNIT


@over_cells(indptr="indptr", entries=("gene_ids", "counts"))
@njit()
def cell_streams(indptr: np.ndarray, gene_ids: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """One random stream per cell, from the seed and the cell's own counts (in any order of genes).

    Neighbors, position, batch and threads do not enter, so a cell is always given the same numbers.

    Returns
    -------
    Streams for :func:`uniform`, shape `(n_cells,)`, uint64.
    """
    n_cells = len(indptr) - 1
    streams = np.empty(n_cells, dtype=np.uint64)
    for cell in range(n_cells):
        total = mix64(np.uint64(seed) * _GOLDEN + np.uint64(1))
        for j in range(indptr[cell], indptr[cell + 1]):
            value = np.uint64(np.int64(counts[j] * 1024.0))  # fractions differ too
            total += mix64(np.uint64(gene_ids[j] + 1) * _GOLDEN ^ mix64(value))
        streams[cell] = mix64(total)
    return streams


@over_cells(indptr="indptr", entries=("gene_ids",), cells=("streams",))
@njit()
def entry_uniforms(indptr: np.ndarray, gene_ids: np.ndarray, streams: np.ndarray, purpose: int) -> np.ndarray:
    """A uniform number for each entry of a CSR block, keyed by stream, gene and `purpose`.

    A gene that a cell holds twice is given another number for its second copy.
    """
    out = np.empty(len(gene_ids), dtype=np.float64)
    for cell in range(len(indptr) - 1):
        start, stop = indptr[cell], indptr[cell + 1]
        base = mix64(streams[cell] + np.uint64(purpose) * _GOLDEN)
        increasing = True
        for j in range(start, stop):
            out[j] = uniform(base, np.uint64(gene_ids[j]))
            if j > start and gene_ids[j] <= gene_ids[j - 1]:
                increasing = False
        if not increasing:  # only then can a gene occur twice
            order = np.argsort(gene_ids[start:stop], kind="mergesort")
            for k in range(1, stop - start):
                j, before = start + order[k], start + order[k - 1]
                if gene_ids[j] == gene_ids[before]:
                    out[j] = uniform(base, np.uint64(gene_ids[j]) + (np.uint64(k) << np.uint64(32)))
    return out
