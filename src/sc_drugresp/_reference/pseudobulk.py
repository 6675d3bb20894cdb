"""Sums of the cells of a group over the genes of a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._data.vocab import GeneVocab
from .align import log_cpm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._data.counts import CountSource

LINEAR = frozenset({"counts", "log_normalized", "nonnegative"})
"""What a matrix may hold for cells to be added up."""


@dataclass(frozen=True, eq=False)
class Pseudobulk:
    """Groups of cells over the genes of a model."""

    counts: np.ndarray
    """Shape `(n_groups, n_genes)`."""
    totals: np.ndarray
    """Sum over all genes of the data, shape `(n_groups,)`."""
    n_cells: np.ndarray
    seen: np.ndarray
    """Genes of the model that the data have, shape `(n_genes,)`, bool."""

    @property
    def values(self) -> np.ndarray:
        """`log2(CPM + 1)`."""
        return log_cpm(self.counts, self.totals)


def pseudobulk(source: CountSource, genes: Sequence[str], groups: np.ndarray, n_groups: int) -> Pseudobulk:
    """Add up the cells of each group, block by block.

    Log-normalized values are taken back to a linear scale first; then every cell weighs the same.

    Parameters
    ----------
    source
        Cells, from `read_counts(expect="any")`.
    genes
        Symbols of the model; other names of the same gene are found through the gene tables.
    groups
        Group of each cell from 0, shape `(n_obs,)`; -1 leaves a cell out.
    n_groups
        Number of groups.

    Raises
    ------
    ValueError
        The matrix is scaled, so that cells cannot be added up, or none of the genes is there.
    """
    from scipy.sparse import csr_matrix

    if source.kind not in LINEAR:
        msg = (
            f"{source.origin} holds scaled values, which cannot be added up over cells. Pass raw counts "
            "(adata.layers['counts'] or `layer=`) or log-normalized values."
        )
        raise ValueError(msg)
    names, other = source.names.tolist(), None if source.other is None else source.other.tolist()
    index = GeneVocab(genes).align(names, other).ids
    known = np.flatnonzero(index >= 0)
    if not len(known):
        msg = (
            f"None of the {len(genes)} genes of the reference is among the {len(names)} genes of the data "
            f"({', '.join(names[:3])}, ...). Symbols or Ensembl ids of human genes are needed; see pp.harmonize_genes."
        )
        raise ValueError(msg)
    place = csr_matrix((np.ones(len(known)), (known, index[known])), shape=(len(names), len(genes)))
    counts, totals = np.zeros((n_groups, len(genes))), np.zeros(n_groups)
    for start, block in source.blocks():
        rows = groups[start : start + block.shape[0]]
        kept = np.flatnonzero(rows >= 0)
        member = csr_matrix((np.ones(len(kept)), (rows[kept], kept)), shape=(n_groups, block.shape[0]))
        block = block.astype(np.float64)
        if source.kind == "log_normalized":
            np.expm1(block.data, out=block.data)
        sums = member @ block
        counts += (sums @ place).toarray()
        totals += np.asarray(sums.sum(axis=1)).ravel()
    seen = np.zeros(len(genes), dtype=bool)
    seen[index[known]] = True
    return Pseudobulk(counts, totals, np.bincount(groups[groups >= 0], minlength=n_groups), seen)
