"""The folds of each protocol: the one that was asked for, then those that stand beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._core.log import logger
from .._stats import folds as splits
from .leakage import without_shared
from .options import CROSS, FEW_SHOT, POOLED, STRICT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._stats.folds import Fold
    from .cohort import Cohort
    from .options import Protocol


@dataclass(frozen=True)
class Run:
    """The folds of one protocol; `removed` copies of test cells were taken out of training.

    `shared` names patients and cell lines that were not learned from because they are tested. `remake` makes them again for other labels, where they depend on labels.
    """

    folds: list[Fold]
    removed: int = 0
    remake: Callable[[np.ndarray], list[Fold]] | None = None
    shared: Sequence[str] = ()

    def for_labels(self, y: np.ndarray) -> list[Fold]:
        """The folds that other labels would have had."""
        return self.remake(y) if self.remake else self.folds


def make_runs(
    cohort: Cohort,
    hashes: np.ndarray,
    protocol: Protocol,
    few_shot: Sequence[int],
    rng: int,
    *,
    allow_leaks: bool = False,
) -> dict[str, Run]:
    """Folds by protocol, the wanted one first.

    Between data sets, cells of patients and cell lines that are tested are not learned from.

    Raises
    ------
    ValueError
        The protocol is not possible with these data.
    LeakError
        Data sets share so many patients or cell lines that nothing is left to learn from.
    """
    y, datasets = cohort.y, cohort.datasets
    runs: dict[str, Run] = {}
    if protocol == CROSS:
        known = {} if allow_leaks else cohort.identities
        between, shared = without_shared(splits.cross_dataset(y, datasets), known, datasets)
        between = [fold for fold in between if len(np.unique(y[fold.train])) == 2]
        if not between:
            msg = (
                f"The data sets share patients or cell lines ({', '.join(map(repr, shared[:5]))}), and without them nothing is "
                "left to learn from. Give different patients different names, or pass allow_leaks=True."
            )
            raise splits.LeakError(msg)
        runs[CROSS] = Run(*splits.without_duplicates(between, hashes), shared=shared)
        shots = splits.few_shot(y, datasets, cohort.units, (0, *few_shot), rng=rng) if few_shot else []
        shots = [fold for fold in without_shared(shots, known, datasets)[0] if len(np.unique(y[fold.train])) == 2]
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


def shared_names(runs: Mapping[str, Run]) -> list[str]:
    """A caution, in words, when data sets share patients or cell lines."""
    names = sorted({name for run in runs.values() for name in run.shared})
    if not names:
        return []
    told = "where one is tested, its cells in other data sets are not learned from. Give different patients different names."
    return [f"Data sets share patients or cell lines ({', '.join(map(repr, names[:5]))}): {told}"]
