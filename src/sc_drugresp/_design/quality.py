"""Quality of cells: what was measured of them apart from single genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .._data import CountSource

QC_NAMES = ("counts per cell", "detected genes", "mitochondrial share")
_MITO = ("MT-", "MT:")


def mitochondrial(names: np.ndarray) -> np.ndarray:
    """Mask of mitochondrial genes, by their names."""
    upper = np.char.upper(names.astype(str))
    return np.char.startswith(upper, _MITO[0]) | np.char.startswith(upper, _MITO[1])


def qc_features(source: CountSource) -> np.ndarray:
    """log1p library size, log1p genes detected, mitochondrial share (where genes are mitochondrial); `(n_obs, 2 or 3)`.

    Of values that are not counts, the sum takes the place of the library size, as it is.
    """
    mito = mitochondrial(source.names)
    out = np.zeros((source.n_obs, 3))
    for start, block in source.blocks():
        rows = slice(start, start + block.shape[0])
        out[rows, 0] = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        out[rows, 1] = np.diff(block.indptr)
        out[rows, 2] = np.asarray(block[:, mito].sum(axis=1, dtype=np.float64)).ravel()
    total = out[:, 0].copy()
    if source.kind == "counts":
        out[:, 0] = np.log1p(total)
    out[:, 1] = np.log1p(out[:, 1])
    out[:, 2] = out[:, 2] / np.where(total > 0, total, 1)
    return out if mito.any() and source.kind != "scaled" else out[:, :2]


def measured(qc: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of `qc_features` by name."""
    return dict(zip(QC_NAMES, qc.T))
