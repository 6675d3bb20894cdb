"""Calls with a stated error level: conformal prediction sets whose unit is the sample, and risk against coverage.

A cell's set holds each class that its score does not contradict at error level `alpha`: {sensitive}, {resistant}, both
(uncertain) or none (unlike either class: uncertain, with a flag). Cells of one sample are not exchangeable with cells of
a new one, so samples are the unit: quantiles of cells alone would be overconfident.

Sources: Dunn, Wasserman & Ramdas (2023, arXiv:1809.07441) for pooled distribution functions of two-layer data; Lee, Barber
& Willett (arXiv:2306.06342) for hierarchical conformal prediction; Vovk et al. (2005) for class-conditional (Mondrian)
sets; Geifman & El-Yaniv (2017, arXiv:1705.08500) for risk against coverage.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._core.keys import RESISTANT, RESPONSE_CLASSES, SENSITIVE, UNCERTAIN
from .._core.log import warn
from .groups import State, check_labels, check_scores, encode_groups, equal_weights, weighted_quantile

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from .groups import BoolArray, FloatArray, IntArray

MIN_SAMPLES_POOLED = 4
"""Held-out samples per class that the pooled mode asks for: with fewer, a single sample decides the threshold."""
MIN_CELLS = 20
"""Cells per class that `unit="cell"` asks for at the least."""
_LEVELS = np.linspace(0.5, 1.0, 501)
_GRID = 1_000


@dataclass(frozen=True, eq=False)
class Conformal(State):
    """Thresholds on the logit that give each class a stated error level.

    `thresholds[s]` belongs to stratum `s` (row 0: all cells): "sensitive" is in the set of a cell if its logit is at
    least `thresholds[s, 0]`, "resistant" if it is at most `thresholds[s, 1]`.
    """

    status: str
    """`"OK"` or `"TOO_FEW_SAMPLES"`; then every cell is uncertain and `reason` says what is missing."""
    reason: str
    alpha: float
    unit: str
    guarantee: bool
    out_of_fold: bool
    n_sensitive: int
    n_resistant: int
    needed: int
    strata: tuple[str, ...]
    """Strata with thresholds of their own, rows 1, 2, ... of `thresholds`; others use row 0."""
    thresholds: FloatArray

    @property
    def available(self) -> bool:
        """Whether there were enough samples for the stated error level."""
        return self.status == "OK"

    def sets(self, logits: ArrayLike, strata: ArrayLike | None = None) -> BoolArray:
        """Prediction sets: columns sensitive, resistant; shape `(n, 2)`.

        Parameters
        ----------
        logits
            Scores of the head, larger = more sensitive.
        strata
            Cell type of each cell; types without thresholds of their own use those of all cells.
        """
        z = check_scores(logits, allow_nan=True)
        if not self.available:
            return np.ones((len(z), 2), dtype=bool)
        rows = _stratum_rows(self.strata, strata, len(z))
        low, high = self.thresholds[rows].T
        # A score that is missing excludes nothing.
        return np.column_stack([(z >= low) | np.isnan(z), (z <= high) | np.isnan(z)])

    def calls(self, logits: ArrayLike, strata: ArrayLike | None = None) -> tuple[NDArray[np.str_], BoolArray]:
        """Call of each cell, and whether its set was empty (unlike both classes, therefore uncertain).

        Parameters
        ----------
        logits
            Scores of the head, larger = more sensitive.
        strata
            Cell type of each cell.
        """
        sets = self.sets(logits, strata)
        one = sets.sum(axis=1) == 1
        call = np.where(one, np.where(sets[:, 0], SENSITIVE, RESISTANT), UNCERTAIN)
        return call, np.asarray(~sets.any(axis=1))

    def statement(self) -> str:
        """What the calls promise, in one sentence for tables and reports."""
        if not self.available:
            return f"No error level can be stated: {self.reason}."
        if self.unit == "cell":
            return (
                f"Calls are wrong for at most {self.alpha:.0%} of the cells of each class, in these samples only; "
                "nothing is said about new samples."
            )
        scope = f"a random cell of a new sample, in each class ({self.n_sensitive} sensitive, {self.n_resistant} resistant samples)"
        if not self.guarantee:
            return f"Calls aim at an error of {self.alpha:.0%} for {scope}; an estimate, not a guarantee."
        caution = (
            " if scores of refitted heads are exchangeable with those of the final one" if self.out_of_fold else ""
        )
        return f"Calls are wrong for at most {self.alpha:.0%} of cells, on average over {scope}{caution}."


def fit_conformal(
    logits: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    *,
    alpha: float = 0.1,
    unit: Literal["sample", "cell"] = "sample",
    guarantee: bool = False,
    strata: ArrayLike | None = None,
    out_of_fold: bool = True,
) -> Conformal:
    """Find the logits from which a class may be excluded at error level `alpha`, for each class on its own.

    Every sample has the same mass. `guarantee=True` takes the `1 - alpha` quantile with the mass of one unseen sample at
    infinity: for exchangeable samples, a random cell of a new sample is then covered with probability `1 - alpha` or
    more, whatever the distribution. The default takes the quantile at which samples that are left out in turn are covered
    at `1 - alpha` on average: narrower sets, coverage close to nominal, no proof. Sets of out-of-fold scores are
    cross-conformal: the proof then needs that refitting does not change the scale of the scores.

    Parameters
    ----------
    logits
        Scores of cells by a head that was fitted without their sample, shape `(n,)`.
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    groups
        Sample (patient, cell line) of each cell, shape `(n,)`.
    alpha
        Error level.
    unit
        `"sample"`, or `"cell"` where labels truly vary by cell within samples and no new sample is to be called; warns.
    guarantee
        Finite-sample guarantee over samples.
    strata
        Cell type of each cell. Types with enough samples of both classes get thresholds of their own.
    out_of_fold
        Scores come from heads refitted without the sample (`True`) or from one head that saw none of them.

    Returns
    -------
    Thresholds; with too few samples `status` is `"TOO_FEW_SAMPLES"`, `reason` says what is missing and all cells are
    uncertain. Needed per class: `ceil(1 / alpha) - 1` samples with the guarantee, 4 without.

    Raises
    ------
    ValueError
        Shapes or values are not as described.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(np.arange(12), 50)
    >>> y = groups % 2
    >>> fitted = fit_conformal(rng.normal(4.0 * y - 2), y, groups)
    >>> fitted.calls([-3.0, 0.0, 3.0])[0].tolist()
    ['resistant', 'uncertain', 'sensitive']
    """
    z = check_scores(logits)
    labels = check_labels(y, len(z))
    codes, _ = encode_groups(groups, len(z))
    if not 0 < alpha < 0.5:
        msg = f"`alpha` must be between 0 and 0.5, found {alpha}."
        raise ValueError(msg)
    if unit not in ("sample", "cell"):
        msg = f"`unit` must be 'sample' or 'cell', found {unit!r}."
        raise ValueError(msg)
    if unit == "cell":
        warn(
            "unit='cell' treats cells of a sample as independent: the error level holds for further cells of these "
            "samples and is too optimistic for new ones. Use unit='sample' unless labels truly vary by cell."
        )
        codes = np.arange(len(z), dtype=np.intp)
    needed = _needed(alpha, unit=unit, guarantee=guarantee)
    n_resistant, n_sensitive = (len(np.unique(codes[labels == k])) for k in (0, 1))
    common: dict[str, Any] = {
        "alpha": float(alpha),
        "unit": unit,
        "guarantee": bool(guarantee),
        "out_of_fold": bool(out_of_fold),
        "n_sensitive": n_sensitive,
        "n_resistant": n_resistant,
        "needed": needed,
    }
    if min(n_sensitive, n_resistant) < needed:
        what = {"sample": "held-out samples", "cell": "held-out cells"}[unit]
        reason = (
            f"an error level of {alpha:.0%}{' with guarantee' if guarantee else ''} needs {needed} {what} of each class, "
            f"found {n_sensitive} sensitive and {n_resistant} resistant"
        )
        return Conformal(
            status="TOO_FEW_SAMPLES", reason=reason, strata=(), thresholds=np.array([[-np.inf, np.inf]]), **common
        )
    exact = guarantee or unit == "cell"
    rows, names = [_thresholds(z, labels, codes, alpha, exact=exact)], []
    if strata is not None:
        types, type_names = encode_groups(strata, len(z))
        for index, name in enumerate(type_names):
            inside = types == index
            if all(len(np.unique(codes[inside & (labels == k)])) >= needed for k in (0, 1)):
                rows.append(_thresholds(z[inside], labels[inside], codes[inside], alpha, exact=exact))
                names.append(str(name))
    return Conformal(status="OK", reason="", strata=tuple(names), thresholds=np.array(rows), **common)


def _needed(alpha: float, *, unit: str, guarantee: bool) -> int:
    """Units per class below which the quantile with a mass at infinity is infinite, or the pooled one meaningless."""
    finite = ceil(1 / alpha - 1e-9) - 1
    if unit == "cell":
        return max(finite, MIN_CELLS)
    return finite if guarantee else MIN_SAMPLES_POOLED


def _stratum_rows(known: tuple[str, ...], strata: ArrayLike | None, n: int) -> IntArray:
    rows = np.zeros(n, dtype=np.intp)
    if strata is None:
        return rows
    values = np.asarray(strata).astype(str)
    if values.shape != (n,):
        msg = f"`strata` must name the cell type of each of {n} cells, found shape {values.shape}."
        raise ValueError(msg)
    for row, name in enumerate(known, start=1):
        rows[values == name] = row
    return rows


def _thresholds(z: FloatArray, y: IntArray, codes: IntArray, alpha: float, *, exact: bool) -> tuple[float, float]:
    """Least logit of "sensitive", greatest logit of "resistant"."""
    # Nonconformity is the score against the class: -logit for sensitive, logit for resistant.
    low = -_quantile(-z[y == 1], codes[y == 1], alpha, exact=exact)
    return low, _quantile(z[y == 0], codes[y == 0], alpha, exact=exact)


def _quantile(scores: FloatArray, codes: IntArray, alpha: float, *, exact: bool) -> float:
    codes = np.unique(codes, return_inverse=True)[1]
    weights = equal_weights(codes)
    if exact:
        return weighted_quantile(scores, weights, 1 - alpha, extra=1.0)
    return weighted_quantile(scores, weights, _left_out_level(scores, codes, weights, alpha))


def _left_out_level(scores: FloatArray, codes: IntArray, weights: FloatArray, alpha: float) -> float:
    """Smallest level at which each sample, left out in turn, is covered at `1 - alpha` on average.

    The plain level `1 - alpha` covers new samples too rarely, the more so the fewer and the more different they are.
    """
    order = np.argsort(scores, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    at = np.unique(np.minimum(np.searchsorted(share, np.linspace(0, 1, _GRID)), len(scores) - 1))
    grid = scores[order][at]
    n = int(codes.max()) + 1
    by_sample = np.split(scores[np.argsort(codes, kind="stable")], np.cumsum(np.bincount(codes))[:-1])
    # Distribution function of each sample on the grid, (samples, grid).
    inside = np.array([np.searchsorted(np.sort(values), grid, side="right") / len(values) for values in by_sample])
    covered = np.zeros(len(_LEVELS))
    total = inside.sum(axis=0)
    for own in inside:
        rest = (total - own) / (n - 1)
        index = np.searchsorted(rest, np.minimum(_LEVELS, rest[-1]) - 1e-12)
        covered += own[np.minimum(index, len(grid) - 1)] / n
    enough = np.flatnonzero(covered >= 1 - alpha - 1e-12)
    return float(_LEVELS[enough[0]]) if len(enough) else 1.0


def coverage_table(
    conformal: Conformal, logits: ArrayLike, y: ArrayLike, groups: ArrayLike, strata: ArrayLike | None = None
) -> pd.DataFrame:
    """Check calls against labels, every sample weighing the same.

    Parameters
    ----------
    conformal
        Fitted thresholds.
    logits
        Scores of cells that were not used to fit `conformal`.
    y
        1 = sensitive, 0 = resistant.
    groups
        Sample of each cell.
    strata
        Cell type of each cell.

    Returns
    -------
    Rows `sensitive`, `resistant`, `all`; columns `coverage` (the true class is in the set), `called` (exactly one class),
    `error_of_called`, `empty`, `n_cells`, `n_samples`.
    """
    import pandas as pd

    sets = conformal.sets(logits, strata)
    labels = check_labels(y, len(sets))
    codes, _ = encode_groups(groups, len(sets))
    true = sets[np.arange(len(sets)), np.where(labels == 1, 0, 1)]
    single = sets.sum(axis=1) == 1
    rows = {}
    for name, inside in zip((*RESPONSE_CLASSES, "all"), (labels == 1, labels == 0, np.ones(len(labels), dtype=bool))):
        own = np.unique(codes[inside], return_inverse=True)[1]
        if len(own) == 0:
            continue
        w = equal_weights(own)
        called = np.average(single[inside], weights=w)
        wrong = np.average(single[inside] & ~true[inside], weights=w)
        rows[name] = {
            "coverage": np.average(true[inside], weights=w),
            "called": called,
            "error_of_called": wrong / called if called > 0 else np.nan,
            "empty": np.average(~sets[inside].any(axis=1), weights=w),
            "n_cells": int(inside.sum()),
            "n_samples": int(own.max()) + 1,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


@dataclass(frozen=True)
class RiskCoverage:
    """Error among the cells that are called, as ever less certain cells are included."""

    table: pd.DataFrame
    """Rows by decreasing confidence: `coverage`, `risk`, `confidence`, `n_cells`."""
    aurc: float
    """Mean risk over coverage; smaller is better."""
    aurc_random: float
    """Of a confidence that knows nothing: the error of all cells."""
    aurc_best: float
    """Of a confidence that ranks every right call above every wrong one."""


def risk_coverage(
    y: ArrayLike, prob: ArrayLike, groups: ArrayLike | None = None, *, n_points: int = 100
) -> RiskCoverage:
    """Trade the share of cells that are called against the error among them.

    Parameters
    ----------
    y
        1 = sensitive, 0 = resistant, shape `(n,)`.
    prob
        P(sensitive) of held-out cells; confidence is its distance from 0.5.
    groups
        Sample of each cell: every sample weighs the same. `None` weighs cells.
    n_points
        Most rows of the table.

    Returns
    -------
    The curve and its areas. Cells of equal confidence enter together, so that their order cannot matter.

    Examples
    --------
    >>> curve = risk_coverage([1, 1, 0, 0], [0.9, 0.6, 0.7, 0.2])
    >>> curve.table["risk"].round(2).tolist()
    [0.0, 0.0, 0.33, 0.25]
    """
    import pandas as pd

    p = check_scores(prob, "prob")
    labels = check_labels(y, len(p))
    if len(p) == 0:
        msg = "`prob` holds no cells."
        raise ValueError(msg)
    weights = np.ones(len(p)) if groups is None else equal_weights(encode_groups(groups, len(p))[0])
    weights = weights / weights.sum()
    wrong = ((p >= 0.5) != (labels == 1)) * weights
    # Rounding: 0.9 and 0.1 are equally confident although their floats differ from 0.5 by different amounts.
    confidence = np.round(np.abs(p - 0.5), 12)
    level, index = np.unique(-confidence, return_inverse=True)
    mass = np.bincount(index, weights=weights)
    coverage = np.cumsum(mass)
    risk = np.cumsum(np.bincount(index, weights=wrong)) / coverage
    total = wrong.sum()
    rows = np.unique(np.linspace(0, len(level) - 1, min(n_points, len(level))).round().astype(int))
    cells = np.cumsum(np.bincount(index))
    table = pd.DataFrame(
        {"coverage": coverage[rows], "risk": risk[rows], "confidence": -level[rows] + 0.5, "n_cells": cells[rows]}
    )
    # Best order: no error until only wrong calls remain; the mean of max(0, 1 - (1 - e) / c) over coverage c.
    best = total + (1 - total) * np.log1p(-total) if total < 1 else 1.0
    return RiskCoverage(table, float((risk * mass).sum()), float(total), float(best))
