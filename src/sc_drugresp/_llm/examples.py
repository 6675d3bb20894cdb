"""Labeled samples that are shown with a question: never the sample that the question is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._core.keys import RESISTANT, SENSITIVE, SPLIT
from .._core.log import logger
from .._data.obs import as_text, read_labels

if TYPE_CHECKING:
    import pandas as pd

    from .units import Units

TRAIN = "train"


@dataclass(frozen=True, eq=False)
class Pool:
    """Labeled samples from which examples are taken.

    Parameters
    ----------
    names
        Name of each sample, in the order in which they are taken.
    y
        Label of each, 1 sensitive.
    codes
        Sample of each cell, -1 for cells of no such sample.
    """

    names: list[str]
    y: np.ndarray
    codes: np.ndarray

    def choose(self, n: int, sample: str) -> list[int]:
        """Positions of `n` samples other than this one, both classes in turn."""
        sides = [[i for i, name in enumerate(self.names) if self.y[i] == y and name != sample] for y in (1, 0)]
        turns = [i for pair in zip(*(side[: (n + 1) // 2] for side in sides)) for i in pair]
        return turns[:n]

    def label(self, i: int) -> str:
        """Word for the label of a sample."""
        return SENSITIVE if self.y[i] else RESISTANT


def read_pool(obs: pd.DataFrame, units: Units, label_key: str, n: int, seed: int) -> Pool:
    """Find the labeled samples that may be shown: those of `.obs['split']` that are for training, else all.

    Raises
    ------
    ValueError
        There are too few of them of a class, or no column that names samples.
    """
    y = read_labels(obs, label_key)
    usable = (y >= 0) & (units.cells != "")
    if SPLIT in obs:
        usable &= as_text(obs[SPLIT]) == TRAIN
        logger.info("examples come from the samples for training (.obs[%r])", SPLIT)
    names, index = np.unique(units.cells, return_inverse=True)
    share = np.full(len(names), np.nan)
    for i in np.unique(index[usable]):
        share[i] = y[usable & (index == i)].mean()
    order = np.random.default_rng(seed).permutation(np.flatnonzero(np.isin(share, (0, 1))))
    place = np.full(len(names), -1)
    place[order] = np.arange(len(order))
    pool = Pool([str(names[i]) for i in order], share[order].astype(int), np.where(usable, place[index], -1))
    least = min((pool.y == value).sum() for value in (0, 1))
    if least < (n + 1) // 2 + 1:  # the sample that is asked about is not shown
        msg = (
            f"`examples={n}` needs at least {(n + 1) // 2 + 1} labeled samples of each class (a sample is never shown with the "
            f"question about itself), found {int((pool.y == 1).sum())} sensitive and {int((pool.y == 0).sum())} resistant."
        )
        raise ValueError(msg)
    return pool
