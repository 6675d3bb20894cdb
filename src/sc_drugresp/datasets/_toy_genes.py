"""Genes of the toy data: a response program, markers of cell types, and ordinary genes around them."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

import numpy as np

from ..genes import gene_table

Organism = Literal["human", "mouse"]

# Output of the EGFR-MAPK pathway and proliferation: what an inhibitor acts on. High in sensitive cells.
UP = ("DUSP6", "SPRY2", "SPRY4", "ETV4", "ETV5", "PHLDA1", "EGR1", "FOSL1", "CCND1", "EPHA2", "MKI67", "TOP2A")
# Drug-tolerant, mesenchymal state. High in resistant cells.
DOWN = (
    "AXL", "VIM", "ZEB1", "TWIST1", "FGFR1", "NT5E", "SOX9", "ALDH1A1", "ABCB1", "ABCB1A", "IGFBP3", "SERPINE1",
    "TGFB1",
)  # fmt: skip
TREATMENT = ("CDKN1A", "TXNIP", "BBC3", "DDIT3", "ATF3", "HMOX1", "GADD45A", "TRIB3")
TUMOR = ("EPCAM", "KRT8", "KRT18", "KRT19", "CDH1", "MUC1")
NORMAL = ("PTPRC", "CD3D", "CD3E", "CD2", "LYZ", "LYZ2", "CD74")
MITO = ("MT-CO1", "MT-CO2", "MT-CO3", "MT-ND1", "MT-ND4", "MT-CYB", "MT-CYTB")
PROGRAMS = (*UP, *DOWN, *TREATMENT, *TUMOR, *NORMAL)
ORDINARY = re.compile(r"(?!MIR|LINC|RN7|RNU|RNA|SNOR|SCARNA|OR\d|GM\d|TR[ABDG][VJ]|IG[HKL][VJ])[A-Z][A-Z0-9]*$")
RIBOSOMAL = re.compile(r"RP[LS]\d+[AXYL]?$")


def program_loading(upper: np.ndarray, n_genes: int, rng: np.random.Generator) -> np.ndarray:
    """Difference between sensitive and resistant cells in the log mean of each gene."""
    loading = np.isin(upper, UP).astype(float) - np.isin(upper, DOWN)
    # One gene in twenty beyond the named ones, so that the program grows with the number of genes.
    special = np.isin(upper, (*PROGRAMS, *MITO))
    others = rng.permutation(np.flatnonzero(~special))[: max(0, n_genes // 20 - int(np.abs(loading).sum()))]
    loading[others] = rng.choice([-1.0, 1.0], others.size)
    return loading * rng.uniform(0.6, 1.4, n_genes)


def base_expression(upper: np.ndarray, n_genes: int, rng: np.random.Generator) -> np.ndarray:
    """Log mean of each gene."""
    base = rng.normal(0.0, 1.2, n_genes)
    named = np.isin(upper, PROGRAMS)
    base[named] = rng.normal(0.3, 0.4, named.sum())  # the program must be seen at ordinary depth
    base[np.isin(upper, MITO)] += 1.5
    base[[RIBOSOMAL.match(symbol) is not None for symbol in upper]] += 1.5
    return base


@cache
def toy_genes(organism: str) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and Ensembl ids: the named genes first, then well-known ones, a ribosomal protein now and then."""
    table = gene_table(organism)
    row = {symbol.upper(): i for symbol, i in table.row_of_symbol.items() if i >= 0}
    first = [*UP, *DOWN, *TUMOR, *NORMAL, *MITO, *TREATMENT]
    named = [row[symbol] for symbol in first if symbol in row]
    others = list(np.random.default_rng(0).permutation([i for symbol, i in row.items() if symbol not in first]))
    # Genes with other names are the studied ones, nearly all of them coding for proteins.
    others.sort(key=lambda i: not (table.symbol[i] in table.synonyms and ORDINARY.match(str(table.symbol[i]).upper())))
    ribosomal = [i for i in others if RIBOSOMAL.match(str(table.symbol[i]).upper())]
    chosen = set(ribosomal)
    rest = [i for i in others if i not in chosen]
    for position, i in enumerate(ribosomal):
        rest.insert(12 * position, i)
    order = np.array(named + rest)
    return table.symbol[order].astype(str), table.ensembl_id[order].astype(str)
