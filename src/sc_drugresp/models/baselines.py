"""Embeddings that are fitted to the data: variable genes and PCA. Evaluation refits them in every fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._fitted import FittedEmbedder
from ._profiles import normalize
from ._refits import principal_axes

if TYPE_CHECKING:
    from scipy import sparse

    from .._core.kinds import AtLeastTwo, FitCells, PositiveInt
    from ._refits import SharedSums


class HVG(FittedEmbedder):
    """Log-normalized expression of the highly variable genes."""

    name = "hvg"
    shares_sums = True

    @property
    def dim(self) -> int:
        """Number of genes."""
        return len(self.genes) or self.n_top_genes


class PCA(FittedEmbedder):
    """Principal components of log1p-CP10k expression of the highly variable genes, exact.

    Parameters
    ----------
    n_comps
        Components (fewer, where there are fewer cells or genes).
    n_top_genes
        Highly variable genes to use (all, where there are fewer).
    max_fit_cells
        Most cells to learn from; of more cells an evenly spread subset is taken.
    """

    name = "pca"
    options = ("n_comps", *FittedEmbedder.options)
    shares_sums = True
    linear = True

    def __init__(
        self, *, n_comps: PositiveInt = 50, n_top_genes: AtLeastTwo = 2_000, max_fit_cells: FitCells = 20_000
    ) -> None:
        super().__init__(n_top_genes=n_top_genes, max_fit_cells=max_fit_cells)
        self.n_comps = n_comps
        self.mean = np.empty(0)
        self.components = np.empty((0, 0))

    @property
    def dim(self) -> int:
        """Number of components."""
        return self.components.shape[1] or self.n_comps

    def _learn(self, matrix: sparse.csr_matrix, totals: np.ndarray, rng: int) -> None:
        n_comps = min(self.n_comps, matrix.shape[0] - 1, matrix.shape[1] - 1)
        self.mean, axes = principal_axes(normalize(matrix, self.kind, totals), n_comps)
        # As files hold them: the order in memory may move the last digit of a product.
        self.components = np.ascontiguousarray(axes)

    def learn_shared(self, shared: SharedSums, train: np.ndarray, names: np.ndarray) -> np.ndarray:
        """As in the base class, with the principal axes."""
        chosen, self.mean, self.components = shared.axes(train, self.n_comps)
        self.genes, self.kind, self.fitted_on = names[chosen], shared.kind, len(train)
        return chosen

    def embed_shared(self, shared: SharedSums, chosen: np.ndarray) -> np.ndarray:
        """Embed all rows of the sums that were learned from."""
        return shared.coordinates(chosen, self.mean, self.components).astype(np.float32)

    def axes_in(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As in the base class."""
        axes = np.zeros((len(genes), self.dim))
        axes[pd.Index(genes).get_indexer(self.genes)] = self.components
        return axes, self.mean @ self.components

    def _project(self, counts: sparse.csr_matrix, totals: np.ndarray) -> np.ndarray:
        return normalize(counts, self.kind, totals) @ self.components - self.mean @ self.components

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "components": self.components}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.mean, self.components = arrays["mean"], arrays["components"]
