"""What `tl.embed` was asked for, once it is known to be possible: the model, the cells and their genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from .._core.log import warn
from .._data.counts import AlignedCounts, read_counts
from .._data.vocab import GeneAlignment
from ..models._load import stand_in
from .coverage import check_coverage
from .lazy_check import check_lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anndata import AnnData

    from .._core.kinds import Engine, Precision
    from .._data.counts import CountSource
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
    engine, precision
        What computes it, and how exactly.
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
    engine: Engine = "torch"
    precision: Precision = "float32"

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
        lazy: bool = False,
        engine: Engine = "torch",
        precision: Precision = "float32",
    ) -> Self:
        """Find the matrix, load the model, and compare their genes.

        Raises
        ------
        ValueError
            No raw counts where the model needs them, or less than 1 % of the counts in genes that it knows.
        """
        source = _early_source(adata, layer, spec.expects, lenient=bool(options))
        if lazy and source is not None:
            check_lazy(spec, source)
        embedder = load()
        if source is None or options:  # an option may say what else the model reads
            source = embedder.read(adata, layer)
            if lazy:
                check_lazy(spec, source)
        aligned = None
        if embedder.aligns_genes:
            if spec.set_based and groups is None and adata.n_obs > 1:
                warn(f"{spec.title} embeds cells as a set; without `group_key` all {adata.n_obs} cells form one set.")
            check_coverage(source, embedder, genes)
            aligned = source.align(embedder.vocab, genes)
        return cls(model, spec, embedder, source, aligned, genes, seed, groups, dict(options), engine, precision)

    @classmethod
    def supposed(
        cls,
        adata: AnnData,
        model: str,
        spec: ModelSpec,
        *,
        layer: str | None,
        genes: GeneMode,
        seed: int,
        groups: np.ndarray | None,
        options: Mapping[str, Any],
        engine: Engine = "torch",
        precision: Precision = "float32",
    ) -> Self:
        """The same without the files of the model: random weights of the published size, and all genes known.

        Raises
        ------
        ValueError
            No raw counts where the model needs them.
        """
        source = _early_source(adata, layer, spec.expects, lenient=bool(options))
        embedder = stand_in(model, {name: value for name, value in options.items() if name != "verify"})
        source = source if source is not None else embedder.read(adata, layer)
        ids = np.full(source.n_vars, -1, dtype=np.int32)
        known = np.unique(np.linspace(0, source.n_vars - 1, min(source.n_vars, len(embedder.vocab))).astype(np.int64))
        ids[known] = embedder.vocab.ids[: len(known)]
        aligned = AlignedCounts(source, GeneAlignment(ids, genes, "sum", n_vocabulary=len(embedder.vocab)))
        return cls(model, spec, embedder, source, aligned, genes, seed, groups, dict(options), engine, precision)

    def run(self, batch_tokens: int | Literal["auto"] = "auto") -> np.ndarray:
        """Embed all cells, shape `(n_cells, dim)`, float32; `batch_tokens` limits the padded tokens of a batch."""
        if self.aligned is None:
            return self.embedder.embed(self.source, rng=self.seed)
        how = {"engine": self.engine, "precision": self.precision}
        return self.embedder.embed(
            self.aligned, rng=self.seed, groups=self.groups, batch_tokens=batch_tokens, genes=self.genes, **how
        )

    def note(self, *, group_key: str | None, not_embedded: int | None) -> dict[str, Any]:
        """What `.uns` says of the embedding, apart from its slot; without what only the values tell if `not_embedded` is `None`."""
        report: dict[str, Any] = {"mode": "all", "n_genes": int(self.source.n_vars)}
        if self.aligned is not None:
            report = self.aligned.alignment.summary()
            if not_embedded is not None:
                report["counts_covered"] = float(self.aligned.coverage)
        params = {
            "model": self.model,
            "genes": self.genes,
            "rng": self.seed,
            "layer": self.source.origin,
            "group_key": group_key or "",
            "engine": self.engine,
            "precision": self.precision,
            **{name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()},
        }
        return {
            "params": {name: value for name, value in params.items() if value is not None},
            "model": self.spec.name,
            "checkpoint": dict(getattr(self.embedder, "checkpoint", {})),
            **({} if not_embedded is None else {"device": str(getattr(self.embedder, "device", "cpu"))}),
            "genes": report,
            "cells": {"n": int(self.source.n_obs)} | ({} if not_embedded is None else {"not_embedded": not_embedded}),
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
