"""Embeddings that are fitted to the data: PCA, variable genes, scVI. Evaluation refits them in every fold."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from scipy import sparse

from .._core.log import logger
from .._data import CountSource, GeneVocab, read_counts
from .._data.obs import check_mask
from ._refits import MAX_SIDE, GeneSums, SharedSums, principal_axes, variable_genes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    from .._core.kinds import AtLeastTwo, FitCells, PositiveInt

TARGET_SUM = 1e4
_SHARED: WeakKeyDictionary[CountSource, dict[int, SharedSums]] = WeakKeyDictionary()
"""Sums over the cells of a reader by number of genes, for as long as the reader lives."""


class FittedEmbedder:
    """Base class of PCA, HVG and scVI: choose genes and learn from some cells, then embed any cells.

    Parameters
    ----------
    n_top_genes
        Highly variable genes to use (all, where there are fewer).
    max_fit_cells
        Most cells to learn from; beyond it a fixed, evenly spread subset is taken, so that memory stays bounded.

    Attributes
    ----------
    options
        Names of the arguments of the constructor, which are attributes as well.
    shares_sums
        Whether many fits can be made from sums over all cells (`_refit`).
    """

    name: ClassVar[str]
    needs_fit: ClassVar[bool] = True
    aligns_genes: ClassVar[bool] = False
    tunable: ClassVar[bool] = False
    set_based: ClassVar[bool] = False
    expects: ClassVar[str] = "any"
    options: ClassVar[tuple[str, ...]] = ("n_top_genes", "max_fit_cells")
    shares_sums: ClassVar[bool] = False

    def __init__(self, *, n_top_genes: PositiveInt = 2_000, max_fit_cells: FitCells = 20_000) -> None:
        self.n_top_genes, self.max_fit_cells = n_top_genes, max_fit_cells
        self.genes = np.empty(0, dtype=str)
        self.kind = ""
        self.fitted_on = 0

    @property
    def dim(self) -> int:
        """Width of the embedding."""
        return self.n_top_genes

    def report(self) -> dict[str, Any]:
        """What `.uns` notes beside genes and cells: nothing."""
        return {}

    def embed(
        self,
        data: AnnData | CountSource,
        *,
        layer: str | None = None,
        rng: int = 0,
        mask_obs: np.ndarray | None = None,
        **_: Any,
    ) -> np.ndarray:
        """Fit on the cells of `mask_obs` (all by default) and embed every cell.

        Returns
        -------
        Array of shape `(n_cells, dim)`, float32.
        """
        source = data if isinstance(data, CountSource) else self.read(data, layer)
        return self.fit(source, rng=rng, mask_obs=mask_obs).transform(source)

    def read(self, data: AnnData, layer: str | None = None) -> CountSource:
        """Find the matrix to read: raw counts where there are any, else the values as they are."""
        return read_counts(data, layer=layer, expect=self.expects)  # type: ignore[arg-type]

    def fit(self, source: CountSource, *, rng: int = 0, mask_obs: np.ndarray | None = None) -> FittedEmbedder:
        """Choose genes and learn from the cells of `mask_obs`.

        Raises
        ------
        ValueError
            There are fewer than three cells to learn from, or `mask_obs` is not one true or false for each cell.
        """
        rows = np.arange(source.n_obs) if mask_obs is None else np.flatnonzero(check_mask(mask_obs, source.n_obs))
        self._require(len(rows), source)
        if len(rows) > self.max_fit_cells:
            rows = rows[np.linspace(0, len(rows) - 1, self.max_fit_cells).astype(np.int64)]
            logger.info("%s learns from %d evenly spread cells", self.name, len(rows))
        self.kind, self.fitted_on = source.kind, len(rows)
        genes, matrix, totals = _read(source, rows)
        sums = GeneSums.of(_normalize(matrix, source.kind, totals), source.kind)
        chosen = variable_genes(sums, source.kind, self.n_top_genes)
        self.genes = genes[chosen].astype(str)
        self._learn(matrix[:, chosen], totals, rng)
        return self

    def transform(self, source: CountSource, rows: np.ndarray | None = None) -> np.ndarray:
        """Embed every cell of `source`, or `rows` of it; genes are matched to those that were learned from.

        Raises
        ------
        ValueError
            The model was fitted to another kind of values, or shares no genes with these data.
        """
        if source.kind != self.kind:
            msg = f"{self.name!r} was fitted to {self.kind} values, but {source.origin} holds {source.kind} values."
            raise ValueError(msg)
        known = np.isin(self.genes, source.names).all()
        out = np.empty((source.n_obs if rows is None else len(rows), self.dim), dtype=np.float32)
        for start, counts, totals in _matrices(source, self.genes, exact=bool(known), rows=rows):
            out[start : start + len(totals)] = self._project(counts, totals)
        return out

    def refits(self, source: CountSource, *, rng: int = 0) -> Callable[[np.ndarray], np.ndarray]:
        """Prepare many fits to different cells of `source`, as cross-validation needs them.

        Returns
        -------
        `embed(train_rows)`, which embeds every row of `source` as a fresh copy fitted to these rows would: an array of
        shape `(source.n_obs, dim)`, float32.
        """
        shared = self._shared(source) if self.shares_sums else None

        def embed(train: np.ndarray) -> np.ndarray:
            if shared is not None:
                self._require(len(train), source)
                return self._refit(shared, train)
            mask = np.zeros(source.n_obs, dtype=bool)
            mask[train] = True
            return copy(self).fit(source, rng=rng, mask_obs=mask).transform(source)

        return embed

    def _shared(self, source: CountSource) -> SharedSums | None:
        """Sums over all cells of `source`, where they fit into memory."""
        if source.n_obs > self.max_fit_cells or min(self.n_top_genes, source.n_vars) > MAX_SIDE:
            return None
        known = _SHARED.setdefault(source, {})
        if self.n_top_genes not in known:
            if known:
                profiles = next(iter(known.values())).profiles
            else:
                _, matrix, totals = _read(source, None)
                profiles = _normalize(matrix, source.kind, totals)
            known[self.n_top_genes] = SharedSums(profiles, source.kind, self.n_top_genes)
        return known[self.n_top_genes]

    def _require(self, n_cells: int, source: CountSource) -> None:
        n_genes = len(pd.unique(np.asarray(source.names)))
        if n_cells < 3 or n_genes < 2:
            msg = (
                f"{self.name!r} needs at least three cells and two genes to learn from, found {n_cells} cells and "
                f"{n_genes} genes of different names."
            )
            raise ValueError(msg)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `from_state` needs: JSON values and arrays."""
        fitted = {"genes": self.genes.tolist(), "kind": self.kind, "fitted_on": self.fitted_on}
        return {**self.settings(), **fitted}, self._arrays()

    @classmethod
    def from_state(cls, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> FittedEmbedder:
        """Rebuild a fitted embedder."""
        model = cls(**{name: meta[name] for name in cls.options})
        model.genes = np.asarray(meta["genes"], dtype=str)
        model.kind, model.fitted_on = meta["kind"], int(meta["fitted_on"])
        model._restore(arrays)
        return model

    def settings(self) -> dict[str, Any]:
        """Options by name, as they were given."""
        return {name: getattr(self, name) for name in self.options}

    def _learn(self, matrix: sparse.csr_matrix, totals: np.ndarray, rng: int) -> None:
        """Fit to rows as they were read, whose columns are `self.genes`; `totals` are their counts over all genes."""

    def _project(self, counts: sparse.csr_matrix, totals: np.ndarray) -> np.ndarray:
        """Embed rows whose columns are `self.genes`; `totals` are their counts over all genes."""
        return _normalize(counts, self.kind, totals).toarray()

    def _refit(self, shared: SharedSums, train: np.ndarray) -> np.ndarray:
        """Fit to the rows `train` and embed all rows, from sums that all fits share."""
        return shared.profiles[:, shared.choose(train)].toarray()

    def _arrays(self) -> dict[str, np.ndarray]:
        """What was learned, beyond the choice of genes."""
        return {}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what `_arrays` gave."""


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
        self.mean, self.components = principal_axes(_normalize(matrix, self.kind, totals), n_comps)

    def _refit(self, shared: SharedSums, train: np.ndarray) -> np.ndarray:
        return shared.principal_components(train, self.n_comps).astype(np.float32)

    def _project(self, counts: sparse.csr_matrix, totals: np.ndarray) -> np.ndarray:
        return _normalize(counts, self.kind, totals) @ self.components - self.mean @ self.components

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "components": self.components}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.mean, self.components = arrays["mean"], arrays["components"]


def _read(source: CountSource, rows: np.ndarray | None) -> tuple[np.ndarray, sparse.csr_matrix, np.ndarray]:
    """Gene names, values of `rows`, and totals; columns with the same name are added up."""
    genes = pd.unique(np.asarray(source.names))
    blocks = list(_matrices(source, genes, exact=True, rows=rows))
    matrix = sparse.vstack([block for _, block, _ in blocks], format="csr")
    return genes, matrix, np.concatenate([part for _, _, part in blocks])


def _matrices(
    source: CountSource, genes: np.ndarray, *, exact: bool, rows: np.ndarray | None = None
) -> Iterator[tuple[int, sparse.csr_matrix, np.ndarray]]:
    """Yield `(start, matrix with the columns genes, totals over all genes)` for each block of rows."""
    aligned = source.align(GeneVocab(genes.tolist()), "exact" if exact else "auto")
    if not (aligned.alignment.ids >= 0).any():
        msg = f"None of the {len(genes)} genes of this model is in the data; check gene names with pp.check(adata)."
        raise ValueError(msg)
    for block in aligned.blocks(rows=rows):
        parts = (block.counts, block.gene_ids, block.indptr)
        yield block.start, sparse.csr_matrix(parts, shape=(len(block), len(genes)), dtype=np.float32), block.totals


def _normalize(matrix: sparse.csr_matrix, kind: str, totals: np.ndarray) -> sparse.csr_matrix:
    """log1p of counts per 10,000; other kinds of values are left as they are."""
    if kind != "counts":
        return matrix
    scale = TARGET_SUM / np.where(totals > 0, totals, 1.0)
    out = matrix.astype(np.float32)
    out.data = np.log1p(out.data * np.repeat(scale, np.diff(out.indptr)).astype(np.float32))
    return out
