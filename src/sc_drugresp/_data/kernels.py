"""Numba kernels shared by the tokenizers: random streams keyed by a cell's counts."""

from __future__ import annotations

import numba
import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_TO_UNIT = 1.0 / 9007199254740992.0  # 2**-53


@numba.njit(cache=True, inline="always")
def mix64(x: np.uint64) -> np.uint64:
    """Finalizer of SplitMix64 (Steele et al., OOPSLA 2014): a bijection that spreads every bit."""
    x = np.uint64(x)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True, inline="always")
def uniform(stream: np.uint64, counter: np.uint64) -> float:
    """Number `counter` of a stream, uniform on [0, 1)."""
    return float(mix64(np.uint64(stream) + _GOLDEN * (np.uint64(counter) + np.uint64(1))) >> np.uint64(11)) * _TO_UNIT


@numba.njit(cache=True)
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


@numba.njit(cache=True)
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
