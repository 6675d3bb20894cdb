"""Which samples teach, which say when to stop, and which only judge."""

from __future__ import annotations

import numpy as np

from .._stats.groups import encode_groups, majority_classes

LEARN, STOP, JUDGE = 0, 1, 2
FEWEST = 3


def choose_cells(groups: np.ndarray, usable: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Rows of at most `most` usable cells, sorted: all samples lose the same share."""
    rows = np.flatnonzero(usable)
    if len(rows) <= most:
        return rows
    codes, _ = encode_groups(groups[rows])
    rng = np.random.default_rng([seed, 0])
    drawn = rng.permutation(len(rows))
    drawn = drawn[np.argsort(codes[drawn], kind="stable")]  # by sample, in random order inside
    return np.sort(rows[drawn[np.linspace(0, len(rows) - 1, most).astype(np.int64)]])


def deal_samples(
    groups: np.ndarray, y: np.ndarray | None, *, held_out: float, validation: float, seed: int
) -> np.ndarray:
    """Part of each cell, `LEARN`, `STOP` or `JUDGE`: samples are whole, and the classes of samples are spread evenly.

    Parameters
    ----------
    groups
        Sample of each cell.
    y
        1, 0 or -1 (not labeled) for each cell; `None` without labels.
    held_out, validation
        Shares of the samples that judge, and by which training stops; at least one each.
    seed
        Seed of the draw.

    Raises
    ------
    ValueError
        There are fewer than three samples.
    """
    codes, names = encode_groups(groups)
    n = len(names)
    if n < FEWEST:
        msg = (
            f"Distilling needs at least {FEWEST} samples (`group_key`): to learn from, to stop by, and to be judged on; found "
            f"{n}: {names.tolist()}."
        )
        raise ValueError(msg)
    kind = np.full(n, 3)
    if y is not None and (y >= 0).any():
        known = y >= 0
        labeled = np.unique(codes[known])
        kind[labeled] = majority_classes(y[known].astype(np.intp), codes[known], n)[labeled]
    rng = np.random.default_rng([seed, 1])
    place = np.empty(n)
    for one in np.unique(kind):
        members = rng.permutation(np.flatnonzero(kind == one))
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    n_judge = int(np.clip(round(held_out * n), 1, n - 2))
    n_stop = int(np.clip(round(validation * n), 1, n - n_judge - 1))
    part = np.full(n, LEARN)
    order = np.argsort(place, kind="stable")
    part[order[:n_judge]], part[order[n_judge : n_judge + n_stop]] = JUDGE, STOP
    return part[codes]
