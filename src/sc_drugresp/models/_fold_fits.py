"""Fits of one embedder to many choices of the same cells, as a cross-validation needs them."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ._profiles import align_genes, matrix_of, normalize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._data import CountSource

MOST_FITS = 64
"""Fits to different cells that are kept."""


class Refits:
    """Fits of one embedder to different cells of one reader.

    Sums over the cells that may be learned from (all, or an evenly spread choice) are made once; a fit to most of them takes
    off what the others contribute. Where a fit asks for cells that are hardly among them, it reads its own.

    Parameters
    ----------
    embedder
        The embedder, which is not changed.
    source
        The cells.
    rng
        Seed.
    """

    def __init__(self, embedder: Any, source: CountSource, rng: int) -> None:
        self.embedder, self.source, self.rng = embedder, source, rng
        self._fits: dict[bytes, tuple[Any, np.ndarray | None]] = {}

    def fit(self, train: np.ndarray) -> Any:
        """A copy of the embedder that is fitted to the rows `train`."""
        return self._fit(train)[0]

    def embed(self, train: np.ndarray) -> np.ndarray:
        """Every row of the reader after a fit to the rows `train`, `(source.n_obs, dim)`, float32."""
        fitted, chosen = self._fit(train)
        shared = None if chosen is None else self.embedder.shared(self.source)
        if shared is None or chosen is None or shared.profiles.shape[0] < self.source.n_obs:
            return fitted.transform(self.source)
        return fitted.embed_shared(shared, chosen)

    def embed_each(self, asked: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Of each pair `(train, rows)`: the rows, `(len(rows), dim)`, float32, after a fit to the rows `train`.

        Linear embedders embed the cells for all pairs in one pass; the numbers are those of `transform`, to the last bit.
        """
        self._expect([train for train, _ in asked])
        fits = [self.fit(train) for train, _ in asked]
        if not self.embedder.linear:
            return [fit.transform(self.source, rows) for fit, (_, rows) in zip(fits, asked)]
        names = _names(self.source)
        genes = names[np.isin(names, np.concatenate([fit.genes for fit in fits]))]
        along = [fit.axes_in(genes) for fit in fits]
        out = [np.empty((len(rows), fit.dim), dtype=np.float32) for fit, (_, rows) in zip(fits, asked)]
        wanted = np.unique(np.concatenate([rows for _, rows in asked]))
        order = [np.argsort(rows, kind="stable") for _, rows in asked]
        for block in align_genes(self.source, genes, exact=True).blocks(rows=wanted):
            profiles = normalize(matrix_of(block, len(genes)), self.source.kind, block.totals)
            here = wanted[block.start : block.start + len(block)]
            for (axes, origin), (_, rows), into, at in zip(along, asked, out, order):
                first, last = np.searchsorted(rows, [here[0], here[-1] + 1], sorter=at)
                own = at[first:last]
                if len(own):
                    into[own] = profiles[np.searchsorted(here, rows[own])] @ axes - origin
        return out

    def _fit(self, train: np.ndarray) -> tuple[Any, np.ndarray | None]:
        """The fit, and the columns of its genes in the shared sums if it is made from them."""
        mask = self._mask(train)
        key = np.packbits(mask).tobytes()
        if key not in self._fits:
            if len(self._fits) >= MOST_FITS:
                self._fits.clear()
            self._fits[key] = self._make(mask)
        return self._fits[key]

    def _expect(self, trains: Sequence[np.ndarray]) -> None:
        """Prepare sums for all fits together."""
        held = [held for mask in map(self._mask, trains) if (held := self._shared_rows(mask)) is not None]
        shared = self.embedder.shared(self.source) if held else None
        if shared is not None:
            shared.expect(held)

    def _mask(self, train: np.ndarray) -> np.ndarray:
        mask = np.zeros(self.source.n_obs, dtype=bool)
        mask[train] = True
        return mask

    def _shared_rows(self, mask: np.ndarray) -> np.ndarray | None:
        """Which rows of the shared sums a fit learns from; `None` where it reads its own cells."""
        embedder, n = self.embedder, int(mask.sum())
        held = np.flatnonzero(mask[embedder.choice(self.source)])
        all_of_many = n == self.source.n_obs > embedder.max_fit_cells  # as `fit` alone would
        enough = len(held) >= min(n, max(embedder.max_fit_cells // 2, 3)) and not all_of_many
        return held if enough else None

    def _make(self, mask: np.ndarray) -> tuple[Any, np.ndarray | None]:
        new = copy(self.embedder)
        new.require(int(mask.sum()), self.source)
        held = self._shared_rows(mask)
        shared = None if held is None else new.shared(self.source)
        if shared is None or held is None:
            return new.fit(self.source, rng=self.rng, mask_obs=mask), None
        return new, new.learn_shared(shared, held, _names(self.source))


def _names(source: CountSource) -> np.ndarray:
    """Names of genes, each once."""
    import pandas as pd

    return np.asarray(pd.unique(np.asarray(source.names)).astype(str))
