"""What learns from the cells that it embeds: the base class, and fits to many selections of the same cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from .._core.log import logger
from .._data import CountSource, read_counts
from .._data.obs import check_mask
from ._fold_fits import Refits
from ._profiles import align_genes, matrix_of, normalize, read_profiles, spread
from ._refits import MAX_SIDE, GeneSums, SharedSums, variable_genes

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy import sparse

    from .._core.kinds import FitCells, PositiveInt
    from .._data import CountBlock
    from .._data.counts import AlignedCounts

_SHARED: WeakKeyDictionary[CountSource, dict[tuple[int, int], SharedSums]] = WeakKeyDictionary()
"""Sums over the cells of a reader by number of genes and of cells, for as long as the reader lives."""


class FittedEmbedder:
    """Base class of PCA, HVG and scVI: choose genes and learn from some cells, then embed any cells.

    Parameters
    ----------
    n_top_genes
        Highly variable genes to use (all, where there are fewer).
    max_fit_cells
        Most cells to learn from; beyond it a fixed, evenly spread subset is taken, so that memory stays bounded. Folds of a
        cross-validation learn from those of a subset that is a quarter larger that are not left out.

    Attributes
    ----------
    options
        Names of the arguments of the constructor, which are attributes as well.
    shares_sums
        Whether many fits can be made from sums over all cells, see :class:`Refits`.
    linear
        Whether cells are embedded by a product with their profiles, so that many fits can embed them in one pass (`axes_in`).
    steady
        Whether the time of a fit grows evenly with the number of cells, so that small fits tell that of a large one.
    """

    name: ClassVar[str]
    needs_fit: ClassVar[bool] = True
    aligns_genes: ClassVar[bool] = False
    tunable: ClassVar[bool] = False
    set_based: ClassVar[bool] = False
    blockwise: ClassVar[bool] = True
    expects: ClassVar[str] = "any"
    options: ClassVar[tuple[str, ...]] = ("n_top_genes", "max_fit_cells")
    shares_sums: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    steady: ClassVar[bool] = True

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
        self.require(len(rows), source)
        if len(rows) > self.max_fit_cells:
            rows = spread(rows, self.max_fit_cells)
            logger.info("%s learns from %d evenly spread cells", self.name, len(rows))
        self.kind, self.fitted_on = source.kind, len(rows)
        genes, matrix, totals = read_profiles(source, rows)
        sums = GeneSums.of(normalize(matrix, source.kind, totals), source.kind)
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
        aligned = self.align(source)
        out = np.empty((source.n_obs if rows is None else len(rows), self.dim), dtype=np.float32)
        for block in aligned.blocks(rows=rows):
            out[block.start : block.start + len(block)] = self.embed_block(block)
        return out

    def align(self, source: CountSource) -> AlignedCounts:
        """The cells of `source`, seen through the genes that were learned from.

        Raises
        ------
        ValueError
            The model was fitted to another kind of values, or shares no genes with these data.
        """
        if source.kind != self.kind:
            msg = f"{self.name!r} was fitted to {self.kind} values, but {source.origin} holds {source.kind} values."
            raise ValueError(msg)
        return align_genes(source, self.genes, exact=bool(np.isin(self.genes, source.names).all()))

    def embed_block(self, block: CountBlock) -> np.ndarray:
        """Embed some cells, read as :meth:`align` shows them, shape `(n_cells, dim)`, float32."""
        return np.asarray(self._project(matrix_of(block, len(self.genes)), block.totals), dtype=np.float32)

    def refits(self, source: CountSource, *, rng: int = 0) -> Refits:
        """Prepare many fits to different cells of `source`, as cross-validation needs them."""
        return Refits(self, source, rng)

    def choice(self, source: CountSource) -> np.ndarray:
        """Rows that folds learn from, evenly spread: a quarter more than `max_fit_cells`, since every fold leaves some out."""
        return spread(np.arange(source.n_obs), self.max_fit_cells * 5 // 4)

    def shared(self, source: CountSource) -> SharedSums | None:
        """Sums over the cells of :meth:`choice`; `None` where they are too large."""
        if not self.shares_sums or min(self.n_top_genes, source.n_vars) > MAX_SIDE:
            return None
        known = _SHARED.setdefault(source, {})
        key = (self.n_top_genes, self.max_fit_cells)
        if key not in known:
            same = [sums.profiles for (_, cells), sums in known.items() if cells == self.max_fit_cells]
            if not same:
                _, matrix, totals = read_profiles(source, self.choice(source))
                same = [normalize(matrix, source.kind, totals)]
            known[key] = SharedSums(same[0], source.kind, self.n_top_genes)
        return known[key]

    def require(self, n_cells: int, source: CountSource) -> None:
        """Refuse data from which nothing can be learned.

        Raises
        ------
        ValueError
            There are fewer than three cells or two genes.
        """
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
        return normalize(counts, self.kind, totals).toarray()

    def learn_shared(self, shared: SharedSums, train: np.ndarray, names: np.ndarray) -> np.ndarray:
        """Learn from the rows `train` of shared sums whose columns have these names; the columns of the chosen genes."""
        chosen = shared.choose(train)
        self.genes, self.kind, self.fitted_on = names[chosen], shared.kind, len(train)
        return chosen

    def embed_shared(self, shared: SharedSums, chosen: np.ndarray) -> np.ndarray:
        """Embed all rows of the sums that were learned from."""
        return shared.profiles[:, chosen].toarray()

    def _arrays(self) -> dict[str, np.ndarray]:
        """What was learned, beyond the choice of genes."""
        return {}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what `_arrays` gave."""
