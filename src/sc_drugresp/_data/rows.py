"""Rows of any matrix as CSR: dense, sparse, on disk, dask, or a view of one of them. The matrix is never densified."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scipy.sparse import csr_matrix

_SLAB_BYTES = 512 * 2**20
"""Memory for rows that are gathered from a column-wise matrix in one pass over it."""
_ENTRY_BYTES = 40
"""Memory for an entry while it is gathered: row, column and value, twice, and the matrix made of them."""
_GAPS = 8
"""Rows of a sparse matrix on disk that are read for each one that is wanted, at most, to read them as one piece."""
_PIECE = 4_000_000
"""Entries of such a piece."""
_CHUNK = 4_000_000
"""Entries of a column-wise matrix that are looked at together."""


class Rows:
    """Rows (and columns) of a matrix, read in blocks.

    Parameters
    ----------
    matrix
        Anything two-dimensional: NumPy, SciPy sparse, h5py, zarr, anndata's on-disk matrices, dask.
    obs, var
        Rows and columns of `matrix` that make up the data set, in order; `None` for all.
    """

    def __init__(self, matrix: Any, obs: np.ndarray | None = None, var: np.ndarray | None = None) -> None:
        if len(matrix.shape) != 2:
            msg = f"Expected a matrix of cells and genes, found {len(matrix.shape)} dimensions."
            raise ValueError(msg)
        self.matrix, self.obs, self.var = matrix, obs, var
        self.shape = (matrix.shape[0] if obs is None else len(obs), matrix.shape[1] if var is None else len(var))

    def take(self, rows: np.ndarray) -> Rows:
        """Only these rows, in this order."""
        return type(self)(self.matrix, rows if self.obs is None else self.obs[rows], self.var)

    def read(self, index: slice | range | np.ndarray) -> csr_matrix:
        """Some rows, in the order asked for: float32, sorted indices, no stored zeros, no duplicates."""
        if isinstance(index, range):
            index = slice(index.start, index.stop)
        if self.obs is not None:
            index = self.obs[index]
        block = as_csr(self._take(index) if isinstance(index, slice) else self._pick(index))
        return block if self.var is None else as_csr(block[:, self.var])

    def blocks(self, size: int, rows: np.ndarray | range | None = None) -> Iterator[tuple[int, csr_matrix]]:
        """Yield `(start, block)` for `size` rows at a time; with `rows`, only these, in this order.

        A range without gaps is read from a disk much faster than the same rows in an array.
        """
        n = self.shape[0] if rows is None else len(rows)
        for start in range(0, n, size):
            stop = min(start + size, n)
            yield start, self.read(slice(start, stop) if rows is None else rows[start:stop])

    def _pick(self, index: np.ndarray) -> Any:
        """Rows by number; on disk, those that lie close together are cut out of one piece, for single rows are slow."""
        starts = self._starts
        if starts is None or not len(index):
            return self._take(index)
        from scipy.sparse import csr_matrix

        rows, back = np.unique(index, return_inverse=True)
        size = starts[rows + 1] - starts[rows]
        ends = np.append(0, np.cumsum(size))
        stored = [self.matrix.group[name] for name in ("data", "indices")]
        taken = [np.empty(ends[-1], array.dtype) for array in stored]
        for first, last in _pieces(starts[rows], starts[rows + 1]):
            at = slice(int(starts[rows[first]]), int(starts[rows[last - 1] + 1]))
            held = at.stop - at.start == ends[last] - ends[first]
            offset = starts[rows[first:last]] - at.start - (ends[first:last] - ends[first])
            wanted = slice(None) if held else np.repeat(offset, size[first:last]) + np.arange(ends[last] - ends[first])
            for array, out in zip(stored, taken):
                out[ends[first] : ends[last]] = array[at][wanted]
        found = csr_matrix((*taken, ends), shape=(len(rows), self.matrix.shape[1]))
        return found if np.array_equal(rows, index) else found[back]

    @cached_property
    def _starts(self) -> np.ndarray | None:
        """Where the rows of a sparse matrix on disk begin; `None` for any other."""
        group = getattr(self.matrix, "group", None)
        return None if group is None else np.asarray(group["indptr"][:], dtype=np.int64)

    def _take(self, index: slice | np.ndarray) -> Any:
        matrix = self.matrix
        if isinstance(index, slice) and index.step in (None, 1) and self._starts is not None:
            from scipy.sparse import csr_matrix

            first, last, _ = index.indices(matrix.shape[0])
            starts = self._starts[first : max(last, first) + 1]
            stored = slice(int(starts[0]), int(starts[-1]))
            arrays = (matrix.group["data"][stored], matrix.group["indices"][stored], starts - starts[0])
            return csr_matrix(arrays, shape=(len(starts) - 1, matrix.shape[1]))
        if isinstance(index, np.ndarray) and _orders_rows(matrix):
            # HDF5 and zarr want each row once, in order; dask reads each chunk once then.
            unique, place = np.unique(index, return_inverse=True)
            take = getattr(matrix, "get_orthogonal_selection", None)
            block = _computed(matrix[unique] if take is None else take((unique, slice(None))))
            return block if np.array_equal(unique, index) else block[place]
        return _computed(matrix[index])


class ColumnwiseRows(Rows):
    """Rows of a CSC matrix, in memory or on disk.

    A slice of rows costs a pass over the whole matrix, so that as many rows as fit into a fixed amount of memory are
    gathered in each pass and handed out in blocks.
    """

    def blocks(self, size: int, rows: np.ndarray | range | None = None) -> Iterator[tuple[int, csr_matrix]]:
        """Yield `(start, block)` as :meth:`Rows.blocks` does."""
        n = self.shape[0] if rows is None else len(rows)
        _, indices, _ = self._arrays()
        per_row = _ENTRY_BYTES * indices.shape[0] / max(self.matrix.shape[0], 1)
        slab = max(int(_SLAB_BYTES / max(per_row, 1)) // size, 1) * size
        for first in range(0, n, slab):
            stop = min(first + slab, n)
            gathered = self.read(slice(first, stop) if rows is None else rows[first:stop])
            for start in range(first, stop, size):
                yield start, as_csr(gathered[start - first : min(start + size, stop) - first])

    def _pick(self, index: np.ndarray) -> Any:
        return self._take(index)

    def _arrays(self) -> tuple[Any, Any, Any]:
        group = getattr(self.matrix, "group", None)
        if group is not None:
            return group["data"], group["indices"], group["indptr"]
        return self.matrix.data, self.matrix.indices, self.matrix.indptr

    def _take(self, index: slice | np.ndarray) -> Any:
        from scipy.sparse import csr_matrix

        data, indices, indptr = self._arrays()
        indptr = np.asarray(indptr[:], dtype=np.int64)
        wanted = np.arange(self.matrix.shape[0])[index] if isinstance(index, slice) else index
        unique, back = np.unique(wanted, return_inverse=True)
        place = np.full(self.matrix.shape[0], -1, dtype=np.int32)
        place[unique] = np.arange(len(unique), dtype=np.int32)
        row, column, value = [np.empty(0, np.int32)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
        for start in range(0, int(indptr[-1]), _CHUNK):
            stop = min(start + _CHUNK, int(indptr[-1]))
            at = place[np.asarray(indices[start:stop])]
            keep = np.flatnonzero(at >= 0)
            row.append(at[keep])
            # The column of an entry is the last one that begins at or before it.
            column.append((np.searchsorted(indptr, keep + start, side="right") - 1).astype(np.int32))
            value.append(np.asarray(data[start:stop])[keep].astype(np.float32, copy=False))
        shape = (len(unique), self.matrix.shape[1])
        entries = (np.concatenate(value), (np.concatenate(row), np.concatenate(column)))
        block = csr_matrix(entries, shape=shape, dtype=np.float32)
        return block if len(unique) == len(wanted) and np.array_equal(unique, wanted) else block[back]


def open_rows(matrix: Any, obs: np.ndarray | None = None, var: np.ndarray | None = None) -> Rows:
    """Choose the reader for a matrix."""
    columnwise = getattr(matrix, "format", None) == "csc"
    return (ColumnwiseRows if columnwise else Rows)(matrix, obs, var)


def as_csr(block: Any) -> csr_matrix:
    """A block as canonical float32 CSR. Arrays of the user are copied before anything in them moves.

    Raises
    ------
    ValueError
        The values are no numbers, or some are masked.
    """
    from scipy.sparse import csr_matrix

    dtype = np.dtype(block.dtype)
    if dtype.kind not in "buif":
        msg = f"Expected numbers, found a matrix of type {dtype}."
        raise ValueError(msg)
    if np.ma.is_masked(block):
        msg = (
            f"The matrix is a masked array in which {np.ma.count_masked(block):,} values are masked. What they stand for is not "
            "known: fill them first, for example with adata.X = adata.X.filled(0) where no count was seen."
        )
        raise ValueError(msg)
    source = block.tocsr() if hasattr(block, "tocsr") else np.asarray(block)
    with np.errstate(over="ignore"):  # what float32 does not hold is refused as infinite
        out = csr_matrix(source, dtype=np.float32)
    if not (out.has_canonical_format and out.data.all()):
        out = out.copy()
        out.sum_duplicates()
        out.eliminate_zeros()
    return out


def _pieces(first: np.ndarray, last: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of rows, `(from, to)`, whose entries from `first` to `last` are read as one piece."""
    usual = _GAPS * max(int(np.mean(last - first)), 1)
    cuts = np.flatnonzero(first[1:] - last[:-1] > usual) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(first)]):
        while start < stop:
            upto = max(int(np.searchsorted(last[start:stop], first[start] + _PIECE, side="right")), 1)
            yield start, start + upto
            start += upto


def _computed(block: Any) -> Any:
    return block.compute() if hasattr(block, "compute") else block


def _orders_rows(matrix: Any) -> bool:
    """Whether a matrix is a dense array on disk or a dask array."""
    return hasattr(matrix, "compute") or type(matrix).__module__.split(".")[0] in {"h5py", "zarr"}
