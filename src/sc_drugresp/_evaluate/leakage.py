"""Features that know the label or the test cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._stats.folds import Fold

_NEARLY = 0.999


def label_derived(values: Any, y: np.ndarray) -> str:
    """Say in words how a column reveals the label of each cell; empty if it does not.

    A column of numbers does when a threshold separates the classes, a column of names when each name has one class and
    a name stands for many cells. Missing values count as a value of their own.

    Parameters
    ----------
    values
        The column, for labeled cells.
    y
        1 sensitive, 0 resistant.
    """
    from sklearn.metrics import roc_auc_score

    array = np.asarray(values)
    if array.dtype.kind in "fiub":
        numbers = array.astype(np.float64)
        numbers = np.where(np.isnan(numbers), np.nanmin(numbers) - 1 if np.isfinite(numbers).any() else 0.0, numbers)
        if len(np.unique(numbers)) < 2:
            return ""
        auroc = float(roc_auc_score(y, numbers))
        strength = max(auroc, 1 - auroc)
        return f"its values alone separate the classes (AUROC {strength:.3f})" if strength >= _NEARLY else ""
    names, index = np.unique(array.astype(str), return_inverse=True)
    share = np.bincount(index, y) / np.bincount(index)
    if 1 < len(names) <= len(y) / 2 and np.isin(share, (0, 1)).all():
        return f"each of its {len(names)} values has one class only"
    return ""


def sets_cross_folds(sets: np.ndarray, folds: Sequence[Fold]) -> list[str]:
    """Folds in which cells embedded as one set stand in training and test."""
    return [fold.name for fold in folds if np.intersect1d(sets[fold.train], sets[fold.test]).size]


def without_shared(
    folds: Sequence[Fold], columns: Mapping[str, np.ndarray], datasets: np.ndarray
) -> tuple[list[Fold], list[str]]:
    """Take cells of other data sets out of training whose patient or cell line is tested; also the names that are shared."""
    out: list[Fold] = []
    names: set[str] = set()
    for fold in folds:
        other = ~np.isin(datasets[fold.train], datasets[fold.test])
        keep = np.ones(len(fold.train), dtype=bool)
        for values in columns.values():
            shared = np.intersect1d(values[fold.train][other], values[fold.test])
            names |= set(shared.tolist())
            keep &= ~(np.isin(values[fold.train], shared) & other)
        out.append(fold if keep.all() else replace(fold, train=fold.train[keep]))
    return out, sorted(names)
