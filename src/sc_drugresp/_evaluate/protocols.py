"""The folds of each protocol: the one that was asked for, then those that stand beside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
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
    """The folds of one protocol.

    Parameters
    ----------
    repeats
        Its folds, once for every pairing of the samples that are held out together.
    removed
        Copies of test cells that were taken out of training, in the first repeat.
    remake
        Makes the repeats again for other labels, where they depend on labels.
    """

    repeats: list[list[Fold]]
    removed: int = 0
    remake: Callable[[np.ndarray], list[list[Fold]]] | None = None

    @property
    def folds(self) -> list[Fold]:
        """Folds of the first repeat."""
        return self.repeats[0]

    def for_labels(self, y: np.ndarray) -> list[list[Fold]]:
        """The repeats that other labels would have had."""
        return self.remake(y) if self.remake else self.repeats


def make_runs(
    cohort: Cohort, hashes: np.ndarray, protocol: Protocol, few_shot: Sequence[int], n_pairings: int, rng: int
) -> dict[str, Run]:
    """Folds by protocol, the wanted one first.

    Raises
    ------
    ValueError
        The protocol is not possible with these data.
    """
    y, datasets = cohort.y, cohort.datasets
    runs: dict[str, Run] = {}

    def clean(repeats: list[list[Fold]]) -> tuple[list[list[Fold]], int]:
        parts = [splits.without_duplicates(folds, hashes) for folds in repeats]
        return [folds for folds, _ in parts], parts[0][1]

    def strict(labels: np.ndarray) -> list[list[Fold]]:
        return splits.repeated(partial(cohort.remake, labels), n_pairings)

    if protocol == CROSS:
        runs[CROSS] = Run(*clean([splits.cross_dataset(y, datasets)]))
        shots = splits.few_shot(y, datasets, cohort.units, (0, *few_shot), rng=rng) if few_shot else []
        if shots:
            runs[FEW_SHOT] = Run(*clean([shots]))
        elif few_shot:
            logger.warning(
                "no data set has enough samples of both classes to give some of them away: no few-shot scores"
            )
    if cohort.folds:
        runs[STRICT] = Run(*clean(strict(y)), lambda labels: clean(strict(labels))[0])
    random = Run([splits.pooled(y, rng=rng)], remake=lambda labels: [splits.pooled(labels, rng=rng)])
    return {POOLED: random, **runs} if protocol == POOLED else {**runs, POOLED: random}
