"""State or sensitivity? Erase the treatment from the embedding and see what is left of the score.

Many data sets compare cells before and after treatment: a score may then read what the drug did to a cell, not whether
the cell would have responded. Everything is fitted within training folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from .auroc import Interval, clustered_auroc
from .erasure import fit_eraser
from .groups import balanced_weights, check_labels, encode_groups, equal_weights, groups_per_class
from .metrics import GroupSums

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from .groups import BoolArray, FloatArray, IntArray

    Embed: TypeAlias = Callable[[IntArray, IntArray], tuple[FloatArray, FloatArray]]

StateVerdict = Literal["state", "mixed", "pre-treatment signal", "unknown"]
KEPT, LOST = 0.75, 0.25
"""Shares of the AUROC above one half that count as kept and as lost."""


@dataclass(frozen=True)
class StateControl:
    """What is left of a score when the treatment cannot be read from it."""

    verdict: StateVerdict
    reason: str
    auroc: Interval
    """Of held-out cells, as is."""
    erased: Interval
    """With the treatment erased."""
    pretreatment: Interval
    """Trained and tested on pre-treatment cells alone."""
    treated: Interval
    """Of the question "was the cell treated?", answered by the response score."""
    treated_erased: Interval
    """The same after erasure: close to 0.5 if the erasure holds in held-out samples."""
    label_treatment_correlation: float
    n_cells: int
    n_unknown: int

    def table(self) -> pd.DataFrame:
        """The five AUROCs with limits and numbers of samples, ready to be plotted."""
        import pandas as pd

        names = ("auroc", "erased", "pretreatment", "treated", "treated_erased")
        found = {name: getattr(self, name) for name in names}
        rows = {k: {"value": v.value, "low": v.low, "high": v.high, "n_samples": v.n_groups} for k, v in found.items()}
        return pd.DataFrame.from_dict(rows, orient="index")


def state_control(
    embed: Embed,
    y: ArrayLike,
    treated: ArrayLike,
    groups: ArrayLike,
    folds: Sequence[tuple[IntArray, IntArray]],
) -> StateControl:
    """Tell recognition of the treated state from prediction of sensitivity.

    Parameters
    ----------
    embed
        `embed(train, test)` gives the embeddings of two sets of rows, with everything fitted to the first.
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    treated
        Whether the cell was exposed to the drug before it was measured: 1, 0, or `NaN` where unknown.
    groups
        Group (sample) of each cell.
    folds
        Pairs of training and test rows that keep groups whole.

    Returns
    -------
    AUROCs and the verdict: `state`, `mixed`, `pre-treatment signal`, or `unknown` where nothing can be concluded.

    Raises
    ------
    ValueError
        Shapes differ, or a fold has a group on both sides.
    """
    labels = np.asarray(y)
    n = len(labels)
    labels = check_labels(labels, n)
    exposure = np.asarray(treated, dtype=np.float64)
    codes, _ = encode_groups(groups, n)
    if exposure.shape != (n,) or not np.isin(exposure[~np.isnan(exposure)], (0, 1)).all():
        msg = f"`treated` must be 1, 0 or NaN for each of {n} cells, found shape {exposure.shape}."
        raise ValueError(msg)
    for train, test in folds:
        if shared := np.intersect1d(codes[train], codes[test]).size:
            msg = f"{shared} samples are on both sides of a fold; the control needs folds that keep samples whole."
            raise ValueError(msg)
    known = ~np.isnan(exposure)
    scores = _scores(embed, labels, codes, folds, known)
    erased = _scores(embed, labels, codes, folds, known, erase=exposure)
    early = known & (exposure == 0)
    before = np.full(n, np.nan)
    if min(groups_per_class(labels[early], codes[early])) >= 2:
        before = _scores(embed, labels, codes, folds, early)
    correlation = _correlation(labels[known], exposure[known])
    intervals = {
        "auroc": _auroc(labels, scores, codes),
        "erased": _auroc(labels, erased, codes),
        "pretreatment": _auroc(labels, before, codes),
        "treated": _auroc(exposure, scores, codes),
        "treated_erased": _auroc(exposure, erased, codes),
    }
    verdict, reason = _judge(intervals, exposure[known], labels[known], correlation)
    return StateControl(
        verdict=verdict,
        reason=reason,
        label_treatment_correlation=correlation,
        n_cells=int(known.sum()),
        n_unknown=int((~known).sum()),
        **intervals,
    )


def _scores(
    embed: Embed,
    y: IntArray,
    codes: IntArray,
    folds: Sequence[tuple[IntArray, IntArray]],
    use: BoolArray,
    *,
    erase: FloatArray | None = None,
) -> FloatArray:
    """Out-of-fold logits of the cells in `use`; `NaN` where a fold has one class to learn from."""
    out = np.full(len(y), np.nan)
    for all_train, all_test in folds:
        train, test = all_train[use[all_train]], all_test[use[all_test]]
        if len(test) == 0 or len(np.unique(y[train])) < 2:
            continue
        known, new = embed(train, test)
        if erase is not None:
            weights = equal_weights(np.unique(codes[train], return_inverse=True)[1])
            eraser = fit_eraser(known, erase[train], weights)
            known, new = eraser.transform(known), eraser.transform(new)
        out[test] = _fit_logistic(known, y[train], codes[train]).decision_function(new)
    return out


def _fit_logistic(X: FloatArray, y: IntArray, codes: IntArray) -> Any:
    """L2 logistic regression on the standardized embedding; classes and the groups within them weigh the same."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Regularized well: embeddings have more dimensions than there are groups.
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    return model.fit(X, y, logisticregression__sample_weight=balanced_weights(y, codes))


def _auroc(y: FloatArray | IntArray, scores: FloatArray, codes: IntArray) -> Interval:
    from scipy.stats import rankdata

    rows = np.isfinite(scores) & np.isfinite(y)
    if len(np.unique(y[rows])) < 2:
        return Interval(np.nan, np.nan, np.nan, len(np.unique(codes[rows])))
    ranks = rankdata(scores[rows]) / (rows.sum() + 1)
    return clustered_auroc(GroupSums(y[rows], ranks, codes[rows])).interval()


def _correlation(y: IntArray, treated: FloatArray) -> float:
    if len(y) == 0 or y.min() == y.max() or treated.min() == treated.max():
        return np.nan
    return float(np.corrcoef(y, treated)[0, 1])


def _judge(
    found: dict[str, Interval], treated: FloatArray, y: IntArray, correlation: float
) -> tuple[StateVerdict, str]:
    whole, erased, before = found["auroc"], found["erased"], found["pretreatment"]
    if len(treated) == 0:
        return "unknown", "For no cell is it known whether it was measured before or after treatment."
    if treated.min() == 1:
        return (
            "unknown",
            "All cells were measured after treatment: what the drug did and what was there before look the same.",
        )
    if len(np.unique(y)) == 2 and abs(correlation) > 1 - 1e-9:
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
