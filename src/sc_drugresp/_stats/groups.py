"""Groups of cells (samples: patients, cell lines) as the unit: weights, resampling, quantiles.

"Group" is the word of this layer for what users know as a sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    FloatArray: TypeAlias = NDArray[np.float64]
    IntArray: TypeAlias = NDArray[np.intp]
    BoolArray: TypeAlias = NDArray[np.bool_]


def encode_groups(groups: ArrayLike) -> tuple[IntArray, NDArray[Any]]:
    """Codes 0..g-1 of the groups and their names, sorted."""
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    return codes.astype(np.intp), names


def equal_weights(codes: IntArray) -> FloatArray:
    """Cell weights that give every group a total of one."""
    return 1.0 / np.bincount(codes)[codes]


def balanced_weights(labels: NDArray[Any], groups: NDArray[Any]) -> FloatArray:
    """Cell weights so that both classes weigh the same and, within a class, all groups do; mean 1."""
    codes, _ = encode_groups(groups)
    weights = equal_weights(np.unique(codes * 2 + labels, return_inverse=True)[1])
    for label in np.unique(labels):
        weights[labels == label] /= weights[labels == label].sum()
    return weights * (len(labels) / weights.sum())


def group_classes(y: IntArray, codes: IntArray, n_groups: int) -> IntArray:
    """Class of each group: 0 resistant, 1 sensitive, 2 both."""
    sensitive = np.bincount(codes, weights=y, minlength=n_groups)
    size = np.bincount(codes, minlength=n_groups)
    return np.where(sensitive == 0, 0, np.where(sensitive == size, 1, 2)).astype(np.intp)


def spread_rows(rows: IntArray, strata: IntArray, most: int) -> IntArray:
    """At most so many of the rows, as equal over strata as their sizes allow and evenly spread in each; in their order.

    Parameters
    ----------
    rows
        Rows to choose from.
    strata
        Stratum of each row of the data set, small integers.
    most
        Rows to choose at most.
    """
    if len(rows) <= most:
        return rows
    own = np.unique(strata[rows], return_inverse=True)[1]
    size = np.bincount(own)
    share = size.astype(np.float64)
    below, left = np.sort(size), most
    for i, smallest in enumerate(below):  # small strata are taken whole, what they leave goes to the others
        quota = left // (len(below) - i)
        if smallest > quota:
            share = np.minimum(size, max(quota, 1))
            break
        left -= int(smallest)
    order = np.argsort(own, kind="stable")
    place = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
    share, size = share[own[order]].astype(np.int64), size[own[order]]
    # The k-th of `share` chosen rows is the one where the share of rows passed reaches k.
    chosen = place * share // size != (place - 1) * share // size
    return rows[np.sort(order[chosen])]


MIXED_SHARE = 0.2
"""Largest share of groups with both classes that is a blemish of the labels; more of them are a mixed design."""


def majority_classes(y: IntArray, codes: IntArray, n_groups: int) -> IntArray:
    """Class of each group, where a few groups with both classes count as the class of most of their cells.

    0 resistant, 1 sensitive; ties count as resistant. Beyond a fifth of the groups, those with both classes stay what
    they are: 2.
    """
    kind = group_classes(y, codes, n_groups)
    mixed = kind == 2
    if not mixed.any() or mixed.mean() > MIXED_SHARE:
        return kind
    share = np.bincount(codes, weights=y, minlength=n_groups) / np.maximum(np.bincount(codes, minlength=n_groups), 1)
    return np.where(mixed, share > 0.5, kind).astype(np.intp)


def groups_per_class(y: IntArray, codes: IntArray) -> tuple[int, int]:
    """Numbers of groups with at least one resistant and at least one sensitive cell."""
    return len(np.unique(codes[y == 0])), len(np.unique(codes[y == 1]))


def bootstrap_counts(strata: IntArray, n_boot: int, rng: np.random.Generator) -> FloatArray:
    """How often each group is drawn, `(n_boot, n_groups)`, when groups are redrawn within their stratum.

    `scipy.stats.bootstrap` redraws single observations; it knows neither clusters nor strata.
    """
    counts = np.zeros((n_boot, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=n_boot)
    return counts


def weighted_quantile(values: FloatArray, weights: FloatArray, level: float) -> float:
    """Smallest value at which the weighted distribution function reaches `level`."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    # Rounding must not push an exactly reached level to the next value.
    return float(values[order[min(int(np.searchsorted(share, level - 1e-12)), len(values) - 1)]])
