"""The one reader: any AnnData or MuData to CSR blocks of rows. Nothing else looks into `.X`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._core.log import logger
from .._core.settings import settings
from .content import TRANSFORM_WORDS, WORDS, kind_of, recover_counts
from .matrices import best_matrix, find_matrices, gene_columns, other_counts
from .modalities import as_adata
from .rows import Rows, open_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData
    from scipy.sparse import csr_matrix

    from .content import Kind, Transform
    from .matrices import Matrix
    from .vocab import GeneAlignment, GeneMode, GeneVocab

_FILL = "Replace missing values (counts that were not seen are 0)."
MOST_COUNTS = 2**31
"""Beyond this a value is no count, and float32 does not hold it."""
_FIX = (
    "Put the integer counts of the same genes into adata.layers['counts'] (or name the layer with `layer=`). "
    "Models that work on any matrix: 'pca', 'hvg'."
)


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
    cells
        Further arrays with one entry per cell, by name, as in :class:`CountSource`.
    """

    start: int
    indptr: np.ndarray
    gene_ids: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def streams(self, seed: int) -> np.ndarray:
        """Random stream of each cell, see :func:`~sc_drugresp._data.kernels.cell_streams`."""
        from .kernels import cell_streams

        return cell_streams(self.indptr, self.gene_ids, self.counts, seed)


class CountSource:
    """One matrix of a data set, read in CSR blocks of rows, each of which is checked.

    Parameters
    ----------
    matrix
        Anything that gives rows: dense, sparse, backed, dask, or a :class:`~sc_drugresp._data.rows.Rows`.
    names, other
        `var_names`, and the second identifier of each gene where `.var` has one.
    origin, kind
        Where the matrix was found and what it holds.
    transform
        What has to be undone to get the counts; `None` for a matrix that is read as it is.
    first
        Number of the first row, for messages, where the matrix is a piece of a larger one.
    cells
        Further arrays with one entry per cell, by name, for models that read more than counts.
    """

    def __init__(
        self,
        matrix: Any,
        names: np.ndarray,
        other: np.ndarray | None,
        origin: str,
        kind: Kind,
        transform: Transform | None = None,
        cells: Mapping[str, np.ndarray] | None = None,
        *,
        first: int = 0,
    ) -> None:
        self.matrix = matrix if isinstance(matrix, Rows) else open_rows(matrix)
        self.names, self.other, self.origin, self.kind, self.transform = names, other, origin, kind, transform
        self.first, (self.n_obs, self.n_vars) = first, self.matrix.shape
        self.cells = dict(cells or {})
        self._totals: np.ndarray | None = None

    def blocks(
        self, size: int | None = None, rows: np.ndarray | range | None = None
    ) -> Iterator[tuple[int, csr_matrix]]:
        """Yield `(start, block)`; with `rows`, only these rows, in this order.

        Blocks are float32 CSR with sorted indices and without stored zeros, `size` rows each.

        Raises
        ------
        ValueError
            A row holds something else than the rows that were looked at first.
        """
        for start, block in self.matrix.blocks(settings.block_cells if size is None else size, rows):
            stop = start + block.shape[0]
            place = self.first + np.asarray(range(start, stop) if rows is None else rows[start:stop])
            if self.transform is not None:
                block = self._recover(block, place)
            self._verify(block, place)
            yield start, block

    def _recover(self, block: csr_matrix, place: Sequence[int] | np.ndarray) -> csr_matrix:
        from scipy.sparse import csr_matrix

        counts, wrong = recover_counts(block, self.transform)  # type: ignore[arg-type]
        if len(wrong):
            msg = (
                f"{self.origin}: in row {place[wrong[0]]} the integer counts cannot be recovered exactly, although other "
                f"rows allow it. {_FIX}"
            )
            raise ValueError(msg)
        return csr_matrix((counts, block.indices, block.indptr), shape=block.shape)

    def _verify(self, block: csr_matrix, place: Sequence[int] | np.ndarray) -> None:
        kind = kind_of(block.data)
        if self.kind == "counts" and kind == "counts" and block.data.max(initial=0) > MOST_COUNTS:
            bad, fix = (
                block.data > MOST_COUNTS,
                "Such values are no counts of molecules or reads; look where they come from.",
            )
        elif kind in {"nan", "infinite"}:
            bad, fix = ~np.isfinite(block.data), _FILL
        elif self.kind == "counts" and kind != "counts":
            bad, fix = (block.data < 0) | (block.data != np.rint(block.data)), _FIX
        else:
            return
        at = int(np.flatnonzero(bad)[0])
        row = place[int(np.searchsorted(block.indptr, at, side="right")) - 1]
        msg = (
            f"{self.origin} holds {block.data[at]} in row {row}, although its other rows hold {WORDS[self.kind]}. {fix}"
        )
        raise ValueError(msg)

    def take(self, rows: np.ndarray) -> CountSource:
        """A reader of these rows alone; nothing is read yet."""
        matrix = self.matrix.take(rows)
        cells = {name: array[rows] for name, array in self.cells.items()}
        return CountSource(matrix, self.names, self.other, self.origin, self.kind, self.transform, cells)

    def to_memory(self, rows: np.ndarray | None = None) -> CountSource:
        """A reader of all rows, or of `rows`, in memory as CSR."""
        from scipy import sparse

        matrix = sparse.vstack([block for _, block in self.blocks(rows=rows)], format="csr")
        cells = {name: array if rows is None else array[rows] for name, array in self.cells.items()}
        return CountSource(matrix, self.names, self.other, self.origin, self.kind, cells=cells)

    def thinned(self, rows: np.ndarray, share: float, rng: np.random.Generator) -> CountSource:
        """Some cells as if sequenced less deeply, in memory: each count is kept with probability `share`."""
        from scipy import sparse

        matrix = sparse.vstack([block for _, block in self.blocks(rows=rows)], format="csr")
        matrix.data = rng.binomial(matrix.data.astype(np.int64), share).astype(np.float32)
        matrix.eliminate_zeros()
        cells = {name: array[rows] for name, array in self.cells.items()}
        return CountSource(matrix, self.names, self.other, self.origin, self.kind, cells=cells)

    def totals(self) -> np.ndarray:
        """Sum of each row, shape `(n_obs,)`, float64."""
        if self._totals is None:
            sums = [np.asarray(block.sum(axis=1, dtype=np.float64)).ravel() for _, block in self.blocks()]
            self._totals = np.concatenate(sums)
        return self._totals

    def keep_totals(self, totals: np.ndarray) -> None:
        """Take the sums of all rows from whoever has read them; those of other values than counts depend on the order."""
        if self.kind == "counts":
            self._totals = totals

    def align(self, vocab: GeneVocab, genes: GeneMode = "auto") -> AlignedCounts:
        """The same cells, seen through the genes of a model."""
        other = None if self.other is None else self.other.tolist()
        return AlignedCounts(self, vocab.align(self.names.tolist(), other, mode=genes))


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

    def blocks(self, size: int | None = None, rows: np.ndarray | range | None = None) -> Iterator[CountBlock]:
        """Yield :class:`CountBlock` pieces; with `rows`, only these rows, in this order."""
        from .kernels import restrict_rows

        sums = np.empty(self.n_obs) if rows is None else None
        for start, block in self.source.blocks(size, rows):
            indptr, rank, counts, totals = restrict_rows(
                block.indptr, block.indices, block.data, self._rank, len(self._ids)
            )
            self.counts_seen += float(totals.sum())
            gene_ids = self._ids[rank]
            unknown = self.alignment.unknown_id
            known = counts if unknown is None else counts[gene_ids != unknown]
            self.counts_matched += float(known.sum(dtype=np.float64))
            stop = start + len(totals)
            place = slice(start, stop) if rows is None else rows[start:stop]
            cells = {name: array[place] for name, array in self.source.cells.items()}
            if sums is not None:
                sums[start:stop] = totals
            yield CountBlock(start, indptr, gene_ids, counts, totals, cells)
        if sums is not None:
            self.source.keep_totals(sums)

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
        No raw counts, NaN, infinite values, no matrix, or no cells or genes.
    KeyError
        The layer or modality does not exist.
    """
    adata = as_adata(data, modality=modality)
    if 0 in adata.shape:
        msg = f"Expected at least one cell and one gene, found an object of shape {adata.shape}."
        raise ValueError(msg)
    found = find_matrices(adata, layer)
    if not found:
        msg = "The object holds no matrix: `.X`, `.raw` and `.layers['counts']` are all empty."
        raise ValueError(msg)
    best = best_matrix(found, recover=expect == "counts")
    if not best.holds_counts:
        if expect == "counts":
            raise ValueError(refusal(found, other_counts(adata)))
        if best.kind in {"nan", "infinite"}:
            msg = f"{best.origin} holds {WORDS[best.kind]}. {_FILL}"
            raise ValueError(msg)
    names, other = gene_columns(best.var)
    if best.transform is None:
        logger.info("reading %s, which holds %s", best.origin, WORDS[best.kind])
        return CountSource(best.rows, names, other, best.origin, best.kind)
    logger.info("%s holds %s; reading the counts recovered from it", best.origin, TRANSFORM_WORDS[best.transform])
    return CountSource(best.rows, names, other, f"{best.origin} (counts recovered)", "counts", best.transform)


def refusal(found: Sequence[Matrix], elsewhere: list[str]) -> str:
    """Why no counts can be read, and what to do."""
    looked = "; ".join(f"{matrix.origin} holds {WORDS[matrix.kind]}" for matrix in found)
    reason = ""
    if any(matrix.kind in {"log_normalized", "nonnegative"} for matrix in found):
        reason = " Undoing the normalization does not give integers, so the counts are lost."
    hint = f" {', '.join(elsewhere)} may hold them: choose with `layer=`." if elsewhere else ""
    return f"Raw counts are needed, but none were found: {looked}.{reason}{hint} {_FIX}"
