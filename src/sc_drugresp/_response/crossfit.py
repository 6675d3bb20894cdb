"""The one cross-validation loop: heads that never saw the cells they score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from .fit import fit_head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._stats.folds import Fold
    from .features import Features

    HeadFitter = Callable[..., Any]
    """`(x, y, groups, *, rng, **options)` to an object with `logit(x)`."""


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for cells by heads that did not see them.

    Parameters
    ----------
    logit
        Log-odds of `sensitive`, the mean where several folds tested the cell; NaN where no head could score it.
    prob
        P(sensitive) before calibration, the mean over folds; 0.5 where a head could not score the cell (no embedding, or
        one class in training), NaN where no fold tested it.
    fold
        Index of the last fold that tested the cell, -1 for none.
    notes
        What was unusual, in words.
    """

    logit: np.ndarray
    prob: np.ndarray
    fold: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def scored(self) -> np.ndarray:
        """Mask of the tested cells."""
        return self.fold >= 0


def mean_of(repeats: Sequence[OutOfFold]) -> OutOfFold:
    """Mean predictions over repeats of a split that test the same cells; folds are those of the first."""
    if len(repeats) == 1:
        return repeats[0]
    logit = np.mean([out.logit for out in repeats], axis=0)
    prob = np.mean([out.prob for out in repeats], axis=0)
    notes = dict.fromkeys(note for out in repeats for note in out.notes)
    return OutOfFold(logit, prob, repeats[0].fold, tuple(notes))


def cross_validate(
    features: Features,
    y: np.ndarray,
    groups: np.ndarray,
    folds: Sequence[Fold],
    *,
    head: str | HeadFitter = "logistic",
    rng: int = 0,
    advance: Callable[[int], Any] | None = None,
    **options: Any,
) -> OutOfFold:
    """Fit on the training cells of every fold and predict its test cells.

    Parameters
    ----------
    features
        What a head learns from; whatever is fitted to cells is fitted to the training cells of each fold.
    y
        1 sensitive, 0 resistant, per cell.
    groups
        Sample of each cell: the unit of balancing and of tuning.
    folds
        The split. A cell that is tested more than once gets the mean of its predictions.
    head, options
        Name of a head (see `fit_head`) and its options, or a fitter.
    rng
        Seed of the head.
    advance
        Called with 1 after each fold, for a progress bar.

    Raises
    ------
    ValueError
        A fold tests cells that it learns from.
    """
    fit = head if callable(head) else partial(fit_head, head)  # type: ignore[arg-type]
    logits, probs = np.zeros(len(y)), np.zeros(len(y))
    times, usable = np.zeros(len(y), dtype=np.int64), np.zeros(len(y), dtype=np.int64)
    last = np.full(len(y), -1, dtype=np.int64)
    abstained, notes = 0, []
    for number, fold in enumerate(folds):
        if np.intersect1d(fold.train, fold.test).size:
            msg = f"Fold {fold.name!r} tests cells that it learns from."
            raise ValueError(msg)
        last[fold.test] = number
        times[fold.test] += 1
        if len(np.unique(y[fold.train])) < 2:
            notes.append(f"fold {fold.name!r} has one class in training; its cells get P(sensitive) = 0.5")
            probs[fold.test] += 0.5
        else:
            x_train, x_test = features.split(fold.train, fold.test)
            logit = fit(x_train, y[fold.train], groups[fold.train], rng=rng, **options).logit(x_test)
            empty = np.isnan(logit)
            abstained += int(empty.sum())
            logits[fold.test] += logit
            usable[fold.test] += 1
            probs[fold.test] += np.where(empty, 0.5, expit(logit))
        if advance is not None:
            advance(1)
    if abstained:
        notes.append(f"{abstained} cells have no embedding; they get P(sensitive) = 0.5 and are scored like all others")
    logit = np.where(usable > 0, logits / np.maximum(usable, 1), np.nan)
    prob = np.where(times > 0, probs / np.maximum(times, 1), np.nan)
    return OutOfFold(logit, prob, last, tuple(notes))
