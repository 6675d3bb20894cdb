"""State or sensitivity? Erase the treatment from the features and see what is left of the score.

Many data sets compare cells before and after treatment: a score may then read what the drug did to a cell, not whether
the cell would have responded. The direction of the treatment is estimated in the training samples of each fold and erased
in closed form (LEACE: Belrose et al. 2023, arXiv:2306.03819).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import rankdata

from .._core.threads import one_thread
from .._response.crossfit import cross_validate
from .._response.fitters import HeadSetting, fit_setting
from .._stats.auroc import Interval, clustered_auroc
from .._stats.erasure import fit_eraser
from .._stats.groups import encode_groups, equal_weights, groups_per_class
from .._stats.metrics import GroupSums

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from .._response.features import Features
    from .._stats.folds import Fold

StateVerdict = Literal["state", "mixed", "pre-treatment signal", "unknown"]
KEPT, LOST = 0.75, 0.25
"""Shares of the AUROC above one half that count as kept and as lost."""
# Penalized well: embeddings have more dimensions than there are samples.
_fit = partial(fit_setting, HeadSetting("logistic", 0.01))


@dataclass(frozen=True)
class StateControl:
    """What is left of a score when the treatment cannot be read from it.

    Parameters
    ----------
    verdict, reason
        The conclusion, and why.
    aurocs
        `auroc` of held-out cells as is; `erased` with the treatment erased; `pretreatment` trained and tested on
        pre-treatment cells alone; `treated` of the question "was the cell treated?", answered by the response score;
        `treated_erased` the same after erasure, close to 0.5 if the erasure holds in held-out samples.
    label_treatment_correlation
        Between label and treatment over cells.
    n_cells, n_unknown
        Cells whose treatment is known, and unknown.
    """

    verdict: StateVerdict
    reason: str
    aurocs: dict[str, Interval]
    label_treatment_correlation: float
    n_cells: int
    n_unknown: int

    def table(self) -> pd.DataFrame:
        """The five AUROCs with limits and numbers of samples, ready to be plotted."""
        import pandas as pd

        rows = {name: vars(found) for name, found in self.aurocs.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename(columns={"n_groups": "n_samples"})


@dataclass(frozen=True)
class ErasedFeatures:
    """Features without what tells the concept in the training cells."""

    features: Features
    concept: np.ndarray
    groups: np.ndarray

    @property
    def name(self) -> str:
        """Name of the row."""
        return f"{self.features.name}, erased"

    def split(
        self, train: np.ndarray, test: np.ndarray, shown: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features of both parts, transformed by a map fitted to the first."""
        x_train, x_test = self.features.split(train, test, shown)
        there = np.isfinite(x_train).all(axis=1)  # a cell without counts has no embedding
        rows = (train if shown is None else shown)[there]
        weights = equal_weights(encode_groups(self.groups[rows])[0])
        eraser = fit_eraser(x_train[there], self.concept[rows], weights)
        return eraser.transform(x_train), eraser.transform(x_test)


@one_thread()
def state_control(
    features: Features, y: np.ndarray, treated: np.ndarray, groups: np.ndarray, folds: Sequence[Fold]
) -> StateControl:
    """Tell recognition of the treated state from prediction of sensitivity.

    Parameters
    ----------
    features
        What the head learns from.
    y
        1 sensitive, 0 resistant, shape `(n,)`.
    treated
        Whether the cell was exposed to the drug before it was measured: 1, 0, or NaN where unknown.
    groups
        Sample of each cell.
    folds
        Folds that keep samples whole.
    """
    codes, _ = encode_groups(groups)
    known = ~np.isnan(treated)

    def scores(which: Features, use: np.ndarray) -> np.ndarray:
        """Out-of-fold logits of the cells in `use`."""
        parts = [replace(f, train=f.train[use[f.train]], test=f.test[use[f.test]]) for f in folds]
        usable = [part for part in parts if len(part.test) and len(np.unique(y[part.train])) == 2]
        return cross_validate(which, y, codes, usable, head=_fit).logit

    whole = scores(features, known)
    erased = scores(ErasedFeatures(features, treated, codes), known)
    early = treated == 0
    before = np.full(len(y), np.nan)
    if min(groups_per_class(y[early], codes[early])) >= 2:
        before = scores(features, early)
    varying = min(len(np.unique(y[known])), len(np.unique(treated[known]))) == 2
    correlation = float(np.corrcoef(y[known], treated[known])[0, 1]) if varying else np.nan
    intervals = {
        "auroc": _auroc(y, whole, codes),
        "erased": _auroc(y, erased, codes),
        "pretreatment": _auroc(y, before, codes),
        "treated": _auroc(treated, whole, codes),
        "treated_erased": _auroc(treated, erased, codes),
    }
    verdict, reason = _judge(intervals, treated[known], correlation)
    return StateControl(
        verdict, reason, intervals, correlation, n_cells=int(known.sum()), n_unknown=int((~known).sum())
    )


def _auroc(y: np.ndarray, scores: np.ndarray, codes: np.ndarray) -> Interval:
    rows = np.isfinite(scores) & np.isfinite(y)
    if len(np.unique(y[rows])) < 2:
        return Interval(np.nan, np.nan, np.nan, len(np.unique(codes[rows])))
    ranks = rankdata(scores[rows]) / (rows.sum() + 1)
    return clustered_auroc(GroupSums(y[rows].astype(np.int64), ranks, codes[rows])).interval()


def _judge(found: dict[str, Interval], treated: np.ndarray, correlation: float) -> tuple[StateVerdict, str]:
    whole, erased, before = found["auroc"], found["erased"], found["pretreatment"]
    if len(treated) == 0:
        return "unknown", "For no cell is it known whether it was measured before or after treatment."
    if treated.min() == 1:
        return "unknown", (
            "All cells were measured after treatment: what the drug did and what was there before look the same."
        )
    if abs(correlation) > 1 - 1e-9:
        return "state", (
            "The label is the time point: every sensitive cell was measured on one side of the treatment and every resistant "
            "cell on the other, so any score reads the treated state."
        )
    if not _above(whole):
        return "unknown", f"There is no signal to explain: AUROC {_text(whole)}."
    if treated.max() == 0:
        return "pre-treatment signal", f"All cells were measured before treatment; AUROC {_text(whole)}."
    kept = (erased.value - 0.5) / (whole.value - 0.5)
    says = f"AUROC {_text(whole)} as is, {_text(erased)} with the treatment erased"
    if np.isfinite(before.value):
        says += f", {_text(before)} on pre-treatment cells alone"
    if _above(before):
        if kept >= KEPT or (before.value - 0.5) / (whole.value - 0.5) >= KEPT:
            return "pre-treatment signal", f"{says}: cells differ before the drug is given."
        return "mixed", f"{says}: part of the score is there before treatment, part is what the drug did."
    if kept <= LOST or (kept <= 0.5 and not _above(erased)):
        return "state", f"{says}: the score reads what the drug did to the cells."
    if not np.isfinite(before.value):
        return "unknown", f"{says}; pre-treatment samples of both classes are too few to show that it was there before."
    return "mixed", f"{says}: the signal is not the treatment alone, but it is not shown before treatment either."


def _above(interval: Interval) -> bool:
    return bool(np.isfinite(interval.low) and interval.low > 0.5)


def _text(interval: Interval) -> str:
    if not np.isfinite(interval.low):
        return f"{interval.value:.2f} (too few samples for an interval)"
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"
