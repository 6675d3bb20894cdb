"""Batches of similar length under a budget of padded tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


def token_batches(lengths: np.ndarray, batch_tokens: int, *, max_waste: float = 0.05) -> Iterator[np.ndarray]:
    """Put cells of similar length into one batch, so that there is little padding.

    Parameters
    ----------
    lengths
        Tokens of each cell, shape `(n_cells,)`.
    batch_tokens
        Largest number of tokens in a batch, padding included. A longer cell has a batch of its own.
    max_waste
        Largest share of padding in a batch.

    Yields
    ------
    Indices into `lengths`, one array per batch, longest cells first; each cell occurs once.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    ordered = np.asarray(lengths)[order]
    start = 0
    while start < len(order):
        longest = max(int(ordered[start]), 1)
        stop = start + max(1, batch_tokens // longest)
        real = np.cumsum(ordered[start:stop])
        waste = 1 - real / (longest * np.arange(1, len(real) + 1))
        stop = start + max(1, int(np.searchsorted(waste, max_waste, side="right")))
        yield order[start:stop]
        start = stop
