"""Finished blocks as one array, in memory or on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.log import logger

if TYPE_CHECKING:
    from .progress import EmbeddingRun
    from .store.store import BlockStore

_SOME_BLOCKS = 4
"""From which it is seen whether all cells look alike."""


def values_of(store: BlockStore, run: EmbeddingRun, *, lazily: bool) -> Any:
    """The embedding of all cells, NaN in what is not finished; `lazily` leaves it on the disk, where dask is installed."""
    done, blocks, shape = _done(run), store.blocks, store.array.shape
    if lazily:
        try:
            import dask.array as da
        except ImportError:
            logger.info("the embedding is read into memory; with dask it would stay on the disk")
        else:
            whole = da.from_zarr(store.array)
            if run.complete:
                return whole
            parts = []
            for block in range(blocks.count):
                rows = blocks.rows(block)
                gap = da.full((len(rows), shape[1]), np.nan, dtype=np.float32)
                parts.append(whole[rows.start : rows.stop] if block in done else gap)
            return da.concatenate(parts)
    out = np.full(shape, np.nan, dtype=np.float32)
    for block in done:
        rows = blocks.rows(block)
        out[rows.start : rows.stop] = store.read(block)
    return out


def some_values(store: BlockStore, run: EmbeddingRun) -> np.ndarray:
    """Values of a few finished blocks, spread over the run."""
    done = np.array(sorted(_done(run)))
    chosen = np.unique(np.linspace(0, len(done) - 1, min(len(done), _SOME_BLOCKS)).astype(int))
    return np.concatenate([store.read(int(block)) for block in done[chosen]])


def _done(run: EmbeddingRun) -> set[int]:
    gone = {block for first, last in run.missing for block in range(first, last + 1)}
    return set(range(run.blocks)) - gone
