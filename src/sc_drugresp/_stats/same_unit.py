"""Two names of one patient: cells that a classifier cannot tell apart where it tells other patients apart.

For each pair of groups, cells of one half are scored along the difference of the mean profiles of the other half, which is
the classifier of the nearest mean. Its AUROC is about 0.5 for two names of one patient and 0.9 to 1 for two patients.

Among many pairs of patients the closest one may be hard to tell, too. How close that is follows from the spread of all
distances (a gamma distribution, as of sums of squares): more pairs than it allows must lie near zero. Where patients are hard
to tell apart in general, or differ in few directions, nothing is concluded.
"""

from __future__ import annotations

from dataclasses import dataclass
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
_MOST_ALIKE = 0.7
_MOST_NAMES = 3
_GAP = 0.12
"""By so much the next group must be easier to tell."""
_CHANCE = 1e-5
"""Probability of so many close pairs among patients; far below 5 %, since distances follow the gamma distribution roughly."""


@dataclass(frozen=True)
class Contrasts:
    """How far groups lie apart.

    Parameters
    ----------
    auroc
        Of telling each group from each other one, held out; symmetric, NaN on the diagonal.
    distance
        Squared distance of the mean profiles, without the share of noise; symmetric.
    noise
        Standard deviation of the distance of two halves of one group.
    """

    auroc: np.ndarray
    distance: np.ndarray
    noise: float


def contrasts(profiles: sparse.csr_matrix, codes: np.ndarray, rng: int = 0) -> Contrasts:
    """Compare all pairs of groups.

    Parameters
    ----------
    profiles
        One row per cell.
    codes
        Group of each cell, 0..g-1; each has at least four cells.
    """
    n = int(codes.max()) + 1
    generator = np.random.default_rng(rng)
    auroc, distance, own = np.zeros((n, n)), np.zeros((n, n)), np.zeros(n)
    logged = _log_profiles(profiles)
    for _ in range(_REPEATS):
        quarter = np.zeros(len(codes), dtype=int)
        for group in range(n):
            rows = generator.permutation(np.flatnonzero(codes == group))
            quarter[rows] = np.arange(len(rows)) % 4
        means = [_means(logged, codes, quarter == part, n) for part in range(4)]
        halves = (means[0] + means[2]) / 2, (means[1] + means[3]) / 2
        cross = halves[0] @ halves[1].T
        distance += np.diag(cross)[:, None] + np.diag(cross)[None, :] - cross - cross.T
        own += ((means[0] - means[1]) * (means[2] - means[3])).sum(axis=1)
        for learn in (0, 1):
            tested = quarter % 2 != learn
            auroc += _aurocs(np.asarray(logged[tested] @ halves[learn].T), codes[tested])
    auroc /= 2 * _REPEATS
    np.fill_diagonal(auroc, np.nan)
    return Contrasts(auroc, distance / _REPEATS, float(np.std(own / _REPEATS) / 2))


def same_groups(found: Contrasts, sizes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of groups that are two names of one patient.

    Parameters
    ----------
    found
        From :func:`contrasts`.
    sizes
        Cells of each group that were looked at.
    """
    from scipy.stats import gamma, poisson

    auroc, n = found.auroc, len(sizes)
    if n < 4:
        return []
    a, b = np.tril_indices(n, -1)
    spread = np.sqrt((sizes[a] + sizes[b] + 1) / (12 * sizes[a] * sizes[b]))
    told = np.nanquantile(auroc, 0.25, axis=1) >= _TOLD
    alike = (auroc[a, b] <= np.minimum(0.5 + 2.5 * spread, _MOST_ALIKE)) & told[a] & told[b]
    links = sparse.coo_matrix((np.ones(alike.sum()), (a[alike], b[alike])), shape=(n, n))
    _, part = sparse.csgraph.connected_components(links, directed=False)
    # Many that look alike are patients who do not differ, not one patient with many names.
    alike &= (np.bincount(part)[part] <= _MOST_NAMES)[a]
    others = found.distance[a, b][~alike]
    if not alike.any() or len(others) < 3 or others.mean() <= 0:
        return []
    shape = others.mean() ** 2 / max(others.var(), 1e-300)
    nearest = np.where(part[:, None] == part[None, :], np.inf, auroc).min(axis=1)
    alone = np.minimum(nearest[a], nearest[b]) >= auroc[a, b] + _GAP
    order = np.flatnonzero(alike & alone)
    order = order[np.argsort(found.distance[a, b][order])]
    limits = np.maximum(found.distance[a, b][order], 2 * found.noise)
    expected = len(a) * gamma.cdf(limits, shape, scale=others.mean() / shape)
    passed = np.flatnonzero(poisson.sf(np.arange(len(order)), expected) < _CHANCE)
    called = order[: passed[-1] + 1] if len(passed) else order[:0]
    return [(int(a[i]), int(b[i])) for i in called]


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
    found = contrasts(rows_of(rows), own)
    return [(int(groups[i]), int(groups[j]), float(found.auroc[i, j])) for i, j in same_groups(found, np.bincount(own))]


def _means(profiles: sparse.csr_matrix, codes: np.ndarray, chosen: np.ndarray, n: int) -> np.ndarray:
    """Mean profile of each group over the chosen cells."""
    rows = np.flatnonzero(chosen)
    weight = 1 / np.bincount(codes[rows], minlength=n)[codes[rows]]
    members = sparse.csr_matrix((weight, (codes[rows], rows)), shape=(n, len(codes)))
    return np.asarray((members @ profiles).todense())


def _aurocs(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """AUROC of telling each group from each other one by the difference of two columns of scores; symmetric."""
    n = scores.shape[1]
    out = np.zeros((n, n))
    rows_of = [np.flatnonzero(codes == group) for group in range(n)]
    for a in range(n):
        for b in range(a):
            rows = np.append(rows_of[a], rows_of[b])
            n_a, n_b = len(rows_of[a]), len(rows_of[b])
            ranks = rankdata(scores[rows, a] - scores[rows, b])
            out[a, b] = out[b, a] = (ranks[:n_a].sum() - n_a * (n_a + 1) / 2) / (n_a * n_b)
    return out


def _log_profiles(profiles: sparse.csr_matrix) -> sparse.csr_matrix:
    """Log of counts per median depth; values that are not counts as they are."""
    if not profiles.nnz or profiles.data.min() < 0 or (profiles.data != np.rint(profiles.data)).any():
        return profiles
    total = np.asarray(profiles.sum(axis=1)).ravel()
    scale = sparse.diags_array(np.median(total) / np.maximum(total, 1))
    return sparse.csr_matrix(scale @ profiles).log1p()
