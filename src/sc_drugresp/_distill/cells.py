"""Profiles of the cells to learn from: which genes, and their values as sparse rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .._data.vocab import GeneVocab
from ..models._refits import GeneSums, variable_genes
from ..models.student import read_profiles, without_genes

if TYPE_CHECKING:
    from .._data.counts import CountSource


@dataclass(frozen=True)
class Cells:
    """Inputs of a student.

    Parameters
    ----------
    profiles
        Log-normalized genes and the depth, one sparse row per cell.
    genes, gene_kind
        Names of the genes, and what kind of names they are.
    coverage
        Share of the counts that lies in these genes.
    """

    profiles: sparse.csr_matrix
    genes: list[str]
    gene_kind: str
    coverage: float

    @property
    def empty(self) -> np.ndarray:
        """Mask of the cells without a count in these genes."""
        return without_genes(self.profiles)

    def take(self, mask: np.ndarray) -> Cells:
        """Some of the cells."""
        return replace(self, profiles=self.profiles[np.flatnonzero(mask)])


def read_cells(
    source: CountSource, rows: np.ndarray, known: GeneVocab | None, learned: np.ndarray, n_genes: int
) -> Cells:
    """Read `rows` in the most variable genes (scanpy's `seurat` flavor) of those that `learned` marks.

    Parameters
    ----------
    source
        Raw counts.
    rows
        Rows to read.
    known
        Genes of the teacher, to which those of the data are matched; `None` takes all of the data.
    learned
        Mask of `rows`.
    n_genes
        Most genes.

    Raises
    ------
    ValueError
        The cells to learn from have no counts in these genes.
    """
    vocab = _candidates(source, known)
    sums = None
    for _, profiles in read_profiles(source.align(vocab), len(vocab), rows[learned]):
        block = GeneSums.of(profiles[:, :-1], "counts")
        sums = block if sums is None else sums + block
    chosen = variable_genes(sums, "counts", n_genes)  # type: ignore[arg-type]
    vocab = GeneVocab([vocab.names[i] for i in chosen], kind=vocab.kind)
    aligned = source.align(vocab)
    blocks = [profiles for _, profiles in read_profiles(aligned, len(vocab), rows)]
    return Cells(sparse.vstack(blocks, format="csr"), list(vocab.names), vocab.kind, float(aligned.coverage))


def _candidates(source: CountSource, known: GeneVocab | None) -> GeneVocab:
    """Genes of the data by the names of the teacher, where it has some."""
    if known is None:
        names = [str(name) for name in dict.fromkeys(source.names.tolist())]
        ensembl = sum(name.startswith("ENS") for name in names) > len(names) / 2
        return GeneVocab(names, kind="ensembl" if ensembl else "symbol")
    ids = source.align(GeneVocab(list(known.names), kind=known.kind)).alignment.ids
    present = np.unique(ids[ids >= 0])
    if not len(present):
        msg = "None of the genes of the teacher is in the data (`teacher`); check gene names with pp.check(adata)."
        raise ValueError(msg)
    return GeneVocab([known.names[i] for i in present], kind=known.kind)
