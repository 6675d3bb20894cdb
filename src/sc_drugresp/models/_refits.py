"""Variable genes and principal axes from sums that are shared between many fits to almost the same cells.

Every fold of an evaluation leaves out a few cells. The sums over all cells minus those over the cells left out give the
choice of genes and the covariance of a fold without another pass over the cells that stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy import sparse

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.intp]

LOGGED = ("counts", "log_normalized")
"""Kinds of data whose profiles are on a log scale when genes are chosen."""
MAX_SIDE = 5_000
"""Most genes of a matrix of products: 200 MB."""
_MEAN_BINS = 20
_BLOCK = 2_048
_SPARE = 1.25
_SPARSE = 0.15
"""Share of stored values below which products are added up entry by entry."""
_ITERATED = 20
"""Rows of a matrix for each eigenvector that is wanted from which on it is found by iteration."""
_TOLERANCE, _RANK = 1e-10, 1e-8
"""Relative error of eigenvalues at which iteration stops (that of vectors is then below 1e-12); smallest one, of the largest."""
_ROUNDING = 1e-12  # of a variance relative to the square of its mean


@dataclass(frozen=True)
class GeneSums:
    """Sums over cells of each gene: cells with a value, the values (without the logarithm), their squares."""

    n: int
    expressed: IntArray
    first: FloatArray
    second: FloatArray

    @classmethod
    def of(cls, profiles: sparse.csr_matrix, kind: str) -> GeneSums:
        """Add up the rows of `profiles`, values of `kind` as the embedders see them."""
        n, width = profiles.shape
        expressed, first, second = np.zeros(width, dtype=np.intp), np.zeros(width), np.zeros(width)
        for start in range(0, n, _BLOCK):
            part = slice(profiles.indptr[start], profiles.indptr[min(start + _BLOCK, n)])
            genes, values = profiles.indices[part], profiles.data[part]
            linear = (np.expm1(values) if kind in LOGGED else values).astype(np.float64)
            expressed += np.bincount(genes, minlength=width)
            first += np.bincount(genes, linear, width)
            second += np.bincount(genes, np.square(linear), width)
        return cls(n, expressed, first, second)

    def __add__(self, other: GeneSums) -> GeneSums:
        parts = [mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values())]
        return GeneSums(*parts)

    def __sub__(self, other: GeneSums) -> GeneSums:
        left = self.expressed - other.expressed
        seen = left > 0  # what is left of a gene that only the other cells express is exactly nothing
        first, second = np.where(seen, self.first - other.first, 0), np.where(seen, self.second - other.second, 0)
        return GeneSums(self.n - other.n, left, first, second)


def variable_genes(sums: GeneSums, kind: str, n_top: int) -> IntArray:
    """Columns of the most variable genes, in column order: scanpy's `seurat` flavor, or plain variance for z-scores.

    scanpy's function takes a matrix; these are its steps from means and variances on. Genes that no cell expresses are
    left out of the bins.

    Raises
    ------
    ValueError
        All values are 0.
    """
    if not sums.expressed.any():
        msg = f"All values of the {sums.n} cells to learn from are 0: there is nothing to learn. Check `layer`."
        raise ValueError(msg)
    if len(sums.first) <= n_top:
        return np.arange(len(sums.first))
    mean = sums.first / sums.n
    if kind not in LOGGED:
        variance = sums.second / sums.n - np.square(mean)
        return np.sort(np.argsort(-variance, kind="stable")[:n_top])
    expressed = np.flatnonzero(sums.expressed)
    mean = mean[expressed]
    variance = (sums.second[expressed] / sums.n - np.square(mean)) * sums.n / max(sums.n - 1, 1)
    variance[variance < _ROUNDING * np.square(mean)] = 0
    score = _normalized_dispersion(mean, variance)
    known = np.sort(score[~np.isnan(score)])[::-1]
    if not len(known):
        return expressed[:n_top]
    cutoff = known[min(n_top, len(known)) - 1]
    return expressed[np.nan_to_num(score, nan=-np.inf) >= cutoff]


def _normalized_dispersion(mean: FloatArray, variance: FloatArray) -> FloatArray:
    """Log dispersion of each gene, standardized among genes with a similar mean."""
    import pandas as pd

    mean = np.where(mean == 0, 1e-12, mean)
    dispersion = variance / mean
    dispersion[dispersion == 0] = np.nan
    dispersion = np.log(dispersion)
    bins = pd.cut(np.log1p(mean), bins=_MEAN_BINS, labels=False)
    grouped = pd.Series(dispersion).groupby(bins)
    average, spread = grouped.transform("mean").to_numpy(), grouped.transform("std").to_numpy()
    alone = np.isnan(spread)  # a single gene in its bin gets 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return (dispersion - np.where(alone, 0.0, average)) / np.where(alone, average, spread)


def principal_axes(profiles: sparse.csr_matrix, n_comps: int) -> tuple[FloatArray, FloatArray]:
    """Mean `(genes,)` and principal axes `(genes, n_comps)` of sparse rows, exact to float64.

    The smaller of the two matrices of products (genes by genes, or cells by cells) is decomposed; where both are large,
    a few singular vectors are found by iteration.
    """
    n, width = profiles.shape
    mean = column_sums(profiles) / n
    if min(n, width) > MAX_SIDE:
        return mean, _signed(_singular_vectors(profiles, mean, n_comps))
    if width < n:
        return mean, axes_of(products(profiles), mean, n, n_comps)
    centered = profiles.toarray().astype(np.float64) - mean
    left, spread = _largest(centered @ centered.T, n_comps)
    # Where nothing varies (cells without counts, say) there is no axis, and rounding must not be blown up to one.
    varies = spread > 1e-14 * max(float(spread.max(initial=0.0)), 1.0)
    axes = np.where(varies, centered.T @ left, 0.0) / np.sqrt(np.where(varies, spread, 1.0))
    return mean, _signed(axes)


def axes_of(product: FloatArray, mean: FloatArray, n: int, n_comps: int) -> FloatArray:
    """Principal axes `(genes, n_comps)` of `n` rows with these sums of products and this mean."""
    return _signed(_largest(product - n * np.outer(mean, mean), n_comps)[0])


def products(profiles: sparse.csr_matrix, first: int = 0) -> FloatArray:
    """The columns of `X.T @ X` from `first` on, in float64: entry by entry where few values are stored, else in blocks."""
    n, width = profiles.shape
    if profiles.nnz < _SPARSE * n * width:
        from .._data.product_kernels import add_products

        profiles = profiles.sorted_indices()
        lower = np.zeros((width - first, width))
        add_products(profiles.indptr, profiles.indices, profiles.data, first, lower)
        if first == 0:
            out = lower + lower.T
            np.fill_diagonal(out, lower.diagonal())
            return out
        out = np.ascontiguousarray(lower.T)
        square = out[first:]
        out[first:] = np.triu(square) + np.triu(square, 1).T
        return out
    out = np.zeros((width, width - first))
    for start in range(0, n, _BLOCK):
        block = profiles[start : start + _BLOCK].toarray().astype(np.float64)
        out += block.T @ block[:, first:]
    return out


def _singular_vectors(profiles: sparse.csr_matrix, mean: FloatArray, k: int) -> FloatArray:
    from scipy.sparse.linalg import LinearOperator, svds

    centered = LinearOperator(
        shape=profiles.shape,
        dtype=np.float64,
        matvec=lambda v: profiles @ np.ravel(v) - mean @ np.ravel(v),
        rmatvec=lambda u: profiles.T @ np.ravel(u) - mean * u.sum(),
    )
    start = np.random.default_rng(0).normal(size=min(profiles.shape))
    _, spread, right = svds(centered, k=k, v0=start)
    return right[np.argsort(-spread)].T


def column_sums(profiles: sparse.csr_matrix) -> FloatArray:
    """Column sums in float64; SciPy adds up float32 values in float32."""
    sums = np.bincount(profiles.indices, profiles.data.astype(np.float64), profiles.shape[1])
    return np.asarray(sums, dtype=np.float64)


def _largest(matrix: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """Eigenvectors in columns, and eigenvalues, by decreasing eigenvalue.

    A few of many are found by Lanczos iteration, to the rounding error of float64, all others by decomposition.
    """
    from scipy.linalg import eigh

    n = len(matrix)
    found = _iterated(matrix, k) if n >= _ITERATED * k else None
    values, vectors = eigh(matrix, subset_by_index=[n - k, n - 1]) if found is None else found
    return vectors[:, ::-1], values[::-1]


def _iterated(matrix: FloatArray, k: int) -> tuple[FloatArray, FloatArray] | None:
    """The `k` largest eigenvalues, increasing, and their vectors; `None` where they are not found or some are zero."""
    from scipy.linalg.blas import dsymv
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    half = matrix if matrix.flags.f_contiguous else matrix.T  # symmetric; a product reads one triangle, half the memory
    operator = LinearOperator(matrix.shape, dtype=np.float64, matvec=lambda v: dsymv(1.0, half, np.ravel(v)))
    start = np.random.default_rng(0).normal(size=len(matrix))
    try:
        values, vectors = eigsh(operator, k=k, v0=start, ncv=3 * k, tol=_TOLERANCE)
    except ArpackError:
        return None
    order = np.argsort(values)
    values, vectors = values[order], vectors[:, order]
    return (values, vectors) if values[0] > _RANK * values[-1] else None


def _signed(axes: FloatArray) -> FloatArray:
    """The entry of largest size of each axis is positive, as in scikit-learn."""
    return axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])


class SharedSums:
    """Sums over the rows that are learned from, from which the sums over most of them follow by subtraction.

    Parameters
    ----------
    profiles
        The rows, `(cells, genes)`, as the embedder sees them.
    kind
        What they hold.
    n_top
        Number of variable genes.
    """

    def __init__(self, profiles: sparse.csr_matrix, kind: str, n_top: int) -> None:
        self.profiles, self.kind, self.n_top = profiles, kind, n_top
        self._sums = GeneSums.of(profiles, kind)
        self._forget()

    def choose(self, train: IntArray) -> IntArray:
        """Columns of the variable genes of the rows `train`."""
        out = self._left_out(train)
        few = out if len(out) < len(train) else train
        sums = GeneSums.of(self.profiles[few], self.kind)
        return variable_genes(self._sums - sums if few is out else sums, self.kind, self.n_top)

    def expect(self, trains: Sequence[IntArray]) -> None:
        """Prepare for :meth:`axes` of several choices of rows, so that the products are made once."""
        wanted = [self.choose(train) for train in trains]
        if wanted and len(genes := np.unique(np.concatenate(wanted))) <= MAX_SIDE:
            self._find(genes)

    def axes(self, train: IntArray, n_comps: int) -> tuple[IntArray, FloatArray, FloatArray]:
        """Columns of the variable genes of the rows `train`, their mean, and their principal axes `(genes, n_comps)`."""
        chosen, n = self.choose(train), len(train)
        n_comps = min(n_comps, n - 1, len(chosen) - 1)
        out = self._left_out(train)
        if n <= len(chosen) or len(out) >= n:
            return chosen, *principal_axes(self.profiles[train][:, chosen], n_comps)
        at = self._find(chosen)
        left_out = self._part[out][:, at]
        mean = (self._column_sums[at] - column_sums(left_out)) / n
        return chosen, mean, axes_of(self._products[np.ix_(at, at)] - products(left_out), mean, n, n_comps)

    def coordinates(self, chosen: IntArray, mean: FloatArray, axes: FloatArray) -> FloatArray:
        """All rows, `(cells, n_comps)`, along axes from :meth:`axes`."""
        at = self._where[chosen]
        if (at < 0).any():
            return self.profiles[:, chosen] @ axes - mean @ axes
        padded = np.zeros((self._part.shape[1], axes.shape[1]))
        padded[at] = axes
        return self._part @ padded - mean @ axes

    def _left_out(self, train: IntArray) -> IntArray:
        return np.setdiff1d(np.arange(self.profiles.shape[0]), train)

    def _find(self, chosen: IntArray) -> IntArray:
        """Where the genes `chosen` stand in the products, which grow as folds ask for more genes."""
        missing = chosen[self._where[chosen] < 0]
        if len(missing):
            if self._part.shape[1] + len(missing) > MAX_SIDE:
                self._forget()
                missing = chosen
            elif not self._part.shape[1]:  # first fold: with the genes that others are likely to ask for
                missing = np.union1d(missing, variable_genes(self._sums, self.kind, int(_SPARE * self.n_top)))
            self._grow(missing)
        return self._where[chosen]

    def _forget(self) -> None:
        self._where = np.full(self.profiles.shape[1], -1)
        self._part = self.profiles[:, :0]
        self._column_sums = np.empty(0)
        self._products = np.empty((0, 0))

    def _grow(self, genes: IntArray) -> None:
        old = self._part.shape[1]
        known = np.append(np.argsort(self._where)[len(self._where) - old :], genes)
        self._where[known] = np.arange(len(known))
        self._part = self.profiles[:, known]
        self._column_sums = column_sums(self._part)
        grown = np.zeros((len(known), len(known)))
        grown[:old, :old] = self._products
        grown[:, old:] = products(self._part, old)
        grown[old:, :old] = grown[:old, old:].T
        self._products = grown
