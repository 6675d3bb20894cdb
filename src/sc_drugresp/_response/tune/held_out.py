"""Which samples tuning learns from and which it stops by."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ..._core.rng import short_seed


def check_enough_samples(y: np.ndarray, groups: np.ndarray, *, force: bool, where: str = "") -> int:
    """Number of samples of the smaller class: where it is below 2, no sample can be held out.

    Raises
    ------
    ValueError
        A class has a single sample, and `force` is false.
    """
    per_class = [len(np.unique(groups[y == label])) for label in (1, 0)]
    if min(per_class) < 2 and not force:
        msg = (
            f"Tuning needs at least 2 samples of each class (one to learn from, one to stop by), found "
            f"{per_class[0]} sensitive and {per_class[1]} resistant{where}. Use mode='frozen', or tuning=FineTuning(force=True) to train "
            "without held-out samples."
        )
        raise ValueError(msg)
    return min(per_class)


def split_samples(
    y: np.ndarray, groups: np.ndarray, *, validation: float, seed: int, force: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and rows held out, samples whole, both classes on both sides.

    Raises
    ------
    ValueError
        A class has a single sample, and `force` is false.
    """
    smaller_class = check_enough_samples(y, groups, force=force)
    if smaller_class < 2:
        return np.arange(len(y)), np.empty(0, dtype=np.int64)
    n_splits = min(max(2, round(1 / validation)), smaller_class)
    splitter = StratifiedGroupKFold(n_splits=n_splits, shuffle=True, random_state=short_seed(seed))
    for train, test in splitter.split(np.empty((len(y), 1)), y, groups):
        if len(np.unique(y[train])) == 2 and len(np.unique(y[test])) == 2:
            return train, test
    return _one_sample_each(y, groups, seed)


def _one_sample_each(y: np.ndarray, groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out one sample of each class, or one that has both: what is left when no fold has both classes."""
    rng = np.random.default_rng(seed)
    sensitive, resistant = (np.unique(groups[y == label]) for label in (1, 0))
    mixed = np.intersect1d(sensitive, resistant)
    held = np.isin(groups, [rng.choice(mixed)] if len(mixed) else [rng.choice(sensitive), rng.choice(resistant)])
    return np.flatnonzero(~held), np.flatnonzero(held)
