"""Numba kernels of UCE's sentences: draw genes by expression, shuffle chromosomes, order genes by position."""

from __future__ import annotations

import numpy as np

from .._core.compiling import njit
from .kernels import mix64, uniform
from .over_cells import over_cells

_DRAW, _SHUFFLE = np.uint64(0x5EED0001), np.uint64(0x5EED0002)


@over_cells(indptr="indptr", entries=("gene_ids", "counts"), cells=("streams",))
@njit()
def draw_genes(
    indptr: np.ndarray, gene_ids: np.ndarray, counts: np.ndarray, streams: np.ndarray, sample_size: int
) -> np.ndarray:
    """Draw genes of each cell with replacement, in proportion to log1p of their counts.

    Every cell reads its own stream and its genes by increasing id, so that nothing else enters.

    Returns
    -------
    Gene ids, shape `(n_cells, sample_size)`, int32; -1 for cells without counts.
    """
    n_cells = len(indptr) - 1
    out = np.full((n_cells, sample_size), -1, dtype=np.int32)
    for cell in range(n_cells):
        ids, weights = gene_ids[indptr[cell] : indptr[cell + 1]], counts[indptr[cell] : indptr[cell + 1]]
        if len(ids) == 0:
            continue
        if np.any(ids[1:] < ids[:-1]):
            order = np.argsort(ids, kind="mergesort")
            ids, weights = ids[order], weights[order]
        edges = np.cumsum(np.log1p(weights.astype(np.float64)))
        stream = mix64(streams[cell] ^ _DRAW)
        for i in range(sample_size):
            u = uniform(stream, np.uint64(i)) * edges[-1]
            out[cell, i] = ids[min(np.searchsorted(edges, u, side="right"), len(ids) - 1)]
    return out


def draw_like_numpy(
    indptr: np.ndarray,
    gene_ids: np.ndarray,
    weights: np.ndarray,
    state: np.random.RandomState,
    sample_size: int,
    first: int,
    chromosome: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw genes and shuffle their chromosomes with one sequential generator, cell after cell, as upstream does.

    Returns
    -------
    What :func:`draw_genes` and :func:`shuffle_chromosomes` return.
    """
    n_cells = len(indptr) - 1
    drawn = np.full((n_cells, sample_size), -1, dtype=np.int32)
    order = np.full((n_cells, min(sample_size, int(chromosome.max()) + 1)), -1, dtype=np.int32)
    for cell in range(n_cells):
        entries = slice(indptr[cell], indptr[cell + 1])
        edges = np.cumsum(weights[entries], dtype=np.float64)
        if len(edges) == 0:
            continue
        places = np.searchsorted(edges / edges[-1], state.random_sample(sample_size), side="right")
        drawn[cell] = gene_ids[entries][places]
        codes = np.unique(chromosome[drawn[cell] - first])
        state.shuffle(codes)
        order[cell, : len(codes)] = codes
    return drawn, order


@njit()
def shuffle_chromosomes(drawn: np.ndarray, first: int, chromosome: np.ndarray, streams: np.ndarray) -> np.ndarray:
    """Order the chromosomes of the drawn genes at random: a chromosome's place is keyed by its code and the cell.

    Returns
    -------
    Chromosome codes, shape `(n_cells, most)`, int32, filled up with -1.
    """
    n_cells = len(drawn)
    n_codes = chromosome.max() + 1 if len(chromosome) else 1
    out = np.full((n_cells, min(n_codes, drawn.shape[1])), -1, dtype=np.int32)
    seen = np.zeros(n_codes, dtype=np.bool_)
    most = 0
    for cell in range(n_cells):
        if drawn.shape[1] == 0 or drawn[cell, 0] < 0:
            continue
        seen[:] = False
        for gene in drawn[cell]:
            seen[chromosome[gene - first]] = True
        codes = np.flatnonzero(seen)
        stream = mix64(streams[cell] ^ _SHUFFLE)
        keys = np.empty(len(codes), dtype=np.float64)
        for i in range(len(codes)):
            keys[i] = uniform(stream, np.uint64(codes[i]))
        order = np.argsort(keys, kind="mergesort")
        for i in range(len(codes)):
            out[cell, i] = codes[order[i]]
        most = max(most, len(codes))
    return out[:, :most].copy()


@over_cells(cells=("drawn", "order"))
@njit()
def assemble_sentences(
    drawn: np.ndarray,
    order: np.ndarray,
    first: int,
    chromosome: np.ndarray,
    place: np.ndarray,
    special: tuple[int, int, int],
    max_length: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Write `[CLS]`, then for each chromosome its token, its drawn genes by position, and the closing token.

    Parameters
    ----------
    drawn
        Drawn gene ids, shape `(n_cells, sample_size)`, -1 for cells without genes.
    order
        Chromosome codes in the order of the sentence, shape `(n_cells, most)`, filled up with -1.
    first
        Id of the first gene in the tables.
    chromosome, place
        Chromosome code and rank of the start position of each gene, shape `(n_genes,)`.
    special
        Ids of `[CLS]`, of the closing token, and of chromosome code 0.
    max_length
        Longer sentences are cut.

    Returns
    -------
    `indptr` and ids of the sentences.
    """
    n_cells, sample_size = drawn.shape
    cls, closing, offset = special
    indptr = np.zeros(n_cells + 1, dtype=np.int64)
    ids = np.empty(n_cells * min(max_length, 1 + sample_size + 2 * order.shape[1]), dtype=np.int32)
    where = np.full(max(chromosome.max() + 1 if len(chromosome) else 1, order.max() + 1 if order.size else 1), -1)
    keys = np.empty(sample_size, dtype=np.int64)
    end = 0
    for cell in range(n_cells):
        indptr[cell + 1] = end
        if sample_size == 0 or drawn[cell, 0] < 0:
            continue
        where[:] = -1
        for i in range(order.shape[1]):
            if order[cell, i] >= 0:
                where[order[cell, i]] = i
        for i in range(sample_size):
            gene = drawn[cell, i] - first
            at = where[chromosome[gene]]
            keys[i] = (at << 44) | (np.int64(place[gene]) << 22) | i  # ties keep the order of the draw
        keys.sort()
        stop = end + max_length
        ids[end] = cls
        end += 1
        current = -1
        for i in range(sample_size + 1):
            at = keys[i] >> 44 if i < sample_size else -1
            if at != current:
                if current >= 0 and end < stop:
                    ids[end] = closing
                    end += 1
                if at >= 0 and end < stop:
                    ids[end] = offset + order[cell, at]
                    end += 1
                current = at
            if i < sample_size and end < stop:
                ids[end] = drawn[cell, keys[i] & ((1 << 22) - 1)]
                end += 1
        indptr[cell + 1] = end
    return indptr, ids[:end].copy()
