"""Out-of-fold scores: what calibration, conformal sets and honest metrics are computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .fit import HeadKind, fit_head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .types import Embed


def cross_fit(
    kind: HeadKind,
    embed: Embed,
    y: np.ndarray,
    groups: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    rng: int = 0,
    **options: Any,
) -> np.ndarray:
    """Logit of each cell by heads that never saw its sample.

    Parameters
    ----------
    kind, options
        As in :func:`fit_head`.
    embed
        `embed(train, test)` gives the embeddings of two sets of rows, with whatever is fitted fitted to `train`.
    y, groups
        Label (1 sensitive, 0 resistant) and sample of each cell.
    folds
        Training and test rows that keep samples whole; a cell that is tested more than once gets its mean logit.

    Returns
    -------
    Array of shape `(n_cells,)`; NaN for cells that no fold tests.
    """
    total, times = np.zeros(len(y)), np.zeros(len(y))
    for train, test in folds:
        x_train, x_test = embed(train, test)
        total[test] += fit_head(kind, x_train, y[train], groups[train], rng=rng, **options).logit(x_test)
        times[test] += 1
    return np.where(times > 0, total / np.maximum(times, 1), np.nan)


def fixed(x: np.ndarray) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """`embed` for an embedding that is not learned from these cells."""
    return lambda train, test: (x[train], x[test])
