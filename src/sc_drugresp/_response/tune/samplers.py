"""Batches that show classes and samples equally often, and parts of them for each process.

An epoch depends on its seed and number alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..._stats.groups import balanced_weights


def balanced_batches(y: np.ndarray, groups: np.ndarray, *, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Draw `len(y)` cells with replacement, both classes and all samples of a class equally often."""
    rng = np.random.default_rng([seed, epoch])
    weights = balanced_weights(y, groups)
    order = rng.choice(len(y), size=len(y), p=weights / weights.sum())
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]


def set_batches(y: np.ndarray, groups: np.ndarray, *, max_cells: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches for set-based models: cells of one sample, both classes and all samples of a class equally often.

    A sample with more than `max_cells` cells is split at random into parts that take turns.
    """
    rng = np.random.default_rng([seed, epoch])
    parts: dict[int, list[list[np.ndarray]]] = {0: [], 1: []}
    for group in np.unique(groups):
        cells = rng.permutation(np.flatnonzero(groups == group))
        label = int(y[cells].mean() >= 0.5)
        parts[label].append(np.array_split(cells, -(-len(cells) // max_cells)))
    longest = max(sum(map(len, samples)) for samples in parts.values())
    out: list[list[int]] = []
    for samples in parts.values():
        order = rng.permutation(len(samples))
        for i in range(longest if len(order) else 0):
            sample = samples[order[i % len(order)]]
            out.append(np.sort(sample[i // len(order) % len(sample)]).tolist())
    return [out[i] for i in rng.permutation(len(out))]


@dataclass(frozen=True)
class Part:
    """What one process computes of a batch.

    `share` is the weight of its mean loss: the average over processes of loss times share is the loss of the whole batch.
    A process for which nothing is left gets one cell with a share of 0, because all of them have to meet in each step.
    """

    cells: list[int]
    share: float


def parts(batches: list[list[int]], *, rank: int, total: int, divide: bool) -> list[Part]:
    """Parts of `batches` for process `rank` of `total`, equally many for each; every cell is in one part of one process.

    With `divide`, the processes share the cells of each batch. Without, they take turns with whole batches.
    """
    out = []
    if divide:
        for batch in batches:
            mine = batch[rank::total]
            out.append(Part(mine or batch[:1], len(mine) * total / len(batch)))
        return out
    for first in range(0, len(batches), total):
        mine = batches[first + rank] if first + rank < len(batches) else []
        out.append(Part(mine or batches[first][:1], float(bool(mine))))
    return out
