"""Learn from the training cells what is usual; see :mod:`.ood`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .distances import MIN_CELLS, GroupMoments, Space, axes_for, mean_cosine
from .groups import encode_groups, equal_weights, group_classes, weighted_quantile
from .ood import DEPTH_STEPS, MIN_SAMPLES, THINNED, OODReference, allowances, log_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from .groups import FloatArray, IntArray

    Thin = Callable[[IntArray, IntArray, Sequence[float]], list[FloatArray]]

MAX_REFERENCE = 2_000
NEIGHBOR, QUANTILE = 10, 0.99
"""Which neighbor counts, and of what share of cells of left-out groups the distance is usual."""
DEPTH_MARGIN = 2.0
MAX_FOLDS, THINNED_FOLDS = 10, 3


def fit_ood(
    X: ArrayLike,
    groups: ArrayLike,
    *,
    y: ArrayLike | None = None,
    embed: Callable[[IntArray, IntArray], FloatArray] | None = None,
    folds: Sequence[tuple[IntArray, IntArray]] = (),
    depth: ArrayLike | None = None,
    thinned: Thin | None = None,
    rng: np.random.Generator | int = 0,
) -> OODReference:
    """Learn what is usual among the training groups (samples).

    A cell is unusual if its distance to the k-th neighbor, or to the nearer class mean, exceeds the 99 % quantile of the
    distances that cells of left-out training groups have to the others: a new group may differ as much as the training
    groups differ from each other. A group is unusual if its mean lies farther from both classes, or its cells vary less,
    than 99 % of further training groups would by the t prediction interval of left-out groups.

    Parameters
    ----------
    X
        Embedding of the training cells, `(n, d)`; at least 20, without missing values.
    groups
        Group (sample) of each cell.
    y
        1 = sensitive, 0 = resistant. `None` treats all cells as one class.
    embed
        For an encoder that was fitted to these cells: `embed(train, rows)` fits it to some rows and gives the embeddings of
        others. Without it, left-out groups look better known than a new one would.
    folds
        Training and test rows for which `embed` was called before. They are used if they test every cell, so that it need
        not fit again; otherwise groups are dealt out to at most ten folds.
    depth
        Total counts of each cell: for the usual range of depth (widened twofold on both sides), and to compare cells with what
        is usual at their depth.
    thinned
        `thinned(train, rows, shares)` fits the encoder to some cells and embeds others with each of these shares of their
        counts: how distances grow as cells get shallower is then measured. Without it, it is learned from the differences in
        depth between the cells of a sample.
    rng
        Seed or generator for the choice of the reference cells: at most 2,000, balanced over groups and classes.

    Returns
    -------
    The reference. With a single group, distances within it have to do, and new groups are flagged too often.

    Raises
    ------
    ValueError
        All cells have the same embedding.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(np.arange(6), 40)
    >>> reference = fit_ood(rng.normal(size=(240, 8)), groups)
    >>> reference.score(np.full((1, 8), 9.0)).flag.tolist()
    [True]
    """
    cells = np.asarray(X)
    codes, names = encode_groups(groups)
    labels = np.zeros(len(cells), dtype=np.intp) if y is None else np.asarray(y)
    picked = _balanced(codes * 2 + labels, MAX_REFERENCE, np.random.default_rng(rng))
    k = min(NEIGHBOR, len(picked) // 2)
    whole, log_depth = np.full((2, 2), np.nan), log_counts(depth, len(cells))
    center = float(np.average(log_depth, weights=equal_weights(codes)))
    allowance = np.zeros((len(THINNED) + 1, 4))
    if len(names) < 2:
        folds = []
    elif not folds or len(np.unique(np.concatenate([test for _, test in folds]))) < len(cells):
        folds = _dealt_out(labels, codes)
    # All spaces have the axes that the smallest of them can support.
    n_axes = axes_for(min([len(picked), *(int(np.isin(picked, train).sum()) for train, _ in folds)]), cells.shape[1])
    space = Space.of(cells[picked].astype(np.float64), labels[picked], n_axes)
    if folds:
        if thinned is not None:
            allowance = _measured(labels, codes, picked, k, folds[:THINNED_FOLDS], thinned, n_axes)
        knn, maha, found = _left_out(cells, labels, codes, picked, k, embed, folds, log_depth, n_axes)
        moved = log_depth - center
        if thinned is None:
            slopes = [_within(np.log(np.maximum(d, 1e-300)), moved[picked], codes[picked]) for d in (knn, maha)]
            allowance = -np.outer(DEPTH_STEPS, [*slopes, *_between_halves(found)])
        by_cell = allowances(moved[picked], allowance)
        knn, maha = knn / np.exp(by_cell[:, 0]), maha / np.exp(by_cell[:, 1])
        if len(found) >= MIN_SAMPLES:
            level = found[:, 0, :2] - allowances(found[:, 0, 2] - center, allowance)[:, 2:]
            whole = np.column_stack([level.mean(axis=0), level.std(axis=0, ddof=1)])
        weights = equal_weights(np.unique(codes[picked], return_inverse=True)[1])
    else:
        # Each cell is its own nearest reference, so the next one counts.
        knn, _, maha = space.distances(space.points(cells[picked].astype(np.float64)), k + 1)
        weights = np.ones(len(picked))
    low = high = np.nan
    if depth is not None:
        total, mass = np.asarray(depth, dtype=np.float64), equal_weights(codes)
        low = weighted_quantile(total, mass, 0.005) / DEPTH_MARGIN
        high = weighted_quantile(total, mass, 0.995) * DEPTH_MARGIN
    return OODReference(
        k=k,
        n_samples=len(names),
        knn_threshold=_at_least_tiny(weighted_quantile(knn, weights, QUANTILE)),
        mahalanobis_threshold=_at_least_tiny(weighted_quantile(maha, weights, QUANTILE)),
        depth_low=float(low),
        depth_high=float(high),
        training_cosine=mean_cosine(cells),
        fitted=embed is not None,
        whole=whole,
        depth_center=center,
        depth_allowance=allowance,
        **vars(space),
    )


def _left_out(
    cells: NDArray[Any],
    labels: IntArray,
    codes: IntArray,
    picked: IntArray,
    k: int,
    embed: Callable[[IntArray, IntArray], FloatArray] | None,
    folds: Sequence[tuple[IntArray, IntArray]],
    log_depth: FloatArray,
    n_axes: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distances of the picked cells in spaces that never saw their group; and of groups, see `_describe_groups`."""
    knn, maha, each = np.empty(len(picked)), np.empty(len(picked)), []
    done = np.zeros(len(picked), dtype=bool)
    for train, held_out in folds:
        here = np.isin(picked, held_out) & ~done
        done |= here
        test, rest = picked[here], picked[np.isin(picked, train)]
        if not len(test):
            continue
        if embed is None:
            known, new = cells[rest].astype(np.float64), cells[test].astype(np.float64)
        else:
            both = np.asarray(embed(train, np.concatenate([rest, test])), dtype=np.float64)
            known, new = both[: len(rest)], both[len(rest) :]
        space = Space.of(known, labels[rest], n_axes)
        points = space.points(new)
        knn[here], _, maha[here] = space.distances(points, k)
        each.append(_describe_groups(points, codes[test], log_depth[test], space))
    return knn, maha, np.concatenate(each)


def _describe_groups(points: FloatArray, codes: IntArray, log_depth: FloatArray, space: Space) -> FloatArray:
    """Log shift, log spread and mean log depth of groups (columns): whole, and their shallow and their deep half.

    Shape `(n_groups, 3, 3)`; groups with few cells are left out.
    """
    own = np.unique(codes, return_inverse=True)[1]
    middle = np.array([np.median(log_depth[own == group]) for group in range(own.max() + 1)])
    everyone = np.ones(len(own), dtype=bool)
    parts = []
    for here in (everyone, log_depth < middle[own], log_depth >= middle[own]):
        sums = GroupMoments(len(middle), points.shape[1])
        sums.add(points[here], own[here])
        depth = np.bincount(own[here], log_depth[here], minlength=len(middle)) / np.maximum(sums.n, 1)
        parts.append(np.column_stack([*sums.shift_and_spread(space.means, space.precision), depth]))
    return np.stack(parts, axis=1)[np.bincount(own) >= MIN_CELLS]


def _between_halves(found: FloatArray) -> FloatArray:
    """Slopes of log shift and log spread of groups on log depth, from their deep and their shallow half."""
    change, apart = found[:, 2, :2] - found[:, 1, :2], found[:, 2, 2] - found[:, 1, 2]
    total = np.square(apart).sum()
    return np.minimum((change * apart[:, None]).sum(axis=0) / total, 0.0) if total > 0 else np.zeros(2)


def _measured(
    labels: IntArray,
    codes: IntArray,
    picked: IntArray,
    k: int,
    folds: Sequence[tuple[IntArray, IntArray]],
    thinned: Thin,
    n_axes: int,
) -> FloatArray:
    """How the distances of left-out cells and groups grow when their counts get fewer, on the log scale."""
    shares = (1.0, *THINNED)
    near: list[list[FloatArray]] = [[] for _ in shares]
    groups: list[list[FloatArray]] = [[] for _ in shares]
    for train, held_out in folds:
        rest, test = picked[np.isin(picked, train)], picked[np.isin(picked, held_out)]
        if not len(rest) or not len(test):
            continue
        # One fit for the cells that are known and for the others at each depth.
        both = thinned(train, np.concatenate([rest, test]), shares)
        space = Space.of(np.asarray(both[0][: len(rest)], dtype=np.float64), labels[rest], n_axes)
        for i, values in enumerate(both):
            points = space.points(np.asarray(values[len(rest) :], dtype=np.float64))
            knn, _, maha = space.distances(points, k)
            near[i].append(np.column_stack([knn, maha]))
            groups[i].append(_describe_groups(points, codes[test], np.zeros(len(test)), space)[:, 0, :2])
    if not near[0]:
        return np.zeros((len(shares), 4))
    rows = []
    for cells_at, groups_at in zip(near, groups):
        upper = np.log(np.maximum(np.quantile(np.concatenate(cells_at), QUANTILE, axis=0), 1e-300))
        known = np.concatenate(groups_at)
        rows.append([*upper, *(known.mean(axis=0) if len(known) else np.zeros(2))])
    grown = np.array(rows) - rows[0]
    grown[:, :3] = np.maximum.accumulate(np.maximum(grown[:, :3], 0.0))
    return grown


def _within(values: FloatArray, log_depth: FloatArray, codes: IntArray) -> float:
    """Slope of values on log depth within groups; never upwards: shallow cells are noisy, deep ones are not foreign."""
    size = np.bincount(codes)
    x, y = (v - (np.bincount(codes, v) / np.maximum(size, 1))[codes] for v in (log_depth, values))
    return min(float(x @ y / (x @ x)), 0.0) if x @ x > 0 else 0.0


def _dealt_out(labels: IntArray, codes: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Training and test rows of at most ten folds; groups of a class take turns, so that every fold keeps both classes."""
    n_groups = int(codes.max()) + 1
    order = np.argsort(group_classes(labels, codes, n_groups), kind="stable")
    fold = np.empty(n_groups, dtype=np.intp)
    fold[order] = np.arange(n_groups) % min(n_groups, MAX_FOLDS)
    return [(np.flatnonzero(fold[codes] != i), np.flatnonzero(fold[codes] == i)) for i in range(int(fold.max()) + 1)]


def _at_least_tiny(value: float) -> float:
    return max(value, np.finfo(np.float64).tiny)


def _balanced(strata: IntArray, size: int, rng: np.random.Generator) -> IntArray:
    """Indices of at most `size` cells, as equal over strata as their sizes allow."""
    if len(strata) <= size:
        return np.arange(len(strata), dtype=np.intp)
    _, codes = np.unique(strata, return_inverse=True)
    shuffled = rng.permutation(len(strata))
    order = shuffled[np.argsort(codes[shuffled], kind="stable")]
    counts = np.bincount(codes)
    turn = np.arange(len(strata)) - np.repeat(np.r_[0, np.cumsum(counts)[:-1]], counts)
    # First cell of each stratum, then the second of each, and so on.
    return np.sort(order[np.argsort(turn, kind="stable")[:size]])
