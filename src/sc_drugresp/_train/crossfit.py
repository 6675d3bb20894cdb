"""Out-of-fold scores: what calibration, conformal sets and honest metrics are computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold

from .heads import HeadKind, fit_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._types import Embed

MAX_LEAVE_ONE_OUT = 20
N_SPLITS = 5


def group_folds(y: np.ndarray, groups: np.ndarray, *, rng: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Train and test rows that keep samples whole and leave both classes in training.

    One sample is left out at a time up to 20 samples, else there are 5 folds. A fold that would leave a single class
    to learn from is not made, so the list can be empty.
    """
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        return []
    splitter: Any = LeaveOneGroupOut()
    if n_groups > MAX_LEAVE_ONE_OUT:
        splitter = StratifiedGroupKFold(n_splits=N_SPLITS, shuffle=True, random_state=rng)
    folds = splitter.split(np.empty((len(y), 1)), y, groups)
    return [(train, test) for train, test in folds if len(np.unique(y[train])) == 2]


def cross_fit(
    kind: HeadKind, embed: Embed, y: np.ndarray, groups: np.ndarray, *, rng: int = 0, **options: Any
) -> np.ndarray:
    """Logit of each cell by a head that never saw its sample.

    Parameters
    ----------
    kind, options
        As in :func:`fit_head`.
    embed
        `embed(train, test)` gives the embeddings of two sets of rows, with whatever is fitted fitted to `train`.
    y, groups
        Label (1 sensitive, 0 resistant) and sample of each cell.

    Returns
    -------
    Array of shape `(n_cells,)`; NaN for samples that could not be left out.
    """
    out = np.full(len(y), np.nan)
    for train, test in group_folds(y, groups, rng=rng):
        x_train, x_test = embed(train, test)
        out[test] = fit_head(kind, x_train, y[train], groups[train], rng=rng, **options).logit(x_test)
    return out


def fixed(x: np.ndarray) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """`embed` for an embedding that is not learned from these cells."""
    return lambda train, test: (x[train], x[test])
