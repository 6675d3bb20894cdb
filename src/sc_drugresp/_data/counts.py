"""The one reader: any AnnData or MuData to CSR blocks of rows. Nothing else looks into `.X`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._keys import COUNTS_LAYER, ENSEMBL_ID, SYMBOL
from .._logging import logger
from .._settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from mudata import MuData
    from scipy.sparse import csr_matrix

    from .vocab import GeneAlignment, GeneMode, GeneVocab

Kind = Literal["counts", "log_normalized", "scaled", "nonnegative"]
_PROBE_ROWS = 256


@dataclass(frozen=True)
class CountBlock:
    """Some cells, restricted to the genes that a model knows.

    Parameters
    ----------
    start
        Row of the first cell in the data set (or in the selection of rows that was read).
    indptr, gene_ids, counts
        CSR arrays: int64, int32 token ids, float32. Entries are stored by increasing id with `genes="auto"` and in
        the column order of the data with `genes="exact"`; zeros are not stored.
    totals
        Counts of each cell over *all* genes of the data set, float64.
    """

    start: int
    indptr: np.ndarray
    gene_ids: np.ndarray
    counts: np.ndarray
    totals: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def streams(self, seed: int) -> np.ndarray:
        """Random stream of each cell, see :func:`~sc_drugresp._data.kernels.cell_streams`."""
        from .kernels import cell_streams

        return cell_streams(self.indptr, self.gene_ids, self.counts, seed)


class CountSource:
    """One matrix of a data set, read in CSR blocks of rows.

    Parameters
    ----------
    matrix
        Anything that gives rows for a slice: dense, sparse, backed, dask.
    names, other
        `var_names`, and the second identifier of each gene where `.var` has one.
    origin, kind
        Where the matrix was found and what it holds.
    """

    def __init__(self, matrix: Any, names: np.ndarray, other: np.ndarray | None, origin: str, kind: Kind) -> None:
        self.matrix, self.names, self.other, self.origin, self.kind = matrix, names, other, origin, kind
        self.n_obs, self.n_vars = matrix.shape

    def blocks(self, size: int | None = None, rows: np.ndarray | None = None) -> Iterator[tuple[int, csr_matrix]]:
        """Yield `(start, block)`; with `rows`, only these rows, in this order.

        Blocks are float32 CSR with sorted indices and without stored zeros, `size` rows each.
        """
        size = settings.block_cells if size is None else size
        n = self.n_obs if rows is None else len(rows)
        for start in range(0, n, size):
            stop = min(start + size, n)
            yield start, _as_csr(_rows(self.matrix, slice(start, stop) if rows is None else rows[start:stop]))

    def align(self, vocab: GeneVocab, genes: GeneMode = "auto") -> AlignedCounts:
        """The same cells, seen through the genes of a model."""
        return AlignedCounts(self, vocab.align(self.names, self.other, mode=genes))


class AlignedCounts:
    """Cells restricted to a model's genes. Keeps count of what was covered while it is read."""

    def __init__(self, source: CountSource, alignment: GeneAlignment) -> None:
        self.source, self.alignment = source, alignment
        self.n_obs = source.n_obs
        self.counts_seen = self.counts_matched = 0.0
        columns, ids = alignment.columns, alignment.ids
        targets = np.unique(columns[columns >= 0])
        if alignment.mode == "auto":  # canonical: the order of the columns must not change a cell
            targets = targets[np.argsort(ids[targets], kind="stable")]
        elif alignment.duplicates == "collapse":
            shared = np.bincount(columns[columns >= 0], minlength=len(ids))[targets] > 1
            targets = targets[np.argsort(shared, kind="stable")]
        place = np.full(len(ids), -1, dtype=np.int32)
        place[targets] = np.arange(len(targets), dtype=np.int32)
        self._ids = ids[targets].astype(np.int32, copy=False)
        self._rank = np.where(columns >= 0, place[columns], -1).astype(np.int32)

    def blocks(self, size: int | None = None, rows: np.ndarray | None = None) -> Iterator[CountBlock]:
        """Yield :class:`CountBlock` pieces; with `rows`, only these rows, in this order."""
        from .kernels import restrict_rows

        for start, block in self.source.blocks(size, rows):
            indptr, rank, counts, totals = restrict_rows(
                block.indptr, block.indices, block.data, self._rank, len(self._ids)
            )
            self.counts_seen += float(totals.sum())
            gene_ids = self._ids[rank]
            unknown = self.alignment.unknown_id
            known = counts if unknown is None else counts[gene_ids != unknown]
            self.counts_matched += float(known.sum(dtype=np.float64))
            yield CountBlock(start, indptr, gene_ids, counts, totals)

    @property
    def coverage(self) -> float:
        """Share of the counts read so far that lie in genes the model knows; 1 when there were no counts."""
        return self.counts_matched / self.counts_seen if self.counts_seen else 1.0


def read_counts(
    data: AnnData | MuData,
    *,
    layer: str | None = None,
    expect: Literal["counts", "any"] = "counts",
    modality: str = "rna",
) -> CountSource:
    """Find the matrix to work on, check what it holds, and return a reader.

    Parameters
    ----------
    data
        AnnData (in memory, view, backed, dask, lazy) or MuData.
    layer
        Key of `.layers`, `'X'` or `'raw'`. `None` prefers raw counts: `.layers['counts']`, `.X`, `.raw`.
    expect
        `'counts'` refuses anything else; `'any'` takes `.X` as it is when no counts are found.
    modality
        Modality of a MuData.

    Raises
    ------
    ValueError
        No raw counts, NaN, or no cells or genes.
    KeyError
        The layer or modality does not exist.
    """
    adata = as_adata(data, modality=modality)
    if 0 in adata.shape:
        msg = f"Expected at least one cell and one gene, found an object of shape {adata.shape}."
        raise ValueError(msg)
    found: list[tuple[str, Kind]] = []
    for origin, matrix, var in _candidates(adata, layer):
        kind = _kind(matrix)
        found.append((origin, kind))
        if kind == "counts":
            logger.info("reading raw counts from %s", origin)
            return _source(matrix, var, origin, kind)
    if expect == "any":
        origin, matrix, var = next(iter(_candidates(adata, layer or "X")))
        kind = _kind(matrix)
        logger.info("no raw counts found; reading %s as it is (%s)", origin, kind)
        return _source(matrix, var, origin, kind)
    words = {
        "log_normalized": "log-normalized values",
        "scaled": "scaled values (some are negative)",
        "nonnegative": "values that are not integers",
    }
    looked = "; ".join(f"{origin} holds {words[kind]}" for origin, kind in found)
    msg = (
        f"Raw counts are needed, but none were found: {looked}. Put the integer counts of the same genes into "
        "adata.layers['counts'] (or name the layer with `layer=`). Models that work on any matrix: 'pca', 'hvg'."
    )
    raise ValueError(msg)


def as_adata(data: AnnData | MuData, *, modality: str = "rna") -> AnnData:
    """The AnnData to work on.

    Raises
    ------
    KeyError
        A MuData has no such modality.
    TypeError
        `data` is neither AnnData nor MuData.
    """
    if hasattr(data, "mod"):
        if modality not in data.mod:
            msg = f"Modality {modality!r} not found. Available modalities: {sorted(data.mod)}. Choose with `modality=`."
            raise KeyError(msg)
        return data.mod[modality]
    if hasattr(data, "obs") and hasattr(data, "var"):
        return data
    msg = f"Expected an AnnData or MuData object, found {type(data).__name__}."
    raise TypeError(msg)


def _candidates(adata: AnnData, layer: str | None) -> Iterator[tuple[str, Any, Any]]:
    if layer == "X":
        yield "X", adata.X, adata.var
    elif layer == "raw":
        if adata.raw is None:
            msg = "layer='raw' was asked for, but `.raw` is empty."
            raise KeyError(msg)
        yield "raw", adata.raw.X, adata.raw.var
    elif layer is not None:
        if layer not in adata.layers:
            msg = (
                f"Layer {layer!r} not found in `.layers`. Available layers: {sorted(adata.layers)}; also 'X' and 'raw'."
            )
            raise KeyError(msg)
        yield f"layers[{layer!r}]", adata.layers[layer], adata.var
    else:
        if COUNTS_LAYER in adata.layers:
            yield f"layers[{COUNTS_LAYER!r}]", adata.layers[COUNTS_LAYER], adata.var
        if adata.X is not None:
            yield "X", adata.X, adata.var
        if adata.raw is not None:
            yield "raw", adata.raw.X, adata.raw.var


def _source(matrix: Any, var: Any, origin: str, kind: Kind) -> CountSource:
    names = np.asarray(var.index, dtype=str)
    other = None
    for key in (ENSEMBL_ID, SYMBOL):
        if key in var:
            column = np.asarray(var[key].astype(object).where(var[key].notna(), ""), dtype=str)
            if not np.array_equal(column, names):
                other = column
                break
    return CountSource(matrix, names, other, origin, kind)


def _kind(matrix: Any) -> Kind:
    """What a matrix holds, judged from rows spread over it."""
    n = matrix.shape[0]
    rows = np.unique(np.linspace(0, n - 1, min(n, _PROBE_ROWS)).astype(np.int64))
    values = _as_csr(_rows(matrix, rows)).data
    if np.isnan(values).any():
        msg = "The matrix holds NaN. Replace missing values (counts that were not seen are 0)."
        raise ValueError(msg)
    if len(values) and values.min() < 0:
        return "scaled"
    if np.all(values == np.round(values)):
        return "counts"
    return "log_normalized" if values.max() < 25 else "nonnegative"


def _rows(matrix: Any, index: slice | np.ndarray) -> Any:
    block = matrix[index] if not hasattr(matrix, "iloc") else matrix.iloc[index].to_numpy()
    return block.compute() if hasattr(block, "compute") else block


def _as_csr(block: Any) -> csr_matrix:
    from scipy.sparse import csr_matrix

    out = (
        csr_matrix(block, dtype=np.float32)
        if not hasattr(block, "tocsr")
        else csr_matrix(block.tocsr(), dtype=np.float32)
    )
    if not out.has_sorted_indices or not out.data.all():
        out = out.copy()  # never touch the user's arrays
        out.sum_duplicates()
        out.eliminate_zeros()
    return out
