"""Products of sparse rows: with a dense table, as the first layer of models that read whole profiles, and with each other."""

from __future__ import annotations

import numpy as np

from .._core.compiling import njit
from .._core.threads import in_threads

_GENES_AT_ONCE = 128  # rows of the table that stay in the second-level cache while all cells use them
_ROWS_PER_TASK = 256


@njit(fastmath=True)
def _add_rows(
    indptr: np.ndarray, ids: np.ndarray, values: np.ndarray, table: np.ndarray, out: np.ndarray, first: int, last: int
) -> None:
    n_genes, width = table.shape
    place = indptr[first:last].copy()
    for start in range(0, n_genes, _GENES_AT_ONCE):
        stop = start + _GENES_AT_ONCE
        for row in range(first, last):
            j, end = place[row - first], indptr[row + 1]
            target = out[row]
            while j + 3 < end and ids[j + 3] < stop:
                a, b, c, d = table[ids[j]], table[ids[j + 1]], table[ids[j + 2]], table[ids[j + 3]]
                u, v, w, x = values[j], values[j + 1], values[j + 2], values[j + 3]
                for i in range(width):
                    target[i] += u * a[i] + v * b[i] + w * c[i] + x * d[i]
                j += 4
            while j < end and ids[j] < stop:
                a, u = table[ids[j]], values[j]
                for i in range(width):
                    target[i] += u * a[i]
                j += 1
            place[row - first] = j


def weighted_rows(
    indptr: np.ndarray, ids: np.ndarray, values: np.ndarray, table: np.ndarray, *, threads: int = 1
) -> np.ndarray:
    """Sum of table rows for each CSR row, weighted by its values; a product that is blocked for the cache.

    Parameters
    ----------
    indptr, ids, values
        CSR rows; ids increase within a row.
    table
        Shape `(n_ids, width)`, float32, C order.
    threads
        Threads to share the rows among; the result does not depend on it.

    Returns
    -------
    Array of shape `(n_rows, width)`, float32.
    """
    out = np.zeros((len(indptr) - 1, table.shape[1]), dtype=np.float32)
    starts = range(0, len(out), _ROWS_PER_TASK)

    def task(first: int) -> None:
        _add_rows(indptr, ids, values, table, out, first, min(first + _ROWS_PER_TASK, len(out)))

    in_threads(task, starts, threads)
    return out


def sorted_rows(indptr: np.ndarray, ids: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same rows with increasing ids; nothing is copied when they are sorted."""
    falls = np.flatnonzero(ids[1:] < ids[:-1]) + 1
    if np.isin(falls, indptr).all():
        return indptr, ids, values
    order = np.lexsort((ids, np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))))
    return indptr, ids[order], values[order]


@njit(nogil=True)
def add_products(indptr: np.ndarray, ids: np.ndarray, values: np.ndarray, first: int, out: np.ndarray) -> None:
    """Add the products of all pairs of values of each row to `out`, in float64; ids increase within a row.

    Of the symmetric matrix of sums, `out` gets the rows from `first` on, up to the diagonal. The work is the square of the
    values that a row has, not of the columns that there are.
    """
    for row in range(len(indptr) - 1):
        start = indptr[row]
        for j in range(start, indptr[row + 1]):
            if ids[j] < first:
                continue
            target, value = out[ids[j] - first], np.float64(values[j])
            for i in range(start, j + 1):
                target[ids[i]] += value * values[i]
