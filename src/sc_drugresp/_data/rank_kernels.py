"""Numba kernels of the models that read a cell as its genes in order of expression."""

from __future__ import annotations

import numpy as np

from .._core.compiling import njit
from .over_cells import over_cells

_DIGIT = 11  # bits of a radix pass


@njit()
def descending_order(values: np.ndarray) -> np.ndarray:
    """Indices that sort positive numbers from large to small; equal numbers keep their order.

    A radix sort on the bits of the float32 next to each number, then insertion for what only float64 tells apart.
    """
    n = len(values)
    keys = np.int32(0x7F800000) - values.astype(np.float32).view(np.int32)
    order, other = np.arange(n, dtype=np.int32), np.empty(n, dtype=np.int32)
    starts = np.empty((1 << _DIGIT) + 1, dtype=np.int64)
    mask = (1 << _DIGIT) - 1
    for shift in range(0, 31, _DIGIT):
        starts[:] = 0
        for i in range(n):
            starts[((keys[i] >> shift) & mask) + 1] += 1
        for value in range(mask):
            starts[value + 1] += starts[value]
        for k in range(n):
            digit = (keys[order[k]] >> shift) & mask
            other[starts[digit]] = order[k]
            starts[digit] += 1
        order, other = other, order
    for k in range(1, n):
        i, place = order[k], k
        while place > 0 and values[order[place - 1]] < values[i]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = i
    return order


@over_cells(indptr="indptr", entries=("gene_ids", "counts"), cells=("totals",))
@njit()
def rank_by_value(
    indptr: np.ndarray,
    gene_ids: np.ndarray,
    counts: np.ndarray,
    totals: np.ndarray,
    inverse_scale: np.ndarray,
    limit: int,
    narrow: bool,  # noqa: FBT001 (numba takes no keyword-only arguments)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order the genes of each cell by decreasing scaled expression; equal values keep their order.

    The value is `count * (1 / total) * 10,000 * inverse_scale[gene]`, the first two products in float32 if `narrow`.

    Returns
    -------
    `indptr`, gene ids and values (float64) of at most `limit` genes per cell.
    """
    n_cells = len(indptr) - 1
    out_indptr = np.zeros(n_cells + 1, dtype=np.int64)
    for cell in range(n_cells):
        out_indptr[cell + 1] = out_indptr[cell] + min(limit, indptr[cell + 1] - indptr[cell])
    out_ids = np.empty(out_indptr[-1], dtype=np.int32)
    out_values = np.empty(out_indptr[-1], dtype=np.float64)
    for cell in range(n_cells):
        start, stop = indptr[cell], indptr[cell + 1]
        if stop == start:
            continue
        values = np.empty(stop - start, dtype=np.float64)
        inverse32, inverse64 = np.float32(1.0) / np.float32(totals[cell]), 1.0 / totals[cell]
        for j in range(start, stop):
            if narrow:
                scaled = np.float64(np.float32(np.float32(counts[j] * inverse32) * np.float32(1e4)))
            else:
                scaled = np.float64(counts[j]) * inverse64 * 1e4
            values[j - start] = scaled * inverse_scale[gene_ids[j]]
        order = descending_order(values)
        for k in range(out_indptr[cell + 1] - out_indptr[cell]):
            out_ids[out_indptr[cell] + k] = gene_ids[start + order[k]]
            out_values[out_indptr[cell] + k] = values[order[k]]
    return out_indptr, out_ids, out_values


@over_cells(indptr="indptr", entries=("gene_ids", "counts"))
@njit()
def top_counts(
    indptr: np.ndarray,
    gene_ids: np.ndarray,
    counts: np.ndarray,
    piece_indptr: np.ndarray,
    piece_ids: np.ndarray,
    n_vocabulary: int,
    begin: int,
    end: int,
    limit: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Sequence `begin`, the tokens of the most expressed genes, `end`; equal counts keep their order.

    Gene `n_vocabulary + k` stands for the tokens `piece_ids[piece_indptr[k]:piece_indptr[k + 1]]`, possibly none.

    Returns
    -------
    `indptr` and token ids, at most `limit` tokens between `begin` and `end`.
    """
    n_cells = len(indptr) - 1
    out_indptr = np.zeros(n_cells + 1, dtype=np.int64)
    out_ids = np.empty(n_cells * (limit + 2), dtype=np.int32)
    filled = 0
    for cell in range(n_cells):
        start, stop = indptr[cell], indptr[cell + 1]
        out_ids[filled] = begin
        filled += 1
        room = limit
        for place in descending_order(counts[start:stop]):
            token = gene_ids[start + place]
            if room == 0:
                break
            if token < n_vocabulary:
                out_ids[filled] = token
                filled, room = filled + 1, room - 1
            else:
                k = token - n_vocabulary
                for piece in range(piece_indptr[k], min(piece_indptr[k + 1], piece_indptr[k] + room)):
                    out_ids[filled] = piece_ids[piece]
                    filled, room = filled + 1, room - 1
        out_ids[filled] = end
        filled += 1
        out_indptr[cell + 1] = filled
    return out_indptr, out_ids[:filled].copy()
