"""How long a network takes for cells of these lengths, and how much memory: measured on a few of them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .._nn.products import advantage
from ._driver import batch_budget, evaluating
from ._memory import Limit

if TYPE_CHECKING:
    from .._core.kinds import BatchTokens
    from .._data import Tokens
    from .._data.counts import AlignedCounts
    from ._encoder import CellEncoder

MOST_CELLS = 20_000
"""More cells are not tokenized for an estimate, but an evenly spread sample of so many."""
_STRATA = 5
_MOST_RUNS = 200
_MARGIN, _WIDE_MARGIN = 0.2, 0.4  # what a probe of seconds cannot see: heat, other programs, caches


@dataclass(frozen=True)
class Lengths:
    """Tokens of each cell.

    Parameters
    ----------
    rows
        Cells that were tokenized.
    tokens, sizes
        Tokens of each, and its length in a batch (0 for cells without an embedding), shape `(n_rows,)`.
    distinct
        Different tokens in each block, added up.
    seconds
        Time it took to read and tokenize them.
    """

    rows: np.ndarray
    tokens: np.ndarray
    sizes: np.ndarray
    distinct: int
    seconds: float

    @classmethod
    def of(cls, encoder: CellEncoder, cells: AlignedCounts, seed: int) -> Self:
        """Tokenize all cells, or an evenly spread sample of :data:`MOST_CELLS`."""
        rows = np.unique(np.linspace(0, cells.n_obs - 1, min(cells.n_obs, MOST_CELLS)).astype(np.int64))
        start = time.perf_counter()
        tokens, sizes, distinct = [], [], 0
        for _, block in encoder.token_blocks(cells, seed, None if len(rows) == cells.n_obs else rows):
            tokens.append(block.lengths)
            sizes.append(np.where(encoder.embeddable(block), encoder.sizes(block), 0))
            distinct += int(np.bincount(block.ids, minlength=1).astype(bool).sum())
        return cls(rows, np.concatenate(tokens), np.concatenate(sizes), distinct, time.perf_counter() - start)


@dataclass(frozen=True)
class Pace:
    """Seconds for all tokenized cells in the network, with the range to expect, and bytes of the largest batch."""

    seconds: float
    low: float
    high: float
    batch_bytes: int
    n_timed: int


def measure(
    encoder: CellEncoder, cells: AlignedCounts, lengths: Lengths, *, seed: int, batch_tokens: BatchTokens, budget: float
) -> Pace:
    """Time batches of short, middle and long cells for about `budget` seconds, at least one cell."""
    most = batch_budget(encoder.device, batch_tokens)
    strata = _strata(lengths.sizes)
    if not strata:
        return Pace(0.0, 0.0, 0.0, 0, 0)

    def take(places: np.ndarray) -> Tokens:
        return next(iter(encoder.token_blocks(cells, seed, lengths.rows[np.sort(places)])))[1]

    with evaluating(encoder):
        middle = strata[len(strata) // 2]
        first = take(middle[len(middle) // 2 : len(middle) // 2 + 1])
        for dtype in (torch.float32, torch.bfloat16):
            advantage(
                dtype, torch.get_num_threads()
            )  # measured once in a process, with tensors that are no part of a batch
        with LiveBytes() as live:
            _run(encoder, first, most)
        found: list[list[float]] = [[] for _ in strata]
        timed, left, shared_rate, n, growing = 0, budget, 0.0, 1, True
        while left > 0 or not timed:
            stratum = min(range(len(strata)), key=lambda i: (len(found[i]), abs(i - len(strata) // 2)))
            size = max(1, int(lengths.sizes[strata[stratum]].mean()))
            n = min(n, max(1, most // size), len(strata[stratum]))
            begin = (len(strata[stratum]) - n) // 2
            chosen = strata[stratum][begin : begin + n]
            tokens = take(chosen)
            start = time.perf_counter()
            shared = _run(encoder, tokens, most)
            taken = time.perf_counter() - start
            left -= max(taken, budget / _MOST_RUNS)
            growing = growing and taken < budget / 8 and n < min(max(1, most // size), len(strata[stratum]))
            if growing:  # a few cells alone take longer for each: weights are read, operators are called
                n *= 4
                continue
            shared_rate = shared / max(1, len(np.unique(tokens.ids)))
            found[stratum].append(max(taken - shared, 1e-9) / max(1, int(lengths.sizes[chosen].sum())))
            timed += n
    work = np.array([lengths.sizes[places].sum() for places in strata], dtype=float)
    known = np.array([len(rates) > 0 for rates in found])
    at = np.arange(len(strata))

    def total(summary: Any) -> float:
        rates = np.interp(at, at[known], [summary(rates) for rates in found if rates])
        return float(rates @ work) + shared_rate * lengths.distinct

    margin = _MARGIN if known.all() else _WIDE_MARGIN
    largest = min(most, int(lengths.sizes.sum())) if not encoder.set_based else min(most, len(lengths.rows))
    largest = max(largest, int(lengths.sizes.max()))
    batch_bytes = int(live.most * largest / max(1, int(lengths.sizes[middle[len(middle) // 2]])))
    return Pace(total(np.median), total(min) * (1 - margin), total(max) * (1 + margin), batch_bytes, timed)


def weight_bytes(encoder: CellEncoder) -> int:
    """Bytes of parameters and buffers."""
    return sum(x.numel() * x.element_size() for x in [*encoder.parameters(), *encoder.buffers()])


def _strata(sizes: np.ndarray) -> list[np.ndarray]:
    """Places of the cells from short to long, in groups of about as many tokens; cells without an embedding are left out."""
    order = np.argsort(sizes, kind="stable")
    order = order[sizes[order] > 0]
    if not len(order):
        return []
    share = np.cumsum(sizes[order], dtype=float)
    cuts = np.searchsorted(share, share[-1] * np.arange(1, _STRATA) / _STRATA)
    return [group for group in np.split(order, np.unique(cuts)) if len(group)]


def _run(encoder: CellEncoder, tokens: Tokens, most: int) -> float:
    """Compute the embeddings; seconds of what the cells of a block share."""
    if encoder.set_based:
        encoder.embed_tokens(tokens, batch_tokens=most)
        return 0.0
    start = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(encoder.shared(tokens))
        shared = time.perf_counter() - start
        for _ in encoder.embed_batches(tokens, np.arange(len(tokens)), Limit(most, encoder.device)):
            pass
    return shared


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made inside the block hold at the same time.

    Attributes
    ----------
    most
        Bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and look at what it made."""
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        out = func(*args, **kwargs or {})
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in given:
                storage = x.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: value for key, value in self._alive.items() if not value[0].expired()}
        self.most = max(self.most, sum(n for _, n in self._alive.values()))
        return out
