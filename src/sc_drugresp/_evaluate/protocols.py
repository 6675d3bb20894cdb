"""The folds of each protocol: the one that was asked for, then those that stand beside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
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
    """The folds of one protocol.

    Parameters
    ----------
    repeats
        Its folds, once for every pairing of the samples that are held out together.
    removed
        Cells that left training because they are copies of cells of another unit, in the first repeat.
    remake
        Makes the repeats again for other labels, where they depend on labels.
    shared
        Patients and cell lines that were not learned from because they are tested.
    """

    repeats: list[list[Fold]]
    removed: int = 0
    remake: Callable[[np.ndarray], list[list[Fold]]] | None = None
    shared: Sequence[str] = ()

    @property
    def folds(self) -> list[Fold]:
        """Folds of the first repeat."""
        return self.repeats[0]

    @property
    def tested(self) -> np.ndarray:
        """Cells that are tested in any fold."""
        return np.unique(np.concatenate([fold.test for fold in self.folds]))

    def for_labels(self, y: np.ndarray) -> list[list[Fold]]:
        """The repeats that other labels would have had."""
        return self.remake(y) if self.remake else self.repeats


def make_runs(
    cohort: Cohort,
    hashes: np.ndarray,
    protocol: Protocol,
    few_shot: Sequence[int],
    n_pairings: int,
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
    shared = splits.shared_profiles(hashes, cohort.units)
    runs: dict[str, Run] = {}

    def clean(repeats: list[list[Fold]]) -> tuple[list[list[Fold]], int]:
        parts = [splits.without_copies(folds, hashes, shared) for folds in repeats]
        return [folds for folds, _ in parts], parts[0][1]

    def strict(labels: np.ndarray) -> list[list[Fold]]:
        return splits.repeated(partial(cohort.remake, labels), n_pairings)

    if protocol == CROSS:
        known = {} if allow_leaks else cohort.identities
        between, names = without_shared(splits.cross_dataset(y, datasets), known, datasets)
        between = [fold for fold in between if len(np.unique(y[fold.train])) == 2]
        if not between:
            msg = (
                f"The data sets share patients or cell lines ({', '.join(map(repr, names[:5]))}), and without them nothing is "
                "left to learn from. Give different patients different names, or pass allow_leaks=True."
            )
            raise splits.LeakError(msg)
        runs[CROSS] = Run(*clean([between]), shared=names)
        shots = splits.few_shot(y, datasets, cohort.units, (0, *few_shot), rng=rng) if few_shot else []
        shots = [fold for fold in without_shared(shots, known, datasets)[0] if len(np.unique(y[fold.train])) == 2]
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


def shared_names(runs: Mapping[str, Run]) -> list[str]:
    """A caution, in words, when data sets share patients or cell lines."""
    names = sorted({name for run in runs.values() for name in run.shared})
    if not names:
        return []
    told = "where one is tested, its cells in other data sets are not learned from. Give different patients different names."
    return [f"Data sets share patients or cell lines ({', '.join(map(repr, names[:5]))}): {told}"]
