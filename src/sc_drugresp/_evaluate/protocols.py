"""The folds of each protocol: the one that was asked for, then those that stand beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._core.log import logger
from .._stats import folds as splits
from .options import CROSS, FEW_SHOT, POOLED, STRICT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from .._stats.folds import Fold
    from .cohort import Cohort
    from .options import Protocol


@dataclass(frozen=True)
class Run:
    """The folds of one protocol; `removed` copies of test cells were taken out of training.

    `remake` makes them again for other labels, where they depend on labels.
    """

    folds: list[Fold]
    removed: int = 0
    remake: Callable[[np.ndarray], list[Fold]] | None = None

    def for_labels(self, y: np.ndarray) -> list[Fold]:
        """The folds that other labels would have had."""
        return self.remake(y) if self.remake else self.folds


def make_runs(
    cohort: Cohort, hashes: np.ndarray, protocol: Protocol, few_shot: Sequence[int], rng: int
) -> dict[str, Run]:
    """Folds by protocol, the wanted one first.

    Raises
    ------
    ValueError
        The protocol is not possible with these data.
    """
    y, datasets = cohort.y, cohort.datasets
    runs: dict[str, Run] = {}
    if protocol == CROSS:
        runs[CROSS] = Run(*splits.without_duplicates(splits.cross_dataset(y, datasets), hashes))
        shots = splits.few_shot(y, datasets, cohort.units, (0, *few_shot), rng=rng) if few_shot else []
        if shots:
            runs[FEW_SHOT] = Run(*splits.without_duplicates(shots, hashes))
        elif few_shot:
            logger.warning(
                "no data set has enough samples of both classes to give some of them away: no few-shot scores"
            )
    if cohort.folds:
        clean, removed = splits.without_duplicates(cohort.folds, hashes)

        def again(labels: np.ndarray) -> list[Fold]:
            return splits.without_duplicates(cohort.remake(labels), hashes)[0]

        runs[STRICT] = Run(clean, removed, again)
    random = Run(splits.pooled(y, rng=rng), remake=lambda labels: splits.pooled(labels, rng=rng))
    return {POOLED: random, **runs} if protocol == POOLED else {**runs, POOLED: random}
