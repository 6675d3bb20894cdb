"""Which broad compartment a cell belongs to, judged by canonical marker genes: T cell, fibroblast, epithelial cell ...

Sources of the markers: Zheng et al. (2017, Nat Commun 8:14049) for blood, Lambrechts et al. (2018, Nat Med 24:1277) for
stroma and Tirosh et al. (2016, Science 352:189) for melanocytic cells. They tell what kind of cell it is, not whether it is
malignant: a normal epithelial cell and a carcinoma cell look alike here.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from .vocab import GeneVocab

if TYPE_CHECKING:
    from .counts import CountSource

UNASSIGNED = "unassigned"
PARENCHYMAL = "parenchymal"
"""Kind of the compartments that carcinomas, melanomas and brain tumors arise from."""
LEAST_MARKERS, LEAST_SCORE = 3, 0.3
"""Markers that a cell must express, and their mean log1p of counts per 10,000, to be assigned."""


@dataclass(frozen=True)
class Compartment:
    """Name, kind (`immune`, `stromal`, `parenchymal`) and marker genes."""

    name: str
    kind: str
    genes: tuple[str, ...]


@lru_cache
def compartments() -> tuple[Compartment, ...]:
    """The packaged table."""
    text = (files("sc_drugresp.genes") / "tables" / "markers.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return tuple(Compartment(row["compartment"], row["kind"], tuple(row["genes"].split())) for row in rows)


@dataclass(frozen=True)
class Assignment:
    """What marker genes say of every cell.

    Parameters
    ----------
    codes
        Row of the table of compartments of each cell, -1 for cells that are `unassigned`; int8, shape `(n_cells,)`.
    n_markers
        Markers of each compartment that the data hold, shape `(n_compartments,)`.
    """

    codes: np.ndarray
    n_markers: np.ndarray

    @property
    def name(self) -> np.ndarray:
        """Compartment of each cell, or `unassigned`, shape `(n_cells,)`."""
        return np.array([*(item.name for item in compartments()), UNASSIGNED])[self.codes]

    @property
    def parenchymal(self) -> np.ndarray:
        """Cells without markers of blood or stroma, shape `(n_cells,)`, bool."""
        return np.array([*(item.kind == PARENCHYMAL for item in compartments()), True])[self.codes]

    def shares(self) -> dict[str, float]:
        """Share of the cells in each compartment that occurs, the largest first."""
        names = [item.name for item in compartments()]
        counts = np.bincount(np.where(self.codes < 0, len(names), self.codes), minlength=len(names) + 1)
        found = sorted((name, int(n)) for name, n in zip([*names, UNASSIGNED], counts) if n)
        return {name: n / len(self.codes) for name, n in sorted(found, key=lambda item: -item[1])}


def assign_compartments(source: CountSource) -> Assignment:
    """Give each cell the compartment whose markers it expresses most strongly.

    A cell must express three markers of it, at a mean of 0.3 or more; the others are `unassigned`, as mesenchymal tumor
    cells often are. Counts are brought to log1p of counts per 10,000, other values are taken as they are.

    Raises
    ------
    ValueError
        The matrix is scaled: zeros can no longer be told from expression.
    """
    if source.kind == "scaled":
        msg = f"Marker genes need counts or log-normalized values, but {source.origin} is scaled. Keep the counts in .layers['counts']."
        raise ValueError(msg)
    table = compartments()
    genes = sorted({gene for item in table for gene in item.genes})
    aligned = source.align(GeneVocab(genes, fold_case=True))
    known = np.unique(aligned.alignment.ids[aligned.alignment.ids >= 0])
    members = np.array([[float(gene in item.genes) for gene in genes] for item in table]).T
    n_markers = members[known].sum(axis=0).astype(np.int64)
    codes = np.empty(source.n_obs, dtype=np.int8)
    for block in aligned.blocks():
        values = np.zeros((len(block), len(genes)))
        row = np.repeat(np.arange(len(block)), np.diff(block.indptr))
        values[row, block.gene_ids] = block.counts
        if source.kind == "counts":
            values = np.log1p(values * 1e4 / np.maximum(block.totals, 1)[:, None])
        score = values @ members / np.maximum(n_markers, 1)
        best, every = score.argmax(axis=1), np.arange(len(block))
        detected = ((values > 0) @ members)[every, best]
        sure = (detected >= LEAST_MARKERS) & (score[every, best] >= LEAST_SCORE)
        codes[block.start : block.start + len(block)] = np.where(sure, best, -1)
    return Assignment(codes, n_markers)
