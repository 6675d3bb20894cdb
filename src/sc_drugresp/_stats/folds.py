"""Folds, and the check that nothing crosses them: patients, cell lines, replicates, duplicate cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.rng import short_seed
from .groups import encode_groups, majority_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

N_FOLDS = 10
_FEWEST_ENTRIES = 10  # cells with fewer expressed genes may be equal by chance


@dataclass(frozen=True)
class Fold:
    """Rows to learn from and rows to score; `n_labeled` counts target samples in training (few-shot)."""

    name: str
    train: np.ndarray
    test: np.ndarray
    n_labeled: int = 0


@dataclass(frozen=True)
class Leak:
    """Something that stands on both sides of a fold."""

    kind: str
    fold: str
    n: int
    example: str

    def __str__(self) -> str:
        return f"fold {self.fold!r}: {self.n} {self.kind} in training and test (for example {self.example})"


class LeakError(ValueError):
    """A given split lets training see the test cells' samples or the cells themselves."""


def leave_group_out(
    y: np.ndarray,
    groups: np.ndarray,
    *,
    max_leave_out: int = 20,
    pairs: bool = True,
    rng: int = 0,
    turn: int = 0,
) -> list[Fold]:
    """Hold out groups of both classes together: pairs of a sensitive and a resistant one, or a tenth of each class.

    Leaving out one group at a time makes its class the rarer one in training. The mean of that class is then known less
    well, which pushes held-out scores to the wrong side: labels without any signal get a mean AUROC of 0.31 to 0.46
    instead of 0.50 (simulated: 8 and 50 dimensions, 8 to 20 groups). With pairs, all training sets hold equally many
    groups of each class, and the mean is 0.48 to 0.51. Groups of the smaller class are held out more than once where
    there are fewer of them than folds, so that every fold tests both classes; their predictions are averaged.

    Parameters
    ----------
    y
        1 sensitive, 0 resistant, for labeled cells only.
    groups
        What is held out together. Where at most a fifth of the groups hold both classes, these count as the class of
        most of their cells; with more, groups are left out one by one.
    max_leave_out
        Most groups to hold out in pairs; more are dealt out to ten folds, class by class.
    pairs
        False leaves out one group at a time.
    rng
        Seed of the pairs and of the assignment to folds.
    turn
        Which of the pairings with this seed. Turns 0 to n - 1, where n is the size of the smaller class, pair every
        sensitive group with every resistant one, once. Many groups are dealt out anew.

    Raises
    ------
    ValueError
        There is only one group.
    """
    codes, names = encode_groups(groups)
    if len(names) < 2:
        msg = f"Expected at least two groups to hold one out, found {len(names)}: {names.tolist()}."
        raise ValueError(msg)
    kind, many = majority_classes(y, codes, len(names)), len(names) > max_leave_out
    generator = np.random.default_rng(rng + turn if many else rng)
    classes = [np.flatnonzero(kind == label) for label in (1, 0)]
    if (kind == 2).any() or min(map(len, classes)) < 2:
        # Nothing to pair: each group alone, or many of them in ten sets.
        sets = np.array_split(generator.permutation(len(names)), N_FOLDS) if many else np.arange(len(names))[:, None]
    elif not pairs and not many:
        sets = np.arange(len(names))[:, None]
    else:
        n_folds = N_FOLDS if many else max(map(len, classes))
        shuffled = [generator.permutation(members) for members in classes]
        smaller = int(np.argmin([len(members) for members in shuffled]))
        shuffled[smaller] = np.roll(shuffled[smaller], -turn)
        sets = [np.concatenate(parts) for parts in zip(*(_deal(members, n_folds) for members in shuffled))]
    if many:
        return [_hold_out(codes, held, f"fold {i}") for i, held in enumerate(sets)]
    return [_hold_out(codes, held, " + ".join(str(names[code]) for code in held)) for held in sets]


def _deal(members: np.ndarray, n_folds: int) -> list[np.ndarray]:
    """The members in as many parts of nearly equal size; one each, some of them repeatedly, where there are too few."""
    if len(members) < n_folds:
        return list(np.resize(members, n_folds)[:, None])
    return np.array_split(members, n_folds)


def repeated(make: Callable[..., list[Fold]], n: int) -> list[list[Fold]]:
    """Different folds that `make(turn=...)` makes, at most `n` sets of them; those that do not turn are made once."""
    out: dict[frozenset[bytes], list[Fold]] = {}
    for turn in range(n):
        folds = make(turn=turn)
        out.setdefault(frozenset(fold.test.tobytes() for fold in folds), folds)
    return list(out.values())


def _hold_out(codes: np.ndarray, held: np.ndarray, name: str) -> Fold:
    test = np.isin(codes, held)
    return Fold(name, np.flatnonzero(~test), np.flatnonzero(test))


def pooled(y: np.ndarray, *, rng: int = 0) -> list[Fold]:
    """Random cells, stratified by class: what most of the field reports, and what leaks samples."""
    from sklearn.model_selection import StratifiedKFold

    smallest = int(np.bincount(y, minlength=2).min())
    if smallest < 2:
        msg = f"Expected at least two cells of each class, found {smallest} of the smaller one."
        raise ValueError(msg)
    splitter = StratifiedKFold(n_splits=min(5, smallest), shuffle=True, random_state=short_seed(rng))
    return [Fold(f"fold {i}", *pair) for i, pair in enumerate(splitter.split(np.zeros(len(y)), y))]


def cross_dataset(y: np.ndarray, datasets: np.ndarray) -> list[Fold]:
    """Learn from all other data sets, test on one (zero-shot).

    Raises
    ------
    ValueError
        There is only one data set, or no target whose other data sets hold both classes.
    """
    names = np.unique(datasets)
    if len(names) < 2:
        msg = f"Expected at least two data sets, found {names.tolist()}. Name their column with `dataset_key=`."
        raise ValueError(msg)
    folds = [Fold(str(name), np.flatnonzero(datasets != name), np.flatnonzero(datasets == name)) for name in names]
    folds = [fold for fold in folds if len(np.unique(y[fold.train])) == 2]
    if not folds:
        msg = "Without any one data set, the others hold one class only; nothing can be learned from them."
        raise ValueError(msg)
    return folds


def few_shot(
    y: np.ndarray,
    datasets: np.ndarray,
    groups: np.ndarray,
    shots: Sequence[int],
    *,
    n_repeats: int = 5,
    rng: np.random.Generator | int = 0,
) -> list[Fold]:
    """Learn from all other data sets and `k` labeled samples of the target; test on its remaining samples.

    Samples are taken from both classes in turn. In one repeat, all `k` are tested on the same cells, those of the
    samples that the largest `k` leaves over; a `k` that would leave a class without a test sample is left out.

    Parameters
    ----------
    y, datasets, groups
        Label, data set and sample of each labeled cell.
    shots
        Numbers of labeled samples of the target, 0 included for comparison.
    n_repeats
        Random orders of the samples.
    rng
        Seed or generator.
    """
    rng = np.random.default_rng(rng)
    out = []
    for target in cross_dataset(y, datasets):
        inside = np.unique(groups[target.test])
        label = np.array([round(float(y[(groups == group) & (datasets == target.name)].mean())) for group in inside])
        room = 2 * min(int((label == 1).sum()), int((label == 0).sum())) - 2
        usable = sorted({k for k in shots if 0 <= k <= room})
        for repeat in range(n_repeats if usable else 0):
            queues = [list(rng.permutation(inside[label == kind])) for kind in rng.permutation(2)]
            order = [group for pair in zip(*queues) for group in pair]
            spent = np.isin(groups[target.test], order[: usable[-1]])
            test = target.test[~spent]
            for k in usable:
                shown = target.test[np.isin(groups[target.test], order[:k])]
                out.append(
                    Fold(f"{target.name}, {k} samples, repeat {repeat}", np.append(target.train, shown), test, k)
                )
    return out


def given_folds(values: np.ndarray) -> list[Fold]:
    """Folds that the user named per cell; a missing name (`''`) is a cell to learn from that is never tested."""
    names = [name for name in np.unique(values) if name != ""]
    if len(names) < 2 and not (values == "").any():
        msg = f"Expected at least two folds, or one fold and cells without a fold to learn from, found {names}."
        raise ValueError(msg)
    return [Fold(str(name), np.flatnonzero(values != name), np.flatnonzero(values == name)) for name in names]


def profile_hashes(blocks: Iterable[tuple[int, Any]], n_obs: int) -> np.ndarray:
    """A 64-bit hash of each cell's profile; equal profiles have equal hashes.

    Parameters
    ----------
    blocks
        `(start, CSR rows)` as a :class:`~sc_drugresp._data.CountSource` yields them.
    n_obs
        Number of cells.

    Returns
    -------
    uint64 array of shape `(n_obs,)`; 0 for cells with so few entries that they may be equal by chance.
    """
    out = np.zeros(n_obs, dtype=np.uint64)
    for start, block in blocks:
        out[start : start + block.shape[0]] = hash_rows(block)
    return out


def hash_rows(block: Any) -> np.ndarray:
    """The hashes of some rows, see :func:`profile_hashes`."""
    keys = np.random.default_rng(0).integers(1, 2**63, (2, block.shape[1]), dtype=np.uint64) | np.uint64(1)
    bits = np.ascontiguousarray(block.data, dtype=np.float32).view(np.uint32).astype(np.uint64)
    mixed = (bits + np.uint64(1)) * keys[0, block.indices]
    mixed = (mixed ^ (mixed >> np.uint64(29))) * keys[1, block.indices]
    total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    size = np.diff(block.indptr)
    return np.where(size >= _FEWEST_ENTRIES, total[block.indptr[1:]] - total[block.indptr[:-1]], np.uint64(0))


def shared_profiles(hashes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mask of cells whose profile stands under more than one group, so that nobody knows whose they are.

    Parameters
    ----------
    hashes
        From :func:`profile_hashes`; 0 counts as no profile.
    groups
        Group of each cell.
    """
    _, profile = np.unique(hashes, return_inverse=True)
    pairs = np.unique(np.column_stack([profile, np.unique(groups, return_inverse=True)[1]]), axis=0)
    return (np.bincount(pairs[:, 0])[profile] > 1) & (hashes != 0)


def without_copies(folds: Sequence[Fold], hashes: np.ndarray, shared: np.ndarray) -> tuple[list[Fold], int]:
    """Leave out cells that nobody knows whose they are, and take copies of a test cell out of training.

    A test cell that is a copy of another group's cell would be recognized by the other cells of that group, even where
    the other copy is not learned from. Also returned is how many cells left the training part of a fold.
    """
    out, removed = [], np.zeros(len(hashes), dtype=bool)
    for fold in folds:
        test = fold.test[~shared[fold.test]]
        copies = shared[fold.train] | (np.isin(hashes[fold.train], hashes[test]) & (hashes[fold.train] != 0))
        removed[fold.train[copies]] = True
        out.append(replace(fold, train=fold.train[~copies], test=test) if copies.any() or shared.any() else fold)
    return [fold for fold in out if len(fold.test)], int(removed.sum())


def find_leaks(folds: Sequence[Fold], columns: Mapping[str, np.ndarray]) -> list[Leak]:
    """List what stands on both sides of a fold.

    Parameters
    ----------
    folds
        The split.
    columns
        What must not be shared (patients, cell lines, samples), by name. A column with one level is not checked:
        everything is of that patient, which is a limit of the data and not of the split.
    """
    columns = {name: column for name, column in columns.items() if len(np.unique(column)) > 1}
    leaks = []
    for fold in folds:
        overlap = np.intersect1d(fold.train, fold.test)
        if len(overlap):
            leaks.append(Leak("cells", fold.name, len(overlap), f"row {overlap[0]}"))
        for name, column in columns.items():
            shared = np.intersect1d(column[fold.train], column[fold.test])
            if len(shared):
                leaks.append(Leak(f"levels of {name!r}", fold.name, len(shared), repr(str(shared[0]))))
    return leaks
