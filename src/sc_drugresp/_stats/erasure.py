"""State or sensitivity? Erase the treatment from the embedding and see what is left of the score.

Many data sets compare cells before and after treatment: a score may then read what the drug did to a cell, not whether
the cell would have responded. The treatment concept is erased in closed form (LEACE: Belrose et al. 2023,
arXiv:2306.03819): the smallest linear change of the embedding after which no linear classifier of the training cells can
tell the concept. Everything is fitted within training folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from .groups import State, check_labels, encode_groups, equal_weights, samples_per_class
from .intervals import GroupSums, Interval, clustered_auroc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from .groups import BoolArray, FloatArray, IntArray

StateVerdict = Literal["state", "mixed", "pre-treatment signal", "unknown"]
KEPT, LOST = 0.75, 0.25
"""Shares of the AUROC above one half that count as kept and as lost."""
_SINGULAR = 1e-8


class Scorer(Protocol):
    """A fitted head."""

    def logit(self, x: Any, /) -> FloatArray:
        """Log-odds of `sensitive`."""


@dataclass(frozen=True, eq=False)
class Eraser(State):
    """An affine map that removes a concept: `x - (x - mean) @ right @ left`."""

    mean: FloatArray
    right: FloatArray
    """`(d, r)`, reads the concept."""
    left: FloatArray
    """`(r, d)`, what is subtracted for it."""

    @property
    def rank(self) -> int:
        """Number of directions that are removed."""
        return self.left.shape[0]

    def transform(self, X: ArrayLike) -> FloatArray:
        """Erase the concept from embeddings.

        Parameters
        ----------
        X
            Embedding, `(n, d)`.
        """
        cells = np.asarray(X, dtype=np.float64)
        return cells - ((cells - self.mean) @ self.right) @ self.left


def fit_eraser(X: ArrayLike, concept: ArrayLike, weights: ArrayLike | None = None) -> Eraser:
    """Find the smallest linear change after which `concept` and the embedding are uncorrelated.

    With `S` the covariance of the embedding, `C` its covariance with the concept and `W` the inverse square root of `S`,
    the change removes the projection onto the columns of `W C` in whitened space. `S` is shrunk (Ledoit and Wolf), which
    leaves the erasure exact and keeps it stable with fewer cells than dimensions.

    Parameters
    ----------
    X
        Embedding of the training cells, `(n, d)`.
    concept
        Numbers `(n,)` or `(n, c)`, or names of categories `(n,)`.
    weights
        Weight of each cell. `None` weighs cells equally.

    Returns
    -------
    The map; it changes nothing if the concept is constant.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> treated = np.arange(100) % 2
    >>> X = rng.normal(size=(100, 3)) + treated[:, None]
    >>> erased = fit_eraser(X, treated).transform(X)
    >>> bool(np.allclose(erased[treated == 0].mean(0), erased[treated == 1].mean(0)))
    True
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    cells = np.asarray(X, dtype=np.float64)
    columns = _columns(concept)
    if cells.ndim != 2 or len(columns) != len(cells) or len(cells) == 0 or not np.isfinite(cells).all():
        msg = (
            f"Expected a finite embedding with one concept value per cell, found shapes {cells.shape}, {columns.shape}."
        )
        raise ValueError(msg)
    w = np.ones(len(cells)) if weights is None else np.asarray(weights, dtype=np.float64)
    w = w / w.sum()
    mean = w @ cells
    centered = cells - mean
    rooted = centered * np.sqrt(w * len(w))[:, None]
    covariance = rooted.T @ rooted / len(w)
    amount = ledoit_wolf_shrinkage(rooted, assume_centered=True)
    average = np.trace(covariance) / len(mean)
    covariance = (1 - amount) * covariance + amount * average * np.eye(len(mean))
    values, vectors = np.linalg.eigh(covariance)
    keep = values > _SINGULAR * max(values[-1], 0.0)
    vectors, root = vectors[:, keep], np.sqrt(values[keep])
    cross = (centered * w[:, None]).T @ (columns - w @ columns)
    # Only directions in which the embedding varies can carry the concept; work in their whitened coordinates.
    directions, strength, _ = np.linalg.svd((vectors / root).T @ cross, full_matrices=False)
    spread = np.sqrt(w @ np.square(columns - w @ columns)).max(initial=0.0)
    directions = directions[:, strength > _SINGULAR * spread] if spread > 0 else directions[:, :0]
    return Eraser(mean, (vectors / root) @ directions, (vectors * root @ directions).T)


def _columns(concept: ArrayLike) -> FloatArray:
    """Numbers as they are, categories as indicator columns."""
    values = np.asarray(concept)
    if values.dtype.kind in "biuf":
        numbers = values.astype(np.float64)
        return numbers[:, None] if numbers.ndim == 1 else numbers
    names, codes = np.unique(values.astype(str), return_inverse=True)
    return np.eye(len(names))[codes.reshape(-1)][:, 1:]


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

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values for `.uns` and cards."""
        table = self.table().astype(object).where(lambda frame: frame.notna(), None)
        correlation = self.label_treatment_correlation
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "table": table.to_dict(orient="index"),
            "label_treatment_correlation": None if np.isnan(correlation) else correlation,
            "n_cells": self.n_cells,
            "n_unknown": self.n_unknown,
        }


def state_control(
    X: ArrayLike | Callable[[IntArray, IntArray], tuple[FloatArray, FloatArray]],
    y: ArrayLike,
    treated: ArrayLike,
    groups: ArrayLike,
    folds: Sequence[Any],
    *,
    fit: Callable[[FloatArray, IntArray, Any], Scorer] | None = None,
    concept: ArrayLike | None = None,
    level: float = 0.95,
) -> StateControl:
    """Tell recognition of the treated state from prediction of sensitivity.

    Parameters
    ----------
    X
        Embedding `(n, d)`, or `embed(train, test)` that gives the embeddings of two sets of rows with everything fitted to
        the first.
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    treated
        Whether the cell was exposed to the drug before it was measured: 1, 0, or `NaN` where unknown.
    groups
        Sample of each cell.
    folds
        Pairs of training and test rows (or objects with `train` and `test`) that keep samples whole.
    fit
        `fit(X, y, groups)` returns a head with `logit(X)`. `None` is a logistic regression on the standardized embedding
        in which classes, and samples within them, weigh the same.
    concept
        What to erase, if finer than `treated`: time point or dose of each cell.
    level
        Of the intervals.

    Returns
    -------
    AUROCs and the verdict: `state`, `mixed`, `pre-treatment signal`, or `unknown` where nothing can be concluded.

    Raises
    ------
    ValueError
        Shapes differ, or a fold has a sample on both sides.
    """
    labels = np.asarray(y)
    n = len(labels)
    labels = check_labels(labels, n)
    exposure = np.asarray(treated, dtype=np.float64)
    codes, _ = encode_groups(groups, n)
    if exposure.shape != (n,) or not np.isin(exposure[~np.isnan(exposure)], (0, 1)).all():
        msg = f"`treated` must be 1, 0 or NaN for each of {n} cells, found shape {exposure.shape}."
        raise ValueError(msg)
    pairs = [_pair(fold) for fold in folds]
    for train, test in pairs:
        if shared := np.intersect1d(codes[train], codes[test]).size:
            msg = f"{shared} samples are on both sides of a fold; the control needs folds that keep samples whole."
            raise ValueError(msg)
    embed = X if callable(X) else _fixed(np.asarray(X, dtype=np.float64), n)
    known = ~np.isnan(exposure)
    to_erase = exposure if concept is None else np.asarray(concept)
    scores = _scores(embed, labels, codes, pairs, known, fit, None)
    erased = _scores(embed, labels, codes, pairs, known, fit, to_erase)
    early = known & (exposure == 0)
    before = np.full(n, np.nan)
    if min(samples_per_class(labels[early], codes[early])) >= 2:
        before = _scores(embed, labels, codes, pairs, early, fit, None)
    correlation = _correlation(labels[known], exposure[known])
    intervals = {
        "auroc": _auroc(labels, scores, codes, level),
        "erased": _auroc(labels, erased, codes, level),
        "pretreatment": _auroc(labels, before, codes, level),
        "treated": _auroc(exposure, scores, codes, level),
        "treated_erased": _auroc(exposure, erased, codes, level),
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


def _pair(fold: Any) -> tuple[IntArray, IntArray]:
    train, test = (fold.train, fold.test) if hasattr(fold, "train") else fold
    rows = [np.asarray(part) for part in (train, test)]
    first, second = (np.flatnonzero(part) if part.dtype == bool else part.astype(np.intp) for part in rows)
    return first, second


def _fixed(X: FloatArray, n: int) -> Callable[[IntArray, IntArray], tuple[FloatArray, FloatArray]]:
    if X.ndim != 2 or len(X) != n:
        msg = f"`X` must be an embedding of {n} cells, found shape {X.shape}."
        raise ValueError(msg)
    return lambda train, test: (X[train], X[test])


def _scores(
    embed: Callable[[IntArray, IntArray], tuple[FloatArray, FloatArray]],
    y: IntArray,
    codes: IntArray,
    pairs: list[tuple[IntArray, IntArray]],
    use: BoolArray,
    fit: Callable[[FloatArray, IntArray, Any], Scorer] | None,
    concept: Any,
) -> FloatArray:
    """Out-of-fold logits of the cells in `use`; `NaN` where a fold has one class to learn from."""
    out = np.full(len(y), np.nan)
    for all_train, all_test in pairs:
        train, test = all_train[use[all_train]], all_test[use[all_test]]
        if len(test) == 0 or len(np.unique(y[train])) < 2:
            continue
        X_train, X_test = embed(train, test)
        if concept is not None:
            eraser = fit_eraser(X_train, concept[train], equal_weights(np.unique(codes[train], return_inverse=True)[1]))
            X_train, X_test = eraser.transform(X_train), eraser.transform(X_test)
        out[test] = (fit or _Logistic)(X_train, y[train], codes[train]).logit(X_test)
    return out


class _Logistic:
    """L2 logistic regression on the standardized embedding; classes and the samples within them weigh the same."""

    def __init__(self, X: FloatArray, y: IntArray, groups: IntArray) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        weights = equal_weights(np.unique(groups * 2 + y, return_inverse=True)[1])
        weights = weights / np.bincount(y, weights=weights)[y] * len(y) / 2
        # Regularized well: embeddings have more dimensions than there are samples.
        self._model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        self._model.fit(X, y, logisticregression__sample_weight=weights)

    def logit(self, X: FloatArray, /) -> FloatArray:
        return np.asarray(self._model.decision_function(X), dtype=np.float64)


def _auroc(y: Any, scores: FloatArray, codes: IntArray, level: float) -> Interval:
    from scipy.stats import rankdata

    rows = np.isfinite(scores) & np.isfinite(np.asarray(y, dtype=np.float64))
    if len(np.unique(np.asarray(y)[rows])) < 2:
        return Interval(np.nan, np.nan, np.nan, len(np.unique(codes[rows])))
    ranks = rankdata(scores[rows]) / (rows.sum() + 1)
    return clustered_auroc(GroupSums(np.asarray(y)[rows].astype(np.int64), ranks, codes[rows])).interval(level)


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
