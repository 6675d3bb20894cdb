"""Ragged token sequences: one structure for ranks, bins, sampled genes and whole profiles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Tokens:
    """Sequences of many cells in CSR layout: cell *i* owns `[indptr[i]:indptr[i+1]]`. No padding.

    Parameters
    ----------
    indptr
        Start of each cell's sequence, shape `(n_cells + 1,)`, int64.
    ids
        Token ids of the model's vocabulary, shape `(n_tokens,)`, int32.
    values
        A value per token (a bin, a normalized count), shape `(n_tokens,)`, or `None` where a model has none.
    cells
        Further arrays with one entry per cell, shape `(n_cells,)`, by name.
    """

    indptr: np.ndarray
    ids: np.ndarray
    values: np.ndarray | None = None
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "indptr", np.ascontiguousarray(self.indptr, dtype=np.int64))
        object.__setattr__(self, "ids", np.ascontiguousarray(self.ids, dtype=np.int32))
        if self.indptr.ndim != 1 or len(self.indptr) == 0 or self.indptr[0] != 0 or np.any(np.diff(self.indptr) < 0):
            msg = "`indptr` must be one-dimensional, start at 0 and never decrease."
            raise ValueError(msg)
        for name, array in (("ids", self.ids), ("values", self.values)):
            if array is not None and array.shape != (self.indptr[-1],):
                msg = f"`{name}` must have shape ({self.indptr[-1]},) to agree with `indptr`, found {array.shape}."
                raise ValueError(msg)
        for name, array in self.cells.items():
            if len(array) != len(self):
                msg = f"`cells[{name!r}]` must have one entry for each of {len(self)} cells, found {len(array)}."
                raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each cell, shape `(n_cells,)`."""
        return np.diff(self.indptr)

    def sequence(self, cell: int) -> np.ndarray:
        """Token ids of one cell."""
        return self.ids[self.indptr[cell] : self.indptr[cell + 1]]

    def take(self, cells: np.ndarray | Sequence[int]) -> Tokens:
        """Only these cells, in this order."""
        cells = np.asarray(cells, dtype=np.int64)
        lengths = self.lengths[cells]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        index = np.repeat(self.indptr[cells] - indptr[:-1], lengths) + np.arange(indptr[-1])
        values = None if self.values is None else self.values[index]
        return Tokens(indptr, self.ids[index], values, {name: array[cells] for name, array in self.cells.items()})

    def only(self, keep: np.ndarray) -> Tokens:
        """The tokens that the mask `keep`, of shape `(n_tokens,)`, marks; cells left without any stay, with length 0."""
        indptr = np.concatenate([[0], np.cumsum(keep)])[self.indptr]
        return Tokens(indptr, self.ids[keep], None if self.values is None else self.values[keep], self.cells)

    def framed(self, before: int | None, after: int | None = None, *, value: float = 0) -> Tokens:
        """Put a token of this value before and behind each sequence; `None` puts nothing there."""
        indptr, ids, values = self.indptr, self.ids, self.values
        for token, side in ((after, slice(1, None)), (before, slice(None, -1))):
            if token is not None:
                ids = np.insert(ids, indptr[side], token)
                values = None if values is None else np.insert(values, indptr[side], value)
                indptr = indptr + np.arange(len(indptr))
        return Tokens(indptr, ids, values, self.cells)

    def padded(self, array: np.ndarray, fill: Any, *, width: int | None = None) -> np.ndarray:
        """Lay out a per-token `array` as `(n_cells, width)`, filled up with `fill` on the right."""
        lengths = self.lengths
        width = int(lengths.max(initial=0)) if width is None else width
        if len(lengths) and lengths.min() == width:  # all of one length: a plain view
            return array.reshape(len(self), width)
        out = np.full((len(self), width), fill, dtype=array.dtype)
        out[np.arange(width) < lengths[:, None]] = array
        return out

    @classmethod
    def from_padded(
        cls, ids: np.ndarray, lengths: np.ndarray, values: np.ndarray | None = None, **cells: np.ndarray
    ) -> Tokens:
        """Make tokens from padded arrays, as other implementations record them.

        Parameters
        ----------
        ids
            Token ids, shape `(n_cells, width)`, padded on the right.
        lengths
            Tokens of each cell, shape `(n_cells,)`.
        values
            A value per token, shape `(n_cells, width)`.
        cells
            Further arrays with one entry per cell, by name.

        Examples
        --------
        >>> from sc_drugresp.models import Tokens
        >>> Tokens.from_padded([[5, 6, 0], [7, 0, 0]], [2, 1]).ids.tolist()
        [5, 6, 7]
        """
        ids, lengths = np.asarray(ids), np.asarray(lengths, dtype=np.int64)
        keep = np.arange(ids.shape[1]) < lengths[:, None]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return cls(indptr, ids[keep], None if values is None else np.asarray(values)[keep], cells)

    @classmethod
    def concatenate(cls, parts: Sequence[Tokens]) -> Tokens:
        """Join the cells of several blocks."""
        if not parts:
            return cls(np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int32))
        offsets = np.cumsum([0, *(part.indptr[-1] for part in parts)])
        indptr = np.concatenate([[0], *(part.indptr[1:] + offset for part, offset in zip(parts, offsets))])
        values = None if parts[0].values is None else np.concatenate([part.values for part in parts])
        cells = {name: np.concatenate([part.cells[name] for part in parts]) for name in parts[0].cells}
        return cls(indptr, np.concatenate([part.ids for part in parts]), values, cells)
