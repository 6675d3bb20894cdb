"""Embed sets of cells of any size in bounded memory.

First the input of the first layer is computed for all cells; then the layers run over one batch of sets, or one large set,
at a time.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._data import token_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from .._data import Tokens
    from ._memory import Limit

_IN_MEMORY = 2**31  # bytes of hidden states; more are kept in a temporary file


class SetRun:
    """Inputs of the first layer for `n_cells` cells, and what is needed to compute their embeddings.

    Parameters
    ----------
    encoder
        The :class:`~sc_drugresp.models.cellplm.CellPLM`.
    n_cells
        Cells in all.
    limit
        Most cells computed at once.
    """

    def __init__(self, encoder: Any, n_cells: int, limit: Limit) -> None:
        config = encoder.config
        self.encoder, self.limit = encoder, limit
        self.states = _room(n_cells, config.width, encoder.genes.dtype)
        self.uniforms = torch.empty(n_cells, config.clusters) if config.sampled else None
        self.sets = np.zeros(n_cells, dtype=np.int64)

    def add(self, start: int, tokens: Tokens) -> None:
        """Compute the states of the cells from `start` on."""
        for piece, (batch, x) in self.limit.pieces(np.arange(len(tokens)), lambda piece: self._inputs(tokens, piece)):
            rows = slice(start + int(piece[0]), start + int(piece[-1]) + 1)
            self.states[rows] = x
            self.sets[rows] = batch["sets"].numpy()
            if self.uniforms is not None:
                self.uniforms[rows] = batch["uniforms"]

    def finish(self, sets: np.ndarray, advance: Callable[[int], Any]) -> np.ndarray:
        """Apply the layers among the cells of each set; `sets` are numbered from 0."""
        out = np.empty((len(sets), self.encoder.dim), dtype=np.float32)
        sizes = np.bincount(sets) if len(sets) else np.zeros(0, dtype=np.int64)
        members = np.split(np.argsort(sets, kind="stable"), np.cumsum(sizes)[:-1])
        waiting = np.flatnonzero(sizes)
        while len(waiting):
            large = sizes[waiting] > self.limit.now
            for rows in (members[i] for i in waiting[large]):
                self._stream(torch.from_numpy(rows), advance)
                for piece, values in self.limit.pieces(rows, self._pooled):
                    out[piece] = values
            waiting = waiting[~large]
            for chosen in list(token_batches(sizes[waiting], self.limit.now, max_waste=0.25)):
                rows = np.concatenate([members[i] for i in waiting[chosen]])
                found = self.limit.attempt(lambda rows: self._together(rows, sets[rows]), rows)
                if found is None:  # a set that is larger than the limit from now on is streamed
                    self.limit.shrink(len(rows))
                    break
                out[rows] = found
                sizes[waiting[chosen]] = 0
                advance(len(rows))
            waiting = waiting[sizes[waiting] > 0]
        return out

    def _inputs(self, tokens: Tokens, cells: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        batch = self.encoder.collate(tokens.take(cells))
        on_device = {name: x.to(self.encoder.device) for name, x in batch.items()}
        return batch, self.encoder.inputs(on_device).to(self.states.device)

    def _together(self, rows: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Embed whole sets."""
        codes = torch.from_numpy(sets).to(self.encoder.device)
        return self._read(self.encoder.among(self._states(rows), codes), rows)

    def _stream(self, rows: Tensor, advance: Callable[[int], Any]) -> None:
        done = 0
        for i, layer in enumerate(self.encoder.layers, start=1):
            layer.stream(self.states, rows, self.limit.pieces, self.encoder.device)
            advance(len(rows) * i // len(self.encoder.layers) - done)
            done = len(rows) * i // len(self.encoder.layers)

    def _pooled(self, rows: np.ndarray) -> np.ndarray:
        """Embed cells of a set that was streamed."""
        return self._read(self.encoder.final_norm(self._states(rows)), rows)

    def _states(self, rows: np.ndarray) -> Tensor:
        return self.states[torch.from_numpy(rows)].to(self.encoder.device)

    def _read(self, hidden: Tensor, rows: np.ndarray) -> np.ndarray:
        batch = {}
        if self.uniforms is not None:
            batch["uniforms"] = self.uniforms[torch.from_numpy(rows)].to(self.encoder.device)
        return self.encoder.pool(hidden, batch).float().cpu().numpy()


def set_codes(groups: np.ndarray, n: int) -> np.ndarray:
    """Sets numbered from 0, shape `(n,)`, int64.

    Raises
    ------
    ValueError
        `groups` is not one value for each cell.
    """
    groups = np.asarray(groups)
    if groups.shape != (n,):
        msg = f"`groups` must have one entry for each of {n} cells, found shape {groups.shape}."
        raise ValueError(msg)
    if groups.dtype.kind == "f" and np.isnan(groups).any():
        msg = "`groups` has missing values; every cell must belong to a set."
        raise ValueError(msg)
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _room(n: int, width: int, dtype: torch.dtype) -> Tensor:
    """Allocate the hidden states of all cells, in memory or, for many cells, in a temporary file."""
    if n * width * dtype.itemsize <= _IN_MEMORY or dtype != torch.float32:
        return torch.empty(n, width, dtype=dtype)
    with tempfile.TemporaryFile() as file:  # the mapping outlives the name of the file
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=(n, width)))
