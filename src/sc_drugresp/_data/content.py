"""What a matrix holds: raw counts or something else, and counts back from normalized values where that is provable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from .rows import Rows

Kind = Literal["counts", "log_normalized", "scaled", "nonnegative", "nan", "infinite"]
Transform = Literal["log1p_counts", "log2p1_counts", "log10p1_counts", "log1p", "log2p1", "log10p1", "linear"]
WORDS: dict[str, str] = {
    "counts": "raw counts",
    "log_normalized": "values that look log-normalized",
    "scaled": "negative values (scaled, centered or regressed)",
    "nonnegative": "values that are not integers",
    "nan": "NaN",
    "infinite": "infinite values",
}
TRANSFORM_WORDS: dict[str, str] = {
    "log1p_counts": "log1p of counts",
    "log2p1_counts": "log2(1 + counts)",
    "log10p1_counts": "log10(1 + counts)",
    "log1p": "log1p of normalized counts",
    "log2p1": "log2(1 + normalized counts)",
    "log10p1": "log10(1 + normalized counts)",
    "linear": "normalized counts",
}
_LARGEST_LOG = 25.0
_PROBE_RUNS, _PROBE_RUN = 16, 16
_MIN_GENES = 20
"""A cell with fewer detected genes proves nothing about the scale of its counts."""
_EPS = 2.0**-23
_SLACK = 1e-3
_SAME_SUM = 1e-3
_MOST_SIMPLE = 0.1
_MAX_MULTIPLE = 8


def probe_rows(n: int) -> np.ndarray:
    """Runs of rows spread over a matrix: cheap on disk, where single rows are not."""
    starts = np.unique(np.linspace(0, max(n - _PROBE_RUN, 0), _PROBE_RUNS).astype(np.int64))
    return np.unique(np.minimum((starts[:, None] + np.arange(_PROBE_RUN)).ravel(), n - 1))


def kind_of(values: np.ndarray) -> Kind:
    """What the stored values of a matrix say about it."""
    if len(values) == 0:
        return "counts"
    if np.isnan(values).any():
        return "nan"
    if not np.isfinite(values).all():
        return "infinite"
    if values.min() < 0:
        return "scaled"
    if np.array_equal(values, np.rint(values)):
        return "counts"
    return "log_normalized" if values.max() < _LARGEST_LOG else "nonnegative"


def probe(rows: Rows) -> Kind:
    """What a matrix holds, judged from rows spread over it. Blocks are checked again when they are read."""
    return kind_of(rows.read(probe_rows(rows.shape[0])).data)


def find_transform(rows: Rows, kind: Kind) -> Transform | None:
    """The transform that, undone, gives integers in every probed row; `None` where none does."""
    if kind not in {"log_normalized", "nonnegative"}:
        return None
    block = rows.read(probe_rows(rows.shape[0]))
    logs: tuple[Transform, ...] = ("log1p_counts", "log2p1_counts", "log10p1_counts", "log1p", "log2p1", "log10p1")
    for transform in (*logs, "linear") if kind == "log_normalized" else ("linear",):
        counts, wrong = recover_counts(block, transform)
        # Zeros and ones alone prove nothing.
        if len(wrong) == 0 and counts.max(initial=0) > 1 and _was_normalized(block, transform, counts):
            return transform
    return None


def _was_normalized(block: csr_matrix, transform: Transform, counts: np.ndarray) -> bool:
    """Whether the scales of the cells are those of library sizes, not those of counts with halves and thirds in them.

    Reads that were divided among genes give values such as 0.5, which are multiples of one number too. Library-size
    normalization makes the sums of all cells equal; where genes were removed later, it leaves scales that are no
    simple fractions.
    """
    if transform.endswith("_counts"):
        return True
    cells = np.flatnonzero(np.diff(block.indptr))
    starts = block.indptr[cells]
    sums = np.add.reduceat(_undo(block.data.astype(np.float64), transform)[0], starts)
    if len(sums) > 1 and np.ptp(sums) <= _SAME_SUM * sums.mean():
        return True
    scale = sums / np.add.reduceat(counts.astype(np.float64), starts)
    parts = scale[:, None] * np.arange(1, 13)
    simple = (np.abs(parts - np.rint(parts)) < 1e-5 * np.maximum(parts, 1)).any(axis=1)
    return bool(simple.mean() < _MOST_SIMPLE)


def recover_counts(block: csr_matrix, transform: Transform) -> tuple[np.ndarray, np.ndarray]:
    """Undo library-size normalization, exactly or not at all.

    Within a cell every value is `count * k` for one unknown `k`, so that ratios of values are ratios of integers. `k` is
    the smallest value divided by a small integer. A cell passes only if *all* its values come out as integers
    within the rounding error of float32, which is computed for each value, and if it has at least 20 detected genes.
    A common factor of all counts of a cell cannot be seen; with one single transcript in the cell there is none.

    Parameters
    ----------
    block
        Some cells, non-negative values.
    transform
        What was done to the normalized counts.

    Returns
    -------
    counts
        For each stored value, float32.
    wrong
        Rows of the block that have no exact solution.
    """
    x = block.data.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        value, error = _undo(x, transform)
        if transform.endswith("_counts"):
            return _unscaled(block, value, error)
        detected = np.diff(block.indptr)
        cells = np.flatnonzero(detected)
        if len(cells) == 0:
            return block.data, cells
        row = np.repeat(np.arange(len(cells)), detected[cells])
        starts = block.indptr[cells]
        least = np.minimum.reduceat(value, starts)
        least_error = np.maximum.reduceat(np.where(value == least[row], error, 0.0), starts)[row]
        counts = np.full(len(x), np.nan)
        solved = detected[cells] < _MIN_GENES  # judged below: these are wrong in any case
        for multiple in range(1, _MAX_MULTIPLE + 1):
            ratio = value / least[row] * multiple
            # Small counts find the scale; with their sum it is known well enough for the large ones.
            small = (ratio < 200.0 * multiple) & np.isfinite(ratio)
            near = np.rint(ratio)
            fits = ~small | (np.abs(ratio - near) <= near * (error + least_error) + _SLACK)
            candidate = np.logical_and.reduceat(fits, starts) & ~solved
            if candidate.any():
                sums, total = (np.add.reduceat(np.where(small, part, 0.0), starts) for part in (value, near))
                exact = value / (sums / total)[row]
                whole, good = _integers(exact, 2 * error)
                candidate &= np.logical_and.reduceat(good, starts)
                take = candidate[row]
                counts[take] = whole[take]
                solved |= candidate
            if solved.all():
                break
    bad = ~solved | (detected[cells] < _MIN_GENES)
    return counts.astype(np.float32), cells[bad]


def _unscaled(block: csr_matrix, value: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts that were not normalized, only logged."""
    whole, good = _integers(value, error)
    row = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    return whole.astype(np.float32), np.unique(row[~good])


def _integers(value: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest integers, and where a value is one (at least 1) within its relative error."""
    whole = np.rint(value)
    tolerance = whole * error + _SLACK
    return whole, (np.abs(value - whole) <= tolerance) & (tolerance < 0.25) & (whole >= 1)


def _undo(x: np.ndarray, transform: Transform) -> tuple[np.ndarray, np.ndarray]:
    """Values before the transform, and the relative error that float32 may have left in them."""
    if transform == "linear":
        return x, np.full(len(x), 2 * _EPS)
    base = {"log1p": 1.0, "log2p1": np.log(2.0), "log10p1": np.log(10.0)}[transform.removesuffix("_counts")]
    natural = x * base
    value = np.expm1(natural)
    # d value / d x = base * (value + 1), with an error of one unit in the last place of x.
    return value, _EPS * (2.0 + natural * (value + 1.0) / value)
