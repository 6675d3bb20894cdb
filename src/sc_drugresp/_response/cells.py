"""The labeled cells that a model learns from: their samples, what is there twice, and what their design allows to conclude."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.log import warn
from .._design.doubles import Doubles
from .._design.given_away import chosen_by_label, fitted_elsewhere, genes_chosen_before, knows_labels
from .._design.judge import assess
from .._design.quality import measured
from .._stats.folds import leave_group_out, shared_profiles
from .heads import OVER_SAMPLES

if TYPE_CHECKING:
    import pandas as pd

    from .._design.units import UnitTable
    from .._design.verdict import Verdict
    from .._stats.folds import Fold
    from .choose import Matrices
    from .crossfit import OutOfFold

_ANEW = "Train with the model that made it (model=...), which is fitted anew in every fold."
_ALL_GENES = "Start from all genes; they are chosen again in every fold."


@dataclass(frozen=True)
class TrainingCells:
    """What is known of the labeled cells.

    Parameters
    ----------
    y
        Label of each cell, 1 sensitive and 0 resistant.
    samples
        Sample of each cell, as `.obs` names it.
    verdict
        What the design allows to conclude.
    keys
        Names of the columns that were read.
    units
        What is held out as one: samples, where those that seem to be one patient share a name.
    copied
        Mask of cells that are copies, or all but copies, of cells of another unit; `None` where no counts are read.
    table
        The patients, over which an embedding is compared with the label.
    """

    y: np.ndarray
    samples: np.ndarray
    verdict: Verdict
    keys: dict[str, str]
    units: np.ndarray
    copied: np.ndarray | None = None
    table: UnitTable | None = None

    def weigh(self, use_rep: str, values: np.ndarray) -> TrainingCells:
        """The same cells, with what is to be said against an embedding that this package did not make in the verdict."""
        verdict = self.verdict.with_cautions(f"{use_rep}: {fitted_elsewhere(use_rep)}.")
        told = "" if self.table is None else knows_labels(values, self.table)
        if told:
            reason = f"{use_rep}: {told}, so that it may have been made with the labels."
            verdict = verdict.lowered(reason, _ANEW)
        return replace(self, verdict=verdict)

    def folds(self, rng: int) -> list[Fold]:
        """Folds that hold out whole samples and learn from no cell that stands in two of them; each has both classes."""
        folds = strict_folds(self.y, self.units, rng=rng)
        if self.copied is None or not self.copied.any():
            return folds
        folds = [replace(fold, train=fold.train[~self.copied[fold.train]]) for fold in folds]
        return [fold for fold in folds if len(np.unique(self.y[fold.train])) == 2]

    def known(self, out: OutOfFold) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
        """Held-out logits of cells that belong to one sample for certain, and scores of samples; these from the cells, if `None`.

        A copied cell is recognized by the other cells of the sample that it was copied from.
        """
        samples = out.samples, out.sample_logit
        if self.copied is None or not self.copied.any():
            return out.logit, samples
        over_samples = out.setting is not None and out.setting.kind in OVER_SAMPLES
        return np.where(self.copied, np.nan, out.logit), samples if over_samples else None


def strict_folds(y: np.ndarray, groups: np.ndarray, *, rng: int) -> list[Fold]:
    """Folds that hold out whole samples, as `tl.evaluate` does; those that leave one class to learn from are left out."""
    if len(np.unique(groups)) < 2:
        return []
    return [fold for fold in leave_group_out(y, groups, rng=rng) if len(np.unique(y[fold.train])) == 2]


def read_training_cells(
    obs: pd.DataFrame, y: np.ndarray, samples: np.ndarray, matrices: Matrices, *, label_key: str, group_key: str
) -> TrainingCells:
    """Judge the labeled cells before anything is learned from them, as `tl.evaluate` does.

    Parameters
    ----------
    obs, y, samples
        Table, label and sample of the labeled cells.
    matrices
        Readers of their profiles.
    label_key, group_key
        Columns of `obs` that hold the two.
    """
    keys = {"label_key": label_key, "group_key": group_key}
    how: dict[str, Any] = {"group_key": group_key, "label_key": label_key}
    try:
        source = matrices.labeled()
    except ValueError:  # an embedding without any matrix of profiles
        found = assess(obs, y, **how)
        return TrainingCells(y, samples, found.verdict, keys, samples, table=found.confounding.table)
    doubles = Doubles(source)
    units = doubles.join(samples, y)
    together = obs if units is samples else obs.assign(**{group_key: units})
    found = assess(together.assign(**measured(doubles.qc)), y, **how)
    twice = doubles.cautions(units)
    for text in twice:
        warn(text)
    verdict = found.verdict.with_cautions(*twice, *genes_chosen_before(matrices.adata))
    chosen = chosen_by_label(source, found.confounding.table)
    if chosen:
        verdict = verdict.lowered(f"{chosen}.", _ALL_GENES)
    copied = shared_profiles(doubles.same_hashes(), units)
    return TrainingCells(y, samples, verdict, keys, units, copied, found.confounding.table)
