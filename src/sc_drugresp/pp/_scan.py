"""One pass over the matrix that the tools would read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .._core.progress import progress_bar
from .._core.settings import settings
from .._data.content import recover_counts
from .._data.matrices import best_matrix, find_matrices
from .._design.quality import measured, mitochondrial

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from .._data.matrices import Matrix


@dataclass
class Scan:
    """What a matrix holds.

    Parameters
    ----------
    matrix, looked_at
        The matrix that was read, and all that were looked at.
    totals, detected
        Sum and number of non-zero genes of each cell.
    mito
        Share of mitochondrial genes in the sum of each cell; zero where no gene is mitochondrial.
    gene_totals
        Sum of each gene; of the counts where they can be recovered.
    n_nan, n_infinite, n_negative, n_fractions
        Number of stored values of that kind.
    n_unrecovered
        Cells whose counts cannot be recovered.
    largest
        Largest finite value.
    """

    matrix: Matrix
    looked_at: list[Matrix]
    totals: np.ndarray
    detected: np.ndarray
    mito: np.ndarray
    gene_totals: np.ndarray
    n_nan: int = 0
    n_infinite: int = 0
    n_negative: int = 0
    n_fractions: int = 0
    n_unrecovered: int = 0
    largest: float = 0.0

    @property
    def is_counts(self) -> bool:
        """The matrix holds counts in every cell, as they are or recovered."""
        clean = not (self.n_nan or self.n_infinite or self.n_negative or self.n_unrecovered)
        return clean and self.matrix.holds_counts and (self.matrix.transform is not None or not self.n_fractions)

    @cached_property
    def _is_mito(self) -> np.ndarray:
        return mitochondrial(np.asarray(self.matrix.var.index))

    def weights(self, genes: np.ndarray | None = None) -> tuple[np.ndarray, str]:
        """Counts of each gene (of `genes`, if given), float64, and their name; 1 where values do not add up."""
        columns = None if genes is None else _columns(self.matrix, genes)
        totals = self.gene_totals if columns is None else self.gene_totals[columns]
        if self.matrix.kind == "scaled" or self.n_negative or not totals.any():
            return np.ones(len(totals)), "genes"
        return totals, f"counts ({self.matrix.origin})"

    def measured(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What an evaluation would measure of each of these cells beside its genes, by name."""
        values = measured(np.column_stack([self.totals[rows], self.detected[rows], self.mito[rows]]))
        return values if self._is_mito.any() else dict(list(values.items())[:2])

    def add(self, start: int, block: csr_matrix) -> None:
        """Take in some rows."""
        values, matrix = block.data, self.matrix
        if matrix.transform is not None:
            values, wrong = recover_counts(block, matrix.transform)
            self.n_unrecovered += len(wrong)
            values = np.nan_to_num(values)
        self.n_nan += int(np.isnan(values).sum())
        self.n_infinite += int(np.isinf(values).sum())
        values = np.where(np.isfinite(values), values, 0)
        self.n_negative += int((values < 0).sum())
        self.n_fractions += int((values != np.rint(values)).sum())
        self.largest = max(self.largest, float(values.max(initial=0)))
        n, genes = block.shape
        detected = np.diff(block.indptr)
        here = slice(start, start + n)
        self.totals[here] = np.bincount(np.repeat(np.arange(n), detected), weights=values, minlength=n)
        self.detected[here] = detected
        mito = np.where(self._is_mito[block.indices], values, 0)
        part = np.bincount(np.repeat(np.arange(n), detected), weights=mito, minlength=n)
        self.mito[here] = part / np.where(self.totals[here] > 0, self.totals[here], 1)
        logged = matrix.kind == "log_normalized" and matrix.transform is None
        weights = np.expm1(np.clip(values, None, 80)) if logged else values
        self.gene_totals += np.bincount(block.indices, weights=weights, minlength=genes)


def scan(adata: AnnData, layer: str | None, desc: str, genes: np.ndarray | None = None) -> Scan | None:
    """Choose the matrix that the tools would read, and read it once in blocks; `None` if there is none.

    With `genes`, matrices that lack one of them do not count, as `.raw` may.
    """
    found = find_matrices(adata, layer)
    if genes is not None:
        found = [matrix for matrix in found if _columns(matrix, genes) is not None]
    if not found:
        return None
    matrix = best_matrix(found)
    n, n_genes = matrix.rows.shape
    out = Scan(matrix, found, np.zeros(n), np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n_genes))
    with progress_bar(total=n, desc=desc) as bar:
        for start, block in matrix.rows.blocks(settings.block_cells):
            out.add(start, block)
            bar.update(block.shape[0])
    return out


def _columns(matrix: Matrix, genes: np.ndarray) -> np.ndarray | None:
    """Column of each gene; `None` if the matrix lacks one, or names another one twice."""
    import pandas as pd

    own = np.asarray(matrix.var.index, dtype=str)
    if np.array_equal(own, genes):
        return np.arange(len(own))
    index = pd.Index(own)
    columns = index.get_indexer(genes) if index.is_unique else np.array([-1])
    return None if (columns < 0).any() else columns
