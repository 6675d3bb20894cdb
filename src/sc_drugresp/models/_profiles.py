"""Cells as the fitted embedders see them: rows of log-normalized values, and an even choice of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from .._data import GeneVocab

if TYPE_CHECKING:
    from .._data import CountBlock, CountSource
    from .._data.counts import AlignedCounts

TARGET_SUM = 1e4


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly spread."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def read_profiles(source: CountSource, rows: np.ndarray | None) -> tuple[np.ndarray, sparse.csr_matrix, np.ndarray]:
    """Gene names, values of `rows`, and totals; columns with the same name are added up."""
    genes = pd.unique(np.asarray(source.names))
    blocks = [
        (matrix_of(block, len(genes)), block.totals)
        for block in align_genes(source, genes, exact=True).blocks(rows=rows)
    ]
    matrix = sparse.vstack([block for block, _ in blocks], format="csr")
    return genes, matrix, np.concatenate([part for _, part in blocks])


def align_genes(source: CountSource, genes: np.ndarray, *, exact: bool) -> AlignedCounts:
    """The cells of `source` with the columns `genes`."""
    aligned = source.align(GeneVocab(genes.tolist()), "exact" if exact else "auto")
    if not (aligned.alignment.ids >= 0).any():
        msg = f"None of the {len(genes)} genes of this model is in the data; check gene names with pp.check(adata)."
        raise ValueError(msg)
    return aligned


def matrix_of(block: CountBlock, n_genes: int) -> sparse.csr_matrix:
    """The values of a block; totals over all genes stand beside them."""
    return sparse.csr_matrix(
        (block.counts, block.gene_ids, block.indptr), shape=(len(block), n_genes), dtype=np.float32
    )


def normalize(matrix: sparse.csr_matrix, kind: str, totals: np.ndarray) -> sparse.csr_matrix:
    """log1p of counts per 10,000; other kinds of values are left as they are."""
    if kind != "counts":
        return matrix
    scale = TARGET_SUM / np.where(totals > 0, totals, 1.0)
    out = matrix.astype(np.float32)
    out.data = np.log1p(out.data * np.repeat(scale, np.diff(out.indptr)).astype(np.float32))
    return out
