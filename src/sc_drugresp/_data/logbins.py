"""Values per 10,000 counts on a binary logarithm, cut into whole numbers: the tokens of scBERT and CellLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .tokens import Tokens

if TYPE_CHECKING:
    from .counts import CountBlock


def log2_cp10k(block: CountBlock) -> np.ndarray:
    """`log2(1 + x)` of counts per 10,000, for each stored count of a block, float32.

    The total is that of the genes the model knows. Each step is rounded as scanpy's `normalize_total` and
    `log1p(base=2)` round it, so that values that fall on the border of a bin go to the same side.
    """
    cell = np.repeat(np.arange(len(block)), np.diff(block.indptr))
    totals = np.bincount(cell, weights=block.counts, minlength=len(block)).astype(np.float32)
    scale = totals / np.float32(1e4)
    scale[totals == 0] = 1
    values = block.counts / scale[cell]
    np.log1p(values, out=values)
    return np.divide(values, np.log(2), out=values)  # divided in double precision, then rounded


def bin_tokens(block: CountBlock, values: np.ndarray, keep: np.ndarray, *, top: int) -> Tokens:
    """Tokens of the entries in `keep`, by gene id: `ids` are genes, `values` the whole part of min(value, `top`)."""
    classes = np.minimum(values, np.float32(top)).astype(np.int8)
    return sort_genes(Tokens(block.indptr, block.gene_ids, classes).only(keep))


def sort_genes(tokens: Tokens) -> Tokens:
    """The same tokens with increasing ids in each cell; no cell may hold a gene twice."""
    increasing = np.diff(tokens.ids) > 0
    borders = tokens.indptr[1:-1]
    increasing[borders[(borders > 0) & (borders < len(tokens.ids))] - 1] = True
    if increasing.all():
        return tokens
    from scipy.sparse import csr_matrix

    width = int(tokens.ids.max()) + 1
    parts: Any = (tokens.values, tokens.ids, tokens.indptr)
    rows: Any = csr_matrix(parts, shape=(len(tokens), width), copy=True)
    rows.sort_indices()
    return Tokens(tokens.indptr, rows.indices, rows.data, tokens.cells)


def first_tokens(tokens: Tokens, limit: int) -> Tokens:
    """At most the first `limit` tokens of each cell."""
    return tokens.only(np.arange(tokens.indptr[-1]) - np.repeat(tokens.indptr[:-1], tokens.lengths) < limit)


def check_range(what: str, values: np.ndarray, stop: int) -> None:
    """Raise ValueError unless all `values` are below `stop` and not negative."""
    if len(values) and not (values.min() >= 0 and values.max() < stop):
        msg = f"Each {what} must lie in 0 ... {stop - 1}, found {values.min()} to {values.max()}. Are these tokens of another model?"
        raise ValueError(msg)
