"""The genes that describe a record: those with the highest expression, or those that exceed the other records."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from .._reference.align import log_cpm
from .._reference.pseudobulk import LINEAR, linear_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._data.counts import CountSource
    from .options import Genes

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,29}")
_DULL = re.compile(r"MT-|MT\d|M?RP[LS]\d|RPLP\d|RPSA|ERCC-|ENSG\d|MALAT1$|NEAT1$")
"""Genes that are high in every cell and say little about it, and identifiers without a symbol."""
_LEAST = float(np.log2(11.0))
"""Of specific genes: 10 counts per million."""
_ROWS = 128


def usable_genes(source: CountSource) -> tuple[np.ndarray, np.ndarray]:
    """Columns whose genes may be listed, in alphabetical order, and their symbols.

    Raises
    ------
    ValueError
        The matrix is scaled, or there are no symbols.
    """
    if source.kind not in LINEAR:
        msg = (
            f"{source.origin} holds scaled values, which cannot be added up over cells. Pass raw counts "
            "(adata.layers['counts'] or `layer=`) or log-normalized values."
        )
        raise ValueError(msg)
    names = np.asarray(source.names, dtype=str)
    if source.other is not None:
        names = np.where(np.char.startswith(names, "ENSG"), np.asarray(source.other, dtype=str), names)
    good = np.array([bool(_PLAIN.fullmatch(name)) and not _DULL.match(name.upper()) for name in names])
    columns = np.flatnonzero(good)
    if not len(columns):
        msg = "No gene has a symbol that could be listed (`data`). Run sc_drugresp.pp.harmonize_genes(adata) first."
        raise ValueError(msg)
    columns = columns[np.argsort(names[columns], kind="stable")]
    return columns, names[columns]


def gene_lists(source: CountSource, codes: np.ndarray, n: int, *, n_genes: int, genes: Genes) -> list[list[str]]:
    """Symbols that describe each unit, highest first.

    Parameters
    ----------
    source
        The cells.
    codes
        Unit of each cell, -1 for none.
    n
        Number of units.
    n_genes, genes
        How many genes, and which.
    """
    columns, symbols = usable_genes(source)
    total = np.zeros(len(columns))
    specific = genes == "specific" and n > 1
    if specific:
        for _, values in _values(source, codes, n, columns):
            total += values.sum(axis=0)
    out: list[list[str]] = [[] for _ in range(n)]
    for units, values in _values(source, codes, n, columns):
        scores = values
        if specific:
            scores = np.where(values >= _LEAST, values - (total - values) / (n - 1), 0.0)
        order = np.argsort(-scores, axis=1, kind="stable")
        for unit, row, at in zip(units, scores, order):
            listed = dict.fromkeys(symbols[at[: 2 * n_genes]][row[at[: 2 * n_genes]] > 0].tolist())
            out[int(unit)] = list(listed)[:n_genes]
    return out


def _values(
    source: CountSource, codes: np.ndarray, n: int, columns: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`log2(CPM + 1)` of some units at a time: `(units, values)`, the values of the chosen columns alone."""
    from scipy.sparse import csr_matrix

    if n == int((codes >= 0).sum()):  # one cell each: nothing to add up
        for start, block in linear_blocks(source):
            units = codes[start : start + block.shape[0]]
            for rows in np.array_split(np.flatnonzero(units >= 0), max(1, block.shape[0] // _ROWS)):
                part = block[rows]
                yield units[rows], log_cpm(part[:, columns].toarray(), np.asarray(part.sum(axis=1)).ravel())
        return
    counts, totals = np.zeros((n, len(columns))), np.zeros(n)
    for start, block in linear_blocks(source):
        units = codes[start : start + block.shape[0]]
        kept = np.flatnonzero(units >= 0)
        sums = csr_matrix((np.ones(len(kept)), (units[kept], kept)), shape=(n, block.shape[0])) @ block
        counts += sums[:, columns].toarray()
        totals += np.asarray(sums.sum(axis=1)).ravel()
    yield np.arange(n), log_cpm(counts, totals)
