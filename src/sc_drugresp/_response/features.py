"""What a head learns from: values that are there, or an embedder that is fitted anew in every fold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._data.counts import CountSource

CACHE_BYTES = 2**28
AT_ONCE_BYTES = 2**27
"""Memory for features of folds that are made in one pass over many cells."""
ALL_AT_ONCE = 20_000
"""Most labeled cells that are embedded together after every fit, and kept; of more cells those that are asked for."""
_FEW = 2_500
"""Cells that are kept in memory as they are read, because they are asked for again and again."""
Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows of the training cells, of the test cells, and of the training cells whose features are wanted."""


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
    rows
        Rows of the labeled cells in `source`.
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
        rows: np.ndarray | None = None,
        description: dict[str, Any] | None = None,
        rng: int = 0,
    ) -> None:
        self.name, self.embedder, self.rng = name, embedder, rng
        self.description = description or {}
        self._labeled, self._source, self._rows = labeled, source, rows
        self._refits = embedder.refits(labeled, rng=rng)
        self._cache: dict[bytes, np.ndarray] = {}
        self._fitted = False
        self._everything: np.ndarray | None = None
        self._few: tuple[np.ndarray, CountSource] | None = None

    def split(
        self, train: np.ndarray, test: np.ndarray, shown: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit to the training cells, embed both parts; fits to the same cells are done once."""
        shown = train if shown is None else shown
        if self._labeled.n_obs > ALL_AT_ONCE:
            return next(self.splits([(train, test, shown)]))
        mask = np.zeros(self._labeled.n_obs, dtype=bool)
        mask[train] = True
        key = np.packbits(mask).tobytes()
        if key not in self._cache:
            x = self._refits.embed(train)
            if sum(kept.nbytes for kept in self._cache.values()) + x.nbytes > CACHE_BYTES:
                self._cache.clear()
            self._cache[key] = x
        return self._cache[key][shown], self._cache[key][test]

    def splits(self, parts: Sequence[Part]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each part what :meth:`split` gives, with as few passes over many cells as a bounded memory allows."""
        if self._labeled.n_obs <= ALL_AT_ONCE:
            yield from (self.split(*part) for part in parts)
            return
        sizes = [(len(test) + len(shown)) * self.embedder.dim * 4 for _, test, shown in parts]
        start = 0
        while start < len(parts):
            stop = start + max(int(np.searchsorted(np.cumsum(sizes[start:]), AT_ONCE_BYTES, side="right")), 1)
            asked = [(train, np.concatenate([shown, test])) for train, test, shown in parts[start:stop]]
            found = self._refits.embed_each(asked)
            for _, _, shown in parts[start:stop]:
                x = found.pop(0)
                yield x[: len(shown)], x[len(shown) :]
            start = stop

    def refit(self, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Fit to the training cells and embed these labeled cells."""
        if self._labeled.n_obs <= ALL_AT_ONCE:
            return self.split(train, rows, rows[:0])[1]
        few, at = self._read(rows)
        return self._refits.fit(train).transform(few, at)

    def labeled(self) -> np.ndarray:
        """Features of the labeled cells after a fit to all of them."""
        if self._everything is not None and self._rows is not None:
            whole = len(self._rows) == len(self._everything)
            return self._everything if whole else self._everything[self._rows]
        self._fit()
        return self.embedder.transform(self._labeled)

    @property
    def thins(self) -> bool:
        """Whether there are raw counts that can be drawn from."""
        return self._labeled.kind == "counts"

    def thinned(self, train: np.ndarray, rows: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
        """Fit to the training cells, and embed other labeled cells with each of these shares of their counts."""
        fitted, (few, at) = self._refits.fit(train), self._read(rows)
        rng = np.random.default_rng(self.rng)
        return [fitted.transform(few.thinned(at, share, rng)) for share in shares]

    def everything(self) -> np.ndarray:
        """Features of all cells after a fit to the labeled ones, kept."""
        if self._everything is None:
            self._fit()
            self._everything = self.embedder.transform(self._source)
        return self._everything

    def same_as(self, other: FittedFeatures) -> bool:
        """Whether both fit the same embedder to the same cells."""
        ours, theirs = self.embedder, other.embedder
        same = type(ours) is type(theirs) and ours.settings() == theirs.settings() and self.rng == other.rng
        return same and self._labeled is other._labeled

    def _fit(self) -> None:
        if not self._fitted:
            self.embedder = self._refits.fit(np.arange(self._labeled.n_obs))
            self._fitted = True

    def _read(self, rows: np.ndarray) -> tuple[CountSource, np.ndarray]:
        """A reader of a few labeled cells in memory, where there are many in all, and where these stand in it."""
        if self._labeled.n_obs <= ALL_AT_ONCE or len(rows) > _FEW:
            return self._labeled, rows
        if self._few is None or not np.isin(rows, self._few[0]).all():
            known = np.unique(rows)
            self._few = known, self._labeled.to_memory(known)
        return self._few[1], np.searchsorted(self._few[0], rows)


def each_split(features: Features, parts: Sequence[Part]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each part what `features.split` gives; what is fitted anew embeds the cells for many parts at once."""
    if isinstance(features, FittedFeatures):
        return features.splits(parts)
    return (features.split(*part) for part in parts)
