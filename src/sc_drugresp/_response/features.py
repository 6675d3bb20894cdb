"""What a head learns from: values that are there, or an embedder that is fitted anew in every fold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._data.counts import CountSource

CACHE_BYTES = 2**28
ALL_AT_ONCE = 20_000
"""Most labeled cells that are embedded together after every fit, and kept; of more cells those that are asked for."""


class Features(Protocol):
    """One way to describe the labeled cells. `split` must not let the test cells influence what is fitted."""

    @property
    def name(self) -> str:
        """Name of the row in tables."""
        ...

    def split(
        self, train: np.ndarray, test: np.ndarray, shown: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features of the training and of the test cells, float arrays of shape `(cells, dim)`.

        With `shown`, those of these training cells alone; all of them may be fitted to.
        """
        ...


@dataclass(frozen=True)
class FixedFeatures:
    """An embedding that owes nothing to these cells, or was computed before.

    Parameters
    ----------
    name
        Name of the row in tables.
    values
        One row for each cell of the object, shape `(n_obs, dim)`.
    rows
        The labeled cells among them; `None` for all.
    description
        How other cells are embedded in the same way, see :class:`~sc_drugresp.models.ResponseModel`.
    """

    name: str
    values: np.ndarray
    rows: np.ndarray | None = None
    description: dict[str, Any] = field(default_factory=dict)
    embedder = None

    def labeled(self) -> np.ndarray:
        """Features of the labeled cells."""
        return self.values if self.rows is None else self.values[self.rows]

    def everything(self) -> np.ndarray:
        """Features of all cells."""
        return self.values

    def split(
        self, train: np.ndarray, test: np.ndarray, shown: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the embedding."""
        return self._rows(train if shown is None else shown), self._rows(test)

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        return self.values[rows if self.rows is None else self.rows[rows]]


class FittedFeatures:
    """An embedder that learns from cells (`needs_fit`): fitted anew to the training cells of every fold.

    Parameters
    ----------
    name
        Name of the row in tables.
    embedder
        The embedder, not fitted yet.
    labeled
        Reader of the labeled cells, in the order of the folds' rows.
    source
        Reader of all cells of the object; `None` if only the labeled ones matter.
    description
        As in :class:`FixedFeatures`.
    rng
        Seed of the fits.
    """

    def __init__(
        self,
        name: str,
        embedder: Any,
        labeled: CountSource,
        *,
        source: CountSource | None = None,
        description: dict[str, Any] | None = None,
        rng: int = 0,
    ) -> None:
        self.name, self.embedder, self.rng = name, embedder, rng
        self.description = description or {}
        self._labeled, self._source = labeled, source
        self._refits = embedder.refits(labeled, rng=rng)
        self._cache: dict[bytes, np.ndarray] = {}
        self._fitted = False

    def split(
        self, train: np.ndarray, test: np.ndarray, shown: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit to the training cells, embed both parts; fits to the same cells are done once."""
        shown = train if shown is None else shown
        if self._labeled.n_obs > ALL_AT_ONCE:
            fitted = self._refits.fit(train)
            return fitted.transform(self._labeled, shown), fitted.transform(self._labeled, test)
        mask = np.zeros(self._labeled.n_obs, dtype=bool)
        mask[train] = True
        key = np.packbits(mask).tobytes()
        if key not in self._cache:
            x = self._refits.embed(train)
            if sum(kept.nbytes for kept in self._cache.values()) + x.nbytes > CACHE_BYTES:
                self._cache.clear()
            self._cache[key] = x
        return self._cache[key][shown], self._cache[key][test]

    def refit(self, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Fit to the training cells and embed these labeled cells."""
        return self.split(train, rows, rows[:0])[1]

    def labeled(self) -> np.ndarray:
        """Features of the labeled cells after a fit to all of them."""
        self._fit()
        return self.embedder.transform(self._labeled)

    @property
    def thins(self) -> bool:
        """Whether there are raw counts that can be drawn from."""
        return self._labeled.kind == "counts"

    def thinned(self, train: np.ndarray, rows: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
        """Fit to the training cells, and embed other labeled cells with each of these shares of their counts."""
        fitted = self._refits.fit(train)
        rng = np.random.default_rng(self.rng)
        return [fitted.transform(self._labeled.thinned(rows, share, rng)) for share in shares]

    def everything(self) -> np.ndarray:
        """Features of all cells after a fit to the labeled ones."""
        self._fit()
        return self.embedder.transform(self._source)

    def same_as(self, other: FittedFeatures) -> bool:
        """Whether both fit the same embedder to the same cells."""
        ours, theirs = self.embedder, other.embedder
        same = type(ours) is type(theirs) and ours.settings() == theirs.settings() and self.rng == other.rng
        return same and self._labeled is other._labeled

    def _fit(self) -> None:
        if not self._fitted:
            self.embedder = self._refits.fit(np.arange(self._labeled.n_obs))
            self._fitted = True
