"""What `tl.embed` was asked for, once it is known to be possible: the model, the cells and their genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from .._core.log import warn
from .._data.counts import read_counts
from .coverage import check_coverage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from anndata import AnnData

    from .._data.counts import AlignedCounts, CountSource
    from .._data.vocab import GeneMode
    from ..models._embedder import Embedder
    from ..models._spec import ModelSpec


@dataclass(frozen=True)
class Job:
    """Cells to embed and what embeds them; made by :meth:`of`, which refuses what cannot work.

    Parameters
    ----------
    model
        Name as the table spells it.
    spec
        Its row of the table.
    embedder
        The loaded model.
    source
        The matrix.
    aligned
        The matrix seen through the genes of the model; `None` for embedders without a vocabulary.
    genes
        How genes are matched.
    seed
        Seed of the random streams of cells, or of a fit.
    groups
        Code of the set of each cell, shape `(n_cells,)`.
    options
        Options of the model.
    """

    model: str
    spec: ModelSpec
    embedder: Embedder
    source: CountSource
    aligned: AlignedCounts | None
    genes: GeneMode
    seed: int
    groups: np.ndarray | None
    options: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        adata: AnnData,
        model: str,
        spec: ModelSpec,
        load: Callable[[], Embedder],
        *,
        layer: str | None,
        genes: GeneMode,
        seed: int,
        groups: np.ndarray | None,
        options: Mapping[str, Any],
    ) -> Self:
        """Find the matrix, load the model, and compare their genes.

        Raises
        ------
        ValueError
            No raw counts where the model needs them, or less than 1 % of the counts in genes that it knows.
        """
        source = _early_source(adata, layer, spec.expects, lenient=bool(options))
        embedder = load()
        if source is None or options:  # an option may say what else the model reads
            source = embedder.read(adata, layer)
        aligned = None
        if embedder.aligns_genes:
            if spec.set_based and groups is None and adata.n_obs > 1:
                warn(f"{spec.title} embeds cells as a set; without `group_key` all {adata.n_obs} cells form one set.")
            check_coverage(source, embedder, genes)
            aligned = source.align(embedder.vocab, genes)
        return cls(model, spec, embedder, source, aligned, genes, seed, groups, dict(options))

    def run(self, batch_tokens: int | None = None) -> np.ndarray:
        """Embed all cells, shape `(n_cells, dim)`, float32; `batch_tokens` limits the padded tokens of a batch."""
        if self.aligned is None:
            return self.embedder.embed(self.source, rng=self.seed)
        return self.embedder.embed(
            self.aligned, rng=self.seed, groups=self.groups, batch_tokens=batch_tokens, genes=self.genes
        )

    def note(self, *, group_key: str | None, not_embedded: int) -> dict[str, Any]:
        """What `.uns` says of the embedding, apart from its slot; complete once the cells have been read."""
        report: dict[str, Any] = {"mode": "all", "n_genes": int(self.source.n_vars)}
        if self.aligned is not None:
            report = {**self.aligned.alignment.summary(), "counts_covered": float(self.aligned.coverage)}
        params = {
            "model": self.model,
            "genes": self.genes,
            "rng": self.seed,
            "layer": self.source.origin,
            "group_key": group_key or "",
            **{name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()},
        }
        return {
            "params": {name: value for name, value in params.items() if value is not None},
            "model": self.spec.name,
            "checkpoint": dict(getattr(self.embedder, "checkpoint", {})),
            "genes": report,
            "cells": {"n": int(self.source.n_obs), "not_embedded": not_embedded},
            "fitted_on_these_cells": bool(self.embedder.needs_fit),
            "set_based": bool(self.spec.set_based),
            "kind": "embedding",
            **self.embedder.report(),
        }


def _early_source(
    adata: AnnData, layer: str | None, expects: Literal["counts", "any"], *, lenient: bool
) -> CountSource | None:
    """Refuse a wrong matrix before weights are looked for; with options, the model itself may accept it."""
    try:
        return read_counts(adata, layer=layer, expect=expects)
    except ValueError:
        if not lenient:
            raise
        return None
