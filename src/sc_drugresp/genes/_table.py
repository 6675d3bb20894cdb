"""The packaged gene tables: symbol, Ensembl id, chromosome and start of each named gene."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Literal

import numpy as np

from .._core.checks import check_choice

Organism = Literal["human", "mouse"]
_FOLDER = files(__package__) / "tables"


@dataclass(frozen=True, eq=False)
class GeneTable:
    """Named genes of one organism in one Ensembl release.

    Parameters
    ----------
    organism, prefix, release, assembly
        What the table describes; `prefix` begins every Ensembl id.
    ensembl_id, symbol, chromosome
        Shape `(n_genes,)`, object arrays of `str`, ordered by Ensembl id.
    start
        First base on the chromosome, shape `(n_genes,)`, int64, 1-based.
    synonyms
        Other names of a symbol.
    """

    organism: str
    prefix: str
    release: str
    assembly: str
    ensembl_id: np.ndarray
    symbol: np.ndarray
    chromosome: np.ndarray
    start: np.ndarray
    synonyms: dict[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.symbol)

    @cached_property
    def row_of_id(self) -> dict[str, int]:
        """Row of each Ensembl id."""
        return {name: row for row, name in enumerate(self.ensembl_id)}

    @cached_property
    def row_of_symbol(self) -> dict[str, int]:
        """Row of each symbol; -1 where a symbol names several genes.

        The two copies of a pseudo-autosomal gene are one gene: the one on X is taken.
        """
        rows: dict[str, int] = {}
        for row, symbol in enumerate(self.symbol):
            other = rows.setdefault(symbol, row)
            if other == row:
                continue
            pair = {str(self.chromosome[row]), str(self.chromosome[other])} if other >= 0 else set()
            if pair == {"X", "Y"} and self.start[row] == self.start[other]:
                rows[symbol] = row if self.chromosome[row] == "X" else other
            else:
                rows[symbol] = -1
        return rows


@lru_cache(maxsize=2)
def gene_table(organism: str = "human") -> GeneTable:
    """Read a packaged table.

    Parameters
    ----------
    organism
        `'human'` or `'mouse'`.

    Raises
    ------
    ValueError
        There is no table of this organism.

    Examples
    --------
    >>> from sc_drugresp.genes import gene_table
    >>> table = gene_table("human")
    >>> row = table.row_of_symbol["TP53"]
    >>> table.ensembl_id[row], table.chromosome[row]
    ('ENSG00000141510', '17')
    """
    check_choice("organism", organism, Organism)
    record = json.loads((_FOLDER / "tables.json").read_text(encoding="utf-8"))["organisms"][organism]
    number, symbol, chromosome, start = zip(*_rows(record["genes"]["file"]), strict=True)
    prefix = record["prefix"]
    return GeneTable(
        organism=organism,
        prefix=prefix,
        release=record["release"],
        assembly=record["assembly"],
        ensembl_id=np.array([f"{prefix}{int(n):011d}" for n in number], dtype=object),
        symbol=np.array(symbol, dtype=object),
        chromosome=np.array(chromosome, dtype=object),
        start=np.array(start, dtype=np.int64),
        synonyms={symbol: tuple(names) for symbol, *names in _rows(record["synonyms"]["file"])},
    )


def _rows(name: str) -> list[list[str]]:
    """Cells of a tab-separated table."""
    text = gzip.decompress((_FOLDER / name).read_bytes()).decode()
    return [line.split("\t") for line in text.splitlines()]
