"""Expression of cell lines as the models read it: standardized within the line, dead genes left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

DEAD = 0.06
"""Standard deviation over lines, in units of the spread of genes within a line, below which a gene says nothing."""


@dataclass(frozen=True, eq=False)
class LineExpression:
    """Standardized genes of lines, and how to standardize those of others."""

    Z: np.ndarray
    """Shape `(n_lines, n_genes)`, float64: mean 0 and spread 1 per gene."""
    genes: list[str]
    mean: np.ndarray
    """Mean of each gene over lines, after standardization within the line."""
    spread: np.ndarray
    n_dead: int


def within(values: np.ndarray) -> np.ndarray:
    """Rows with mean 0 and spread 1."""
    return (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)


def line_expression(frame: pd.DataFrame) -> LineExpression:
    """Standardize each line over its genes, then each gene over the lines.

    Genes whose spread over lines is below :data:`DEAD` are left out: on arrays they are probes that measure nothing.

    Raises
    ------
    ValueError
        Values are missing, a line is constant, or fewer than ten genes vary.
    """
    values = frame.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        msg = (
            f"`expression` holds {values[row, column]} for gene {frame.columns[column]!r} in line {frame.index[row]!r}."
        )
        raise ValueError(msg)
    if (values.std(axis=1) == 0).any():
        msg = f"`expression` of line {frame.index[int(np.argmin(values.std(axis=1)))]!r} is the same in all genes."
        raise ValueError(msg)
    scaled = within(values)
    alive = scaled.std(axis=0) >= DEAD
    if alive.sum() < 10:
        msg = f"`expression` has {int(alive.sum())} genes that vary between lines; at least 10 are needed."
        raise ValueError(msg)
    scaled = within(values[:, alive])
    mean, spread = scaled.mean(axis=0), scaled.std(axis=0)
    genes = [str(gene) for gene in frame.columns[alive]]
    return LineExpression((scaled - mean) / spread, genes, mean, spread, int((~alive).sum()))
