"""The interface of all embedders: code asks what an embedder can do, not whether it is a network or a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData

    from .._data import CountSource, GeneVocab


class Embedder(Protocol):
    """Anything that :func:`~sc_drugresp.models.load` returns.

    Attributes
    ----------
    name
        `'model'` or `'model.checkpoint'`.
    checkpoint
        Name, file, hash and source of the weights; empty for embedders without weights.
    expects
        What the matrix must contain: raw `'counts'`, or `'any'` values.
    aligns_genes, vocab
        Whether it has a fixed vocabulary to which the genes of the data are matched; only then does `vocab` exist.
    needs_fit
        Whether it learns from the data (`fit`, `transform`) and has to be fitted again in every fold.
    tunable
        Whether it is a torch module that can be trained further (`lora_targets`, `tokenize`, `collate`).
    set_based
        Whether the cells of one call see each other.
    blockwise
        Whether a block of cells can be embedded by itself, so that a run can be stopped between two of them.
    """

    name: str
    checkpoint: dict[str, Any]
    expects: Literal["counts", "any"]
    aligns_genes: bool
    vocab: GeneVocab
    needs_fit: bool
    tunable: bool
    set_based: bool

    @property
    def blockwise(self) -> bool:
        """Whether a block of cells can be embedded by itself."""

    @property
    def dim(self) -> int:
        """Width of the embedding."""

    def read(self, data: AnnData, layer: str | None) -> CountSource:
        """Find the matrix to read."""

    def embed(
        self, data: AnnData | CountSource, *, layer: str | None = None, rng: int = 0, **options: Any
    ) -> np.ndarray:
        """Embed all cells, in their order, shape `(n_cells, dim)`, float32."""

    def report(self) -> dict[str, Any]:
        """What else `.uns` notes once the cells are embedded."""
