"""Two names of one patient: cells that a classifier cannot tell apart where it tells other patients apart.

For each pair of groups, cells of one half are scored along the difference of the mean profiles of the other half, which is
the classifier of the nearest mean. Its AUROC is about 0.5 for two names of one patient and 0.9 to 1 for two patients. Where
patients are hard to tell apart in general, nothing is concluded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

if TYPE_CHECKING:
    from collections.abc import Callable

CELLS = 150
"""Most cells of a group that are looked at, evenly spread."""
_FEWEST_CELLS, _MOST_GROUPS = 10, 200
_REPEATS = 3
_TOLD = 0.85
"""AUROC against three quarters of the other groups from which a group counts as one that can be told."""
_GAP = 0.12
"""By so much the next group must be easier to tell; the closest of many pairs of patients are close, but not alone."""
_MOST_ALIKE = 0.7
_MOST_NAMES = 3


def tell_apart(profiles: sparse.csr_matrix, codes: np.ndarray, rng: int = 0) -> np.ndarray:
    """AUROC of telling each group from each other one, held out; symmetric, NaN on the diagonal.

    Parameters
    ----------
    profiles
        One row per cell, not negative or centered.
    codes
        Group of each cell, 0..g-1.
    """
    n_groups = int(codes.max()) + 1
    generator = np.random.default_rng(rng)
    out = np.zeros((n_groups, n_groups))
    logged = _log_profiles(profiles)
    for _ in range(_REPEATS):
        half = np.zeros(len(codes), dtype=int)
        for group in range(n_groups):
            rows = generator.permutation(np.flatnonzero(codes == group))
            half[rows[::2]] = 1
        for learn in (0, 1):
            known, tested = half == learn, half != learn
            members = sparse.csr_matrix(
                (np.ones(known.sum()), (codes[known], np.arange(known.sum()))), shape=(n_groups, known.sum())
            )
            means = (
                np.asarray((members @ logged[known]).todense()) / np.bincount(codes[known], minlength=n_groups)[:, None]
            )
            scores, own = np.asarray(logged[tested] @ means.T), codes[tested]
            for a in range(n_groups):
                for b in range(a):
                    rows = np.flatnonzero((own == a) | (own == b))
                    ranks = rankdata(scores[rows, a] - scores[rows, b])
                    first = own[rows] == a
                    n_a, n_b = first.sum(), (~first).sum()
                    out[a, b] += (ranks[first].sum() - n_a * (n_a + 1) / 2) / (n_a * n_b)
    out /= 2 * _REPEATS
    out += out.T
    np.fill_diagonal(out, np.nan)
    return out


def same_groups(auroc: np.ndarray, sizes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of groups that are two names of one patient.

    Parameters
    ----------
    auroc
        From :func:`tell_apart`.
    sizes
        Cells of each group that were looked at.
    """
    n = len(auroc)
    if n < 4:
        return []
    a, b = np.tril_indices(n, -1)
    spread = np.sqrt((sizes[a] + sizes[b] + 1) / (12 * sizes[a] * sizes[b]))
    alike = auroc[a, b] <= np.minimum(0.5 + 2.5 * spread, _MOST_ALIKE)
    told = np.nanquantile(auroc, 0.25, axis=1) >= _TOLD
    alike &= told[a] & told[b]
    links = sparse.coo_matrix((np.ones(alike.sum()), (a[alike], b[alike])), shape=(n, n))
    _, part = sparse.csgraph.connected_components(links, directed=False)
    # Many that look alike are patients who do not differ, not one patient with many names.
    few = np.bincount(part)[part] <= _MOST_NAMES
    nearest = np.where(part[:, None] == part[None, :], np.inf, auroc).min(axis=1)
    return [
        (int(i), int(j))
        for i, j in zip(a[alike], b[alike])
        if few[i] and min(nearest[i], nearest[j]) >= auroc[i, j] + _GAP
    ]


def find_same(codes: np.ndarray, rows_of: Callable[[np.ndarray], sparse.csr_matrix]) -> list[tuple[int, int, float]]:
    """Pairs of groups that are two names of one patient, with the AUROC of telling them apart.

    Groups with hardly a cell, and data of more than 200 groups, are not looked at.

    Parameters
    ----------
    codes
        Group of each cell.
    rows_of
        Reads profiles of some cells.
    """
    groups = np.flatnonzero(np.bincount(codes) >= _FEWEST_CELLS)
    if not 4 <= len(groups) <= _MOST_GROUPS:
        return []
    chosen = []
    for group in groups:
        rows = np.flatnonzero(codes == group)
        chosen.append(rows[np.unique(np.linspace(0, len(rows) - 1, min(CELLS, len(rows))).astype(np.int64))])
    rows = np.sort(np.concatenate(chosen))
    own = np.searchsorted(groups, codes[rows])
    auroc = tell_apart(rows_of(rows), own)
    return [(int(groups[i]), int(groups[j]), float(auroc[i, j])) for i, j in same_groups(auroc, np.bincount(own))]


def _log_profiles(profiles: sparse.csr_matrix) -> sparse.csr_matrix:
    """Log of counts per median depth; values that are not counts as they are."""
    if not profiles.nnz or profiles.data.min() < 0 or (profiles.data != np.rint(profiles.data)).any():
        return profiles
    total = np.asarray(profiles.sum(axis=1)).ravel()
    scale = sparse.diags_array(np.median(total) / np.maximum(total, 1))
    return sparse.csr_matrix(scale @ profiles).log1p()
