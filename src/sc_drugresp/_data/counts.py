"""The one reader: any AnnData or MuData to CSR blocks of rows. Nothing else looks into `.X`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._core.keys import COUNTS_LAYER
from .._core.log import logger
from .._core.settings import settings
from .content import TRANSFORM_WORDS, WORDS, Kind, Transform, find_transform, kind_of, probe, recover_counts
from .modalities import as_adata
from .rows import Rows, open_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from mudata import MuData
    from scipy.sparse import csr_matrix

    from .vocab import GeneAlignment, GeneMode, GeneVocab

ID_COLUMNS = (
    "ensembl_id",
    "symbol",
    "gene_ids",
    "gene_id",
    "feature_id",
    "ensembl",
    "ensembl_ids",
    "gene_symbols",
    "gene_symbol",
    "gene_name",
    "gene_names",
    "feature_name",
    "symbols",
    "hgnc_symbol",
)
"""Columns of `.var` that may hold the second identifier of a gene: ours first, then those of common readers."""


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
    """

    def __init__(
        self,
        matrix: Any,
        names: np.ndarray,
        other: np.ndarray | None,
        origin: str,
        kind: Kind,
        transform: Transform | None = None,
    ) -> None:
        self.matrix = matrix if isinstance(matrix, Rows) else open_rows(matrix)
        self.names, self.other, self.origin, self.kind, self.transform = names, other, origin, kind, transform
        self.n_obs, self.n_vars = self.matrix.shape

    def blocks(self, size: int | None = None, rows: np.ndarray | None = None) -> Iterator[tuple[int, csr_matrix]]:
        """Yield `(start, block)`; with `rows`, only these rows, in this order.

        Blocks are float32 CSR with sorted indices and without stored zeros, `size` rows each.

        Raises
        ------
        ValueError
            A row holds something else than the rows that were looked at first.
        """
        for start, block in self.matrix.blocks(settings.block_cells if size is None else size, rows):
            if self.transform is not None:
                block = self._recover(block, start, rows)
            self._verify(block, start, rows)
            yield start, block

    def _recover(self, block: csr_matrix, start: int, rows: np.ndarray | None) -> csr_matrix:
        from scipy.sparse import csr_matrix

        counts, wrong = recover_counts(block, self.transform)  # type: ignore[arg-type]
        if len(wrong):
            row = wrong[0] + start if rows is None else rows[wrong[0] + start]
            msg = (
                f"{self.origin}: in row {row} the integer counts cannot be recovered exactly, although other rows allow "
                f"it. {_FIX}"
            )
            raise ValueError(msg)
        return csr_matrix((counts, block.indices, block.indptr), shape=block.shape)

    def _verify(self, block: csr_matrix, start: int, rows: np.ndarray | None) -> None:
        kind = kind_of(block.data)
        if kind not in {"nan", "infinite"} and (self.kind != "counts" or kind == "counts"):
            return
        bad = ~np.isfinite(block.data)
        if kind not in {"nan", "infinite"}:
            bad = (block.data < 0) | (block.data != np.rint(block.data))
        at = int(np.flatnonzero(bad)[0])
        row = int(np.searchsorted(block.indptr, at, side="right")) - 1 + start
        row = row if rows is None else int(rows[row])
        fix = "Replace missing values (counts that were not seen are 0)." if kind in {"nan", "infinite"} else _FIX
        msg = (
            f"{self.origin} holds {block.data[at]} in row {row}, although its other rows hold {WORDS[self.kind]}. {fix}"
        )
        raise ValueError(msg)

    def take(self, rows: np.ndarray) -> CountSource:
        """A reader of these rows alone; nothing is read yet."""
        matrix = self.matrix.take(rows)
        return CountSource(matrix, self.names, self.other, self.origin, self.kind, self.transform)

    def to_memory(self, rows: np.ndarray | None = None) -> CountSource:
        """A reader of all rows, or of `rows`, in memory as CSR."""
        from scipy import sparse

        matrix = sparse.vstack([block for _, block in self.blocks(rows=rows)], format="csr")
        return CountSource(matrix, self.names, self.other, self.origin, self.kind)

    def totals(self) -> np.ndarray:
        """Sum of each row, shape `(n_obs,)`, float64."""
        return np.concatenate([np.asarray(block.sum(axis=1, dtype=np.float64)).ravel() for _, block in self.blocks()])

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
        No raw counts, NaN, infinite values, no matrix, or no cells or genes.
    KeyError
        The layer or modality does not exist.
    """
    adata = as_adata(data, modality=modality)
    if 0 in adata.shape:
        msg = f"Expected at least one cell and one gene, found an object of shape {adata.shape}."
        raise ValueError(msg)
    found = [(origin, rows, var, probe(rows)) for origin, rows, var in candidates(adata, layer)]
    if not found:
        msg = "The object holds no matrix: `.X`, `.raw` and `.layers['counts']` are all empty."
        raise ValueError(msg)
    for origin, rows, var, kind in found:
        if kind == "counts":
            logger.info("reading raw counts from %s", origin)
            return CountSource(rows, *gene_columns(var), origin, kind)
    if expect == "any":
        origin, rows, var, kind = next((item for item in found if item[0] == "X"), found[0])
        if kind in {"nan", "infinite"}:
            msg = f"{origin} holds {WORDS[kind]}. Replace missing values (counts that were not seen are 0)."
            raise ValueError(msg)
        logger.info("no raw counts found; reading %s as it is (%s)", origin, kind)
        return CountSource(rows, *gene_columns(var), origin, kind)
    for origin, rows, var, kind in found:
        transform = find_transform(rows, kind)
        if transform is not None:
            logger.info("%s holds %s; reading the counts recovered from it", origin, TRANSFORM_WORDS[transform])
            return CountSource(rows, *gene_columns(var), f"{origin} (counts recovered)", "counts", transform)
    raise ValueError(refusal([(origin, kind) for origin, _, _, kind in found], other_counts(adata)))


_FIX = (
    "Put the integer counts of the same genes into adata.layers['counts'] (or name the layer with `layer=`). "
    "Models that work on any matrix: 'pca', 'hvg'."
)


def refusal(found: list[tuple[str, Kind]], elsewhere: list[str]) -> str:
    """Why no counts can be read, and what to do."""
    looked = "; ".join(f"{origin} holds {WORDS[kind]}" for origin, kind in found)
    reason = ""
    if any(kind in {"log_normalized", "nonnegative"} for _, kind in found):
        reason = " Undoing the normalization does not give integers, so that the counts are lost."
    hint = f" {', '.join(elsewhere)} may hold them: choose with `layer=`." if elsewhere else ""
    return f"Raw counts are needed, but none were found: {looked}.{reason}{hint} {_FIX}"


def other_counts(adata: AnnData) -> list[str]:
    """Layers with raw counts under a name that is not looked for."""
    names = [name for name in adata.layers if name not in {COUNTS_LAYER, None}]
    return [f"layers[{name!r}]" for name in names if probe(_layer_rows(adata, name)) == "counts"]


def candidates(adata: AnnData, layer: str | None) -> list[tuple[str, Rows, Any]]:
    """Matrices to look at, best first: where each lies, its rows and its `.var`.

    Raises
    ------
    KeyError
        The layer does not exist.
    """
    out: list[tuple[str, Rows, Any]] = []
    if layer is not None and layer not in {"X", "raw"} and layer not in adata.layers:
        msg = (
            f"Layer {layer!r} not found in `.layers`. "
            f"Available layers: {sorted(name for name in adata.layers if name)}; also 'X' and 'raw'."
        )
        raise KeyError(msg)
    if layer == "raw" and adata.raw is None:
        msg = "layer='raw' was asked for, but `.raw` is empty."
        raise KeyError(msg)
    if layer == "X" and not _has_x(adata):
        msg = "layer='X' was asked for, but `.X` is empty."
        raise KeyError(msg)
    name = COUNTS_LAYER if layer is None else layer
    if name in adata.layers and name not in {"X", "raw"}:
        out.append((f"layers[{name!r}]", _layer_rows(adata, name), adata.var))
    if layer in {None, "X"} and _has_x(adata):
        obs, var = _selection(adata)
        out.append(("X", open_rows(_parent(adata).X, obs, var), adata.var))
    if layer in {None, "raw"} and adata.raw is not None and 0 not in adata.raw.shape:
        out.append(("raw", open_rows(adata.raw.X), adata.raw.var))
    return out


def _parent(adata: AnnData) -> AnnData:
    """The object that a view looks at: slicing it block by block copies less than the view's own `.X`."""
    return adata._adata_ref if adata.is_view else adata


def _selection(adata: AnnData) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Rows and columns of the parent that a view shows."""
    if not adata.is_view:
        return None, None
    parent = adata._adata_ref
    return np.arange(parent.n_obs)[adata._oidx], np.arange(parent.n_vars)[adata._vidx]


def _has_x(adata: AnnData) -> bool:
    parent = _parent(adata)
    return bool(parent.isbacked) or parent.X is not None


def _layer_rows(adata: AnnData, name: str) -> Rows:
    return open_rows(_parent(adata).layers[name], *_selection(adata))


def gene_columns(
    var: Any, key: str | None = None, *, skip: tuple[str, ...] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    """`var_names` and the second identifier of each gene, `""` where unknown; `None` if `.var` has none.

    Parameters
    ----------
    var
        `.var`, also that of a lazy object.
    key
        Column to use; `None` takes the first of the usual ones that differs from the names.
    skip
        Columns not to take unless named.

    Raises
    ------
    KeyError
        There is no such column.
    """
    import pandas as pd

    names = np.asarray(var.index, dtype=str)
    available = [str(name) for name in var.columns]
    if key is not None and key not in available:
        msg = f"Column {key!r} (`gene_key`) not found in `.var`. Available columns: {sorted(available)}."
        raise KeyError(msg)
    for name in ID_COLUMNS if key is None else (key,):
        if name in available and (name == key or name not in skip):
            column = np.asarray(var[name], dtype=object)
            text = np.where(pd.isna(column), "", column).astype(str)
            if not np.array_equal(text, names) and (text != "").any():
                return names, text
    return names, None
