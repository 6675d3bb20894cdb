"""Quality of cells: what was measured of them apart from single genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from .._data import CountSource

QC_NAMES = ("counts per cell", "detected genes", "mitochondrial share")
_MITO = ("MT-", "MT:")


def mitochondrial(names: np.ndarray) -> np.ndarray:
    """Mask of mitochondrial genes, by their names."""
    upper = np.char.upper(names.astype(str))
    return np.char.startswith(upper, _MITO[0]) | np.char.startswith(upper, _MITO[1])


class Quality:
    """What :func:`qc_features` gives, taken in block by block."""

    def __init__(self, source: CountSource) -> None:
        self.kind, self.mito = source.kind, mitochondrial(source.names)
        self._out = np.zeros((source.n_obs, 3))

    def add(self, start: int, block: csr_matrix) -> None:
        """Take in some rows."""
        out = self._out[start : start + block.shape[0]]
        out[:, 0] = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        out[:, 1] = np.diff(block.indptr)
        if self.mito.any():
            out[:, 2] = np.asarray(block[:, self.mito].sum(axis=1, dtype=np.float64)).ravel()

    def values(self) -> np.ndarray:
        """Columns of all cells."""
        out = self._out
        total = out[:, 0].copy()
        if self.kind == "counts":
            out[:, 0] = np.log1p(total)
        out[:, 1] = np.log1p(out[:, 1])
        out[:, 2] = out[:, 2] / np.where(total > 0, total, 1)
        return out if self.mito.any() and self.kind != "scaled" else out[:, :2]


def qc_features(source: CountSource) -> np.ndarray:
    """log1p library size, log1p genes detected, mitochondrial share (where genes are mitochondrial); `(n_obs, 2 or 3)`.

    Of values that are not counts, the sum takes the place of the library size, as it is.
    """
    found = Quality(source)
    for start, block in source.blocks():
        found.add(start, block)
    return found.values()


def measured(qc: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of `qc_features` by name."""
    return dict(zip(QC_NAMES, qc.T))
