"""Cells that are all but copies of cells of another sample: the same molecules counted twice.

Two cells that were measured apart differ at least by the noise of counting, however alike they are: given the sum of both,
the counts of a gene are binomial, so that Pearson's statistic per gene is 1 or more. In a copy with a few counts added, or
with some taken away, it is close to 0. That holds for cells of one type, of any depth, where a limit on the similarity
itself would flag shallow copies too late and erythrocytes too early.

Candidates are found in a sketch of the profiles (count sketch of square roots: Charikar et al. 2002), then compared gene by
gene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


SKETCH, BLOCK = 128, 1024
_AT_ONCE = 20_000_000
"""Pairs of cells whose similarity is held in memory."""
MOST_PAIRS = 400_000_000
"""Pairs of cells that are compared; in larger data evenly spread cells are compared with all others."""
_ALIKE = 0.6
"""Correlation of sketches from which two cells are compared gene by gene; that of independent cells has a spread of 0.09."""
_MOST_CANDIDATES = 5
_COUNTING, _CERTAIN = 0.5, 1e-6
_COSINE = 0.999
_FEWEST_GENES = 10


@dataclass(frozen=True)
class NearCopies:
    """Pairs of cells of different groups that are all but the same.

    Parameters
    ----------
    pairs
        Rows of the two cells, shape `(n_pairs, 2)`.
    n_compared
        Cells that were compared with all others.
    """

    pairs: np.ndarray
    n_compared: int

    def label(self, hashes: np.ndarray) -> np.ndarray:
        """Hashes in which near copies of each other are equal, so that they are treated as copies."""
        if not len(self.pairs):
            return hashes
        n = len(hashes)
        links = sparse.coo_matrix((np.ones(len(self.pairs)), self.pairs.T), shape=(n, n))
        _, part = sparse.csgraph.connected_components(links, directed=False)
        first = np.unique(part, return_index=True)[1][part]
        rows = np.unique(self.pairs)
        out = hashes.copy()
        out[rows] = np.where(hashes[first[rows]] > 0, hashes[first[rows]], first[rows].astype(np.uint64) + np.uint64(1))
        return out

    def share(self, codes: np.ndarray) -> dict[tuple[int, int], float]:
        """Share of the cells of the smaller group that are near copies of cells of another one, by pair of groups."""
        sizes = np.bincount(codes)
        out: dict[tuple[int, int], float] = {}
        ends = np.sort(codes[self.pairs], axis=1) if len(self.pairs) else np.zeros((0, 2), dtype=int)
        for a, b in np.unique(ends, axis=0):
            rows = self.pairs[(ends == (a, b)).all(axis=1)]
            found = [len(np.unique(rows[codes[rows] == group])) / sizes[group] for group in (a, b)]
            out[int(a), int(b)] = float(max(found))
        return out


def sketch(block: sparse.csr_matrix) -> np.ndarray:
    """Profiles in few dimensions, NaN for cells with hardly a gene; float32 of shape `(n, 128)`."""
    rng = np.random.default_rng(0)
    place, sign = rng.integers(0, SKETCH, block.shape[1]), rng.choice((-1.0, 1.0), block.shape[1])
    n = block.shape[0]
    values = np.sign(block.data) * np.sqrt(np.abs(block.data)) * sign[block.indices]
    rows = np.repeat(np.arange(n), np.diff(block.indptr))
    flat = np.bincount(rows * SKETCH + place[block.indices], weights=values, minlength=n * SKETCH)
    length = np.sqrt(np.bincount(rows, weights=np.abs(block.data), minlength=n))
    out = flat.reshape(n, SKETCH) / np.where(length > 0, length, 1)[:, None]
    out[np.diff(block.indptr) < _FEWEST_GENES] = np.nan
    return out.astype(np.float32)


def _units(sketches: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Centered sketches of length one; zero where there is none."""
    out = sketches - center
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.nan_to_num(out / np.where(length > 1e-6, length, 1))


def find_near_copies(
    blocks: Callable[[], Iterable[tuple[int, sparse.csr_matrix]]],
    codes: np.ndarray,
    rows_of: Callable[[np.ndarray], sparse.csr_matrix],
    *,
    counts: bool,
    most_pairs: int = MOST_PAIRS,
) -> NearCopies:
    """Find cells that are near copies of cells of another group.

    The cells that are compared with all others are held in memory as sketches; the others pass by.

    Parameters
    ----------
    blocks
        Reads the profiles of all cells, `(start, rows)` at a time.
    codes
        Group of each cell.
    rows_of
        Reads profiles of some cells.
    counts
        The profiles are counts; others are compared by their cosine.
    most_pairs
        Bound on the work, see `MOST_PAIRS`.
    """
    n = len(codes)
    n_queries = int(min(n, max(most_pairs // max(n, 1), 1)))
    queries = np.unique(np.linspace(0, n - 1, n_queries).astype(np.int64)) if n else np.zeros(0, dtype=np.int64)
    known = [sketch(rows_of(queries[i : i + BLOCK])) for i in range(0, len(queries), BLOCK)]
    asked = np.concatenate([*known, np.zeros((0, SKETCH), dtype=np.float32)])
    there = ~np.isnan(asked[:, 0])
    center = asked[there].mean(axis=0) if there.any() else np.zeros(SKETCH, dtype=np.float32)
    asked = _units(asked, center)
    found = _Candidates()
    step = max(_AT_ONCE // max(len(queries), 1), 1)
    for first, block in blocks() if len(queries) else ():
        cells = _units(sketch(block), center)
        for start in range(0, len(cells), step):
            part = cells[start : start + step]
            alike = asked @ part.T
            at, other = np.divmod(np.flatnonzero(alike > _ALIKE), len(part))
            apart = codes[queries[at]] != codes[first + start + other]
            at, other = at[apart], other[apart]
            found.add(at, first + start + other, alike[at, other])
    at, other = found.best()
    pairs = np.unique(np.sort(np.column_stack([queries[at], other]), axis=1), axis=0)
    keep = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), 4 * BLOCK):
        part = pairs[start : start + 4 * BLOCK]
        cells, index = np.unique(part, return_inverse=True)
        profiles = rows_of(cells)
        a, b = (profiles[side] for side in index.reshape(part.shape).T)
        same = _same_molecules(a, b, len(queries) * n) if counts else _same_direction(a, b)
        keep[start : start + len(part)] = same
    return NearCopies(pairs[keep], len(queries))


class _Candidates:
    """The cells that are most like each query, a few each."""

    def __init__(self) -> None:
        self.at, self.other, self.alike = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        self._limit = _AT_ONCE // 4

    def add(self, at: np.ndarray, other: np.ndarray, alike: np.ndarray) -> None:
        """Take in cells, in order, that are like some queries."""
        self.at, self.other = np.append(self.at, at), np.append(self.other, other)
        self.alike = np.append(self.alike, alike)
        if len(self.at) > self._limit:
            self.best()

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Queries and the cells that are most like them; all else is forgotten."""
        order = np.lexsort((self.other, -self.alike, self.at))
        at = self.at[order]
        order = order[np.arange(len(at)) - np.searchsorted(at, at, side="left") < _MOST_CANDIDATES]
        self.at, self.other, self.alike = self.at[order], self.other[order], self.alike[order]
        return self.at, self.other


def _same_molecules(a: sparse.csr_matrix, b: sparse.csr_matrix, n_pairs: int) -> np.ndarray:
    """Pearson's statistic of the two cells is far below what counting alone would make of one profile."""
    from scipy.stats import chi2

    total_a, total_b = (np.asarray(x.sum(axis=1)).ravel().astype(float) for x in (a, b))
    share = total_a / np.maximum(total_a + total_b, 1)
    both = (a + b).tocsr().astype(np.float64)
    rest = (a.multiply((1 - share)[:, None]) - b.multiply(share[:, None])).tocsr()
    inverse = both.copy()
    inverse.data = 1 / inverse.data
    value = np.asarray(rest.multiply(rest).multiply(inverse).sum(axis=1)).ravel() / np.maximum(
        share * (1 - share), 1e-9
    )
    df = np.diff(both.indptr) - 1
    limit = np.minimum(_COUNTING * df, chi2.ppf(_CERTAIN / max(n_pairs, 1), np.maximum(df, 1)))
    return (df >= _FEWEST_GENES) & (value <= np.maximum(limit, 0))


def _same_direction(a: sparse.csr_matrix, b: sparse.csr_matrix) -> np.ndarray:
    product = np.asarray(a.multiply(b).sum(axis=1)).ravel()
    lengths = [np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel()) for x in (a, b)]
    return product >= _COSINE * np.maximum(lengths[0] * lengths[1], 1e-12)
