"""Which samples tuning learns from and which it stops by."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold


def check_enough_samples(y: np.ndarray, groups: np.ndarray, *, force: bool, where: str = "") -> bool:
    """Whether samples can be held out: both classes need two of them.

    Raises
    ------
    ValueError
        They cannot, and `force` is false.
    """
    per_class = [len(np.unique(groups[y == label])) for label in (1, 0)]
    if min(per_class) >= 2:
        return True
    if not force:
        msg = (
            f"Tuning needs at least 2 samples of each class (one to learn from, one to stop by), found "
            f"{per_class[0]} sensitive and {per_class[1]} resistant{where}. Use mode='frozen', or force=True to train "
            "without held-out samples."
        )
        raise ValueError(msg)
    return False


def split_samples(
    y: np.ndarray, groups: np.ndarray, *, validation: float, seed: int, force: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and rows held out, samples whole, both classes on both sides.

    Raises
    ------
    ValueError
        A class has a single sample, and `force` is false.
    """
    if not check_enough_samples(y, groups, force=force):
        return np.arange(len(y)), np.empty(0, dtype=np.int64)
    per_class = [len(np.unique(groups[y == label])) for label in (1, 0)]
    n_splits = min(max(2, round(1 / validation)), *per_class)
    splitter = StratifiedGroupKFold(n_splits=n_splits, shuffle=True, random_state=seed)
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


def check_overlap(train_groups: np.ndarray, held_out_groups: np.ndarray) -> None:
    """Refuse samples that stand on both sides.

    Raises
    ------
    ValueError
        A sample is in training and in validation.
    """
    both = np.intersect1d(train_groups, held_out_groups)
    if len(both):
        msg = f"{len(both)} samples are in training and in validation, for example {both[0]!r}; keep samples whole."
        raise ValueError(msg)
