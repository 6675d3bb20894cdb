"""The row `design_only`: what columns of the design and quality control alone predict, without any expression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .._response.features import FixedFeatures
from .._stats.groups import encode_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._design.confounding import Confounding
    from .._response.crossfit import HeadFitter

_ALPHAS = np.logspace(-1, 2, 4)
DESIGN_ONLY = "design_only"


@dataclass(frozen=True)
class DesignHead:
    """Ridge regression of -1 and 1 on some standardized columns."""

    columns: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    def logit(self, x: np.ndarray) -> np.ndarray:
        """Twice the fitted value, so that -1 and 1 become P = 0.12 and 0.88."""
        return 2 * ((np.asarray(x)[:, self.columns] - self.mean) / self.scale) @ self.weights


def design_features(confounding: Confounding, units: np.ndarray) -> tuple[FixedFeatures, HeadFitter] | None:
    """Shares of levels and mean values of each unit, given to all of its cells, and the head for them.

    `None` without usable columns. What was read from expression (cell types, clusters) is left out.
    """
    codes, names = encode_groups(units)
    parts = [column.of_rows(codes, len(names)) for column in confounding.columns if column.family != "derived"]
    if not parts:
        return None
    blocks = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
    values = np.concatenate(parts, axis=1)[codes]
    return FixedFeatures(DESIGN_ONLY, values), partial(fit_design, blocks=blocks)


def fit_design(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, blocks: np.ndarray, rng: int = 0) -> DesignHead:
    """Fit to one row per unit and class: all columns or a single one, by the leave-one-out error of ridge regression.

    Parameters
    ----------
    x, y, groups
        Features, labels and units of the training cells.
    blocks
        Column that each feature comes from.
    rng
        Not used: nothing is drawn.
    """
    _, first = np.unique(np.column_stack([encode_groups(groups)[0], y]), axis=0, return_index=True)
    rows, target = x[first], 2.0 * y[first] - 1
    target = target - target.mean()  # equal scores mean nothing is known
    choices: Sequence[np.ndarray] = [np.arange(x.shape[1])]
    if len(np.unique(blocks)) > 1:
        choices = [*choices, *(np.flatnonzero(blocks == block) for block in np.unique(blocks))]
    found: list[tuple[float, DesignHead]] = []
    for columns in choices:
        mean, scale = rows[:, columns].mean(axis=0), rows[:, columns].std(axis=0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        u, d, vt = np.linalg.svd((rows[:, columns] - mean) / scale, full_matrices=False)
        for alpha in _ALPHAS:
            shrink = d**2 / (d**2 + alpha * len(rows))
            hat = np.minimum(((u**2) * shrink).sum(axis=1) + 1 / len(rows), 1 - 1e-6)
            error = float(np.mean(((target - (u * shrink) @ (u.T @ target)) / (1 - hat)) ** 2))
            weights = vt.T @ ((d / (d**2 + alpha * len(rows))) * (u.T @ target))
            found.append((error, DesignHead(columns, mean, scale, weights)))
    return min(found, key=lambda one: round(one[0], 9))[1]
