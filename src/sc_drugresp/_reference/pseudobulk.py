"""Sums of the cells of a group over the genes of a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._data.vocab import GeneVocab
from .align import log_cpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scipy.sparse import csr_matrix

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


def gene_places(source: CountSource, genes: Sequence[str]) -> csr_matrix:
    """Where the columns of a matrix go among the genes of a model, `(n_vars, n_genes)`.

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
    return csr_matrix((np.ones(len(known)), (known, index[known])), shape=(len(names), len(genes)))


def linear_blocks(source: CountSource) -> Iterator[tuple[int, csr_matrix]]:
    """Blocks of rows on a linear scale, float64; of log-normalized values every cell then weighs the same."""
    for start, block in source.blocks():
        block = block.astype(np.float64)
        if source.kind == "log_normalized":
            np.expm1(block.data, out=block.data)
        yield start, block


def pseudobulk(
    source: CountSource,
    genes: Sequence[str],
    groups: np.ndarray,
    n_groups: int,
    *,
    n_draws: int = 1,
    draw: Callable[[tuple[int, int]], np.ndarray] | None = None,
) -> Pseudobulk:
    """Add up the cells of each group, block by block.

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
    n_draws, draw
        `draw((n_cells, n_draws))` says how often each of the next cells counts; every draw makes its own `n_groups` rows, one
        after another. `None` counts each cell once.

    Raises
    ------
    ValueError
        The matrix is scaled, so that cells cannot be added up, or none of the genes is there.
    """
    from scipy.sparse import csr_matrix

    place = gene_places(source, genes)
    counts, totals = np.zeros((n_draws * n_groups, len(genes))), np.zeros(n_draws * n_groups)
    for start, block in linear_blocks(source):
        cells = slice(start, start + block.shape[0])
        rows = groups[cells]
        kept = np.flatnonzero(rows >= 0)
        at = (rows[kept][:, None] + n_groups * np.arange(n_draws)).ravel()
        times = np.ones((len(rows), n_draws)) if draw is None else draw((len(rows), n_draws))
        data = times[kept].ravel().astype(np.float64)
        member = csr_matrix((data, (at, np.repeat(kept, n_draws))), shape=(n_draws * n_groups, block.shape[0]))
        sums = member @ block
        counts += (sums @ place).toarray()
        totals += np.asarray(sums.sum(axis=1)).ravel()
    seen = np.zeros(len(genes), dtype=bool)
    seen[place.indices] = True
    return Pseudobulk(counts, totals, np.bincount(groups[groups >= 0], minlength=n_groups), seen)
