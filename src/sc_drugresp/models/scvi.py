"""scVI :cite:p:`Lopez2018` as a baseline: a variational autoencoder fitted to the counts of your cells."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import torch
from scipy import sparse

from .._core.rng import short_seed
from ._fitted import FittedEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._core.kinds import FitCells, PositiveInt


class SCVI(FittedEmbedder):
    """Posterior mean of the latent variables of scvi-tools' `SCVI`, on counts of the highly variable genes.

    Parameters
    ----------
    n_latent, n_layers, max_epochs
        As in scvi-tools; `max_epochs=None` is its own rule.
    n_top_genes
        Highly variable genes to use (all, where there are fewer).
    max_fit_cells
        Most cells to learn from; of more cells an evenly spread subset is taken.
    """

    name = "scvi"
    expects = "counts"
    steady = False
    options = ("n_latent", "n_layers", "max_epochs", *FittedEmbedder.options)

    def __init__(
        self,
        *,
        n_latent: PositiveInt = 30,
        n_layers: PositiveInt = 2,
        max_epochs: PositiveInt | None = None,
        n_top_genes: PositiveInt = 2_000,
        max_fit_cells: FitCells = 100_000,
    ) -> None:
        super().__init__(n_top_genes=n_top_genes, max_fit_cells=max_fit_cells)
        self.n_latent, self.n_layers, self.max_epochs = n_latent, n_layers, max_epochs
        self._model: Any = None

    @property
    def dim(self) -> int:
        """Number of latent variables."""
        return self.n_latent

    def _build(self, counts: sparse.csr_matrix) -> Any:
        from scvi.model import SCVI as VAE

        cells = ad.AnnData(counts)
        VAE.setup_anndata(cells)
        return VAE(cells, n_latent=self.n_latent, n_layers=self.n_layers, gene_likelihood="nb")

    def _learn(self, matrix: sparse.csr_matrix, totals: np.ndarray, rng: int) -> None:
        with _own_random_state(rng):
            self._model = self._build(matrix)
            self._model.train(
                max_epochs=self.max_epochs,
                accelerator="auto",
                enable_progress_bar=False,
                logger=False,
                enable_model_summary=False,
                enable_checkpointing=False,
            )

    def _project(self, counts: sparse.csr_matrix, totals: np.ndarray) -> np.ndarray:
        with _own_random_state(0):
            latent = self._model.get_latent_representation(ad.AnnData(counts))
        return np.asarray(latent, dtype=np.float32)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: tensor.cpu().numpy() for name, tensor in self._model.module.state_dict().items()}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        with _own_random_state(0):
            self._model = self._build(sparse.csr_matrix(np.ones((2, len(self.genes)), dtype=np.float32)))
        self._model.module.load_state_dict({name: torch.as_tensor(array) for name, array in arrays.items()})
        self._model.module.eval()
        self._model.is_trained_ = True


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed the global generators, from which scvi-tools draws, and restore their state afterwards."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        random.seed(seed)
        np.random.set_state(np.random.RandomState(short_seed(seed)).get_state())  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
