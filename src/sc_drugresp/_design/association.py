"""How strongly columns go with the label over patients, with one error level for all of them together.

Labels are dealt out again to patients; every column keeps its own permutation p-value, and the smallest of a family is
compared with the smallest of each arrangement (min-p of Westfall & Young 1993, "Resampling-based multiple testing"). Unlike
a correction by Holm, this does not pay twice for columns that say the same, or for columns that cannot reach a small p-value.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from .aliasing import aliasing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .columns import Column
    from .units import UnitTable

LEVELS = {"design": 0.02, "measured": 0.008, "several": 0.006, "derived": 0.05}
"""Error level of each family of columns; the first three sum to less than the 5 % of clean cohorts that may
be called confounded."""
_CELLS_TELL = 0.7
"""AUROC over cells below which a measurement that varies within patients is not called a confounder."""
_STRIKING, _SMALL = 0.75, 0.05
_WHOLE = 0.9
"""Mean share of the main level in patients from which a column is a property of patients, not of their cells."""
_MOST_PAIRS, _BINS = 60, 4


@dataclass(frozen=True)
class Association:
    """One column, or several together, and the label over patients.

    Parameters
    ----------
    name, family
        What goes with the label.
    auroc
        How well it tells the label of patients: leave-one-out for names, as it is for numbers.
    p_value, p_single
        Corrected for all columns of the family, and of this column alone.
    strata
        Level, or quarter of the numbers, of each row of the unit table.
    right, n
        Patients whose label is that of most patients of their stratum, of how many.
    confounds
        It is called a confounder.
    aliased
        A class stands on a single level of a column of the design, and no level holds both.
    """

    name: str
    family: str
    auroc: float
    p_value: float
    p_single: float
    strata: np.ndarray
    right: int
    n: int
    confounds: bool
    aliased: bool

    @property
    def striking(self) -> bool:
        """Worth a remark although it is not beyond chance once all columns are counted."""
        return self.auroc >= _STRIKING and self.p_single <= _SMALL

    def __str__(self) -> str:
        return (
            f"{self.name} (tells the label of {self.right} of {self.n}, AUROC {self.auroc:.2f}, p = {self.p_single:.2g}, "
            f"{self.p_value:.2g} counting all columns)"
        )


@dataclass(frozen=True)
class _Test:
    name: str
    family: str
    matrix: np.ndarray
    strata: np.ndarray
    auroc: float
    allowed: bool = True
    names: bool = True
    whole: bool = False


def associations(columns: Sequence[Column], table: UnitTable, y: np.ndarray) -> list[Association]:
    """Test columns, pairs of columns and all of them together; the strongest first.

    Parameters
    ----------
    columns
        Those that `usable_columns` found, for all labeled cells.
    table
        The patients.
    y
        Label of each labeled cell.
    """
    cells, rows = table.cells()
    columns = [column.take(cells) for column in columns]
    tests = [_single(column, table, rows, y[cells]) for column in columns]
    tests = [test for test in tests if test.matrix.size]
    tests += _several(columns, tests, table, rows)
    if not tests or len(np.unique(table.labels)) < 2:
        return []
    labels = table.arrangements()
    labels = _centered(labels.T, table.strata).T
    p_values = np.column_stack([_p_values(labels, test.matrix) for test in tests])
    found = []
    for family, level in LEVELS.items():
        members = [i for i, test in enumerate(tests) if test.family == family]
        if not members:
            continue
        smallest = np.sort(p_values[:, members].min(axis=1))
        for i in members:
            test, single = tests[i], float(p_values[0, i])
            p_value = float(np.searchsorted(smallest, single + 1e-12, side="right") / len(smallest))
            kind = aliasing(table.labels, test.strata)
            right = sum(int(np.bincount(table.labels[test.strata == s]).max()) for s in np.unique(test.strata))
            found.append(
                Association(
                    test.name,
                    family,
                    test.auroc,
                    p_value,
                    single,
                    test.strata,
                    right,
                    len(table),
                    confounds=test.allowed and family != "derived" and p_value <= level,
                    aliased=test.whole and family == "design" and kind.aliased and not table.paired.any(),
                )
            )
        # One column says more than several together, and a confounder more than what was read from expression.
    return sorted(
        found,
        key=lambda a: (
            not a.aliased,
            not a.confounds,
            a.family == "several",
            a.family == "derived",
            a.p_single,
            -a.auroc,
        ),
    )


def best_dimension(values: np.ndarray, table: UnitTable) -> tuple[float, float]:
    """AUROC over patients of the dimension that tells their label best, and its p-value among all dimensions.

    Parameters
    ----------
    values
        Numbers of each labeled cell, shape `(n, dim)`; rows with missing values are left out.
    table
        The patients.
    """
    cells, rows = table.cells()
    known = np.isfinite(values[cells]).all(axis=1)
    cells, rows = cells[known], rows[known]
    members = sparse.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(len(table), len(rows)))
    means = (members @ values[cells]) / np.maximum(np.bincount(rows, minlength=len(table)), 1)[:, None]
    ranks = _scaled(np.column_stack([_ranks(part, table.strata) for part in means.T]))
    if not ranks.size or len(np.unique(table.labels)) < 2:
        return 0.5, 1.0
    labels = _centered(table.arrangements(n=2_000).T, table.strata).T
    statistic = np.abs(labels @ ranks).round(9).max(axis=1)
    auroc = max(_either_way(part, table) for part in ranks.T)
    return auroc, float(np.mean(statistic >= statistic[0]))


def _single(column: Column, table: UnitTable, rows: np.ndarray, y: np.ndarray) -> _Test:
    n = len(table)
    values = column.of_rows(rows, n)
    if column.numbers is None:
        strata = values.argmax(axis=1)
        held = np.array([len(np.unique(table.held[level > 0])) > 1 for level in values.T])
        matrix = _centered(values[:, held], table.strata)
        named = values[:, np.array(column.levels) != ""]
        whole = (
            bool((named.max(axis=1) / np.maximum(named.sum(axis=1), 1e-9)).mean() >= _WHOLE) if named.size else False
        )
        return _Test(column.name, column.family, _scaled(matrix), strata, _leave_one_out(values, table), whole=whole)
    means = values[:, 0]
    ranks = np.column_stack([_ranks(part, table.strata) for part in values.T])
    auroc = _either_way(means, table)
    allowed = _constant(column.numbers, rows) or _cells_tell(column.numbers, rows, y, table)
    return _Test(column.name, column.family, _scaled(ranks), quarters(means), auroc, allowed, names=False)


def _several(columns: list[Column], tests: list[_Test], table: UnitTable, rows: np.ndarray) -> list[_Test]:
    """Pairs of names, numbers cut into quarters, and all columns together."""
    out: list[_Test] = []
    n = len(table)
    named = [test for test in tests if test.names and test.family != "derived" and len(np.unique(test.strata)) > 1]
    for one, two in list(combinations(named, 2))[:_MOST_PAIRS]:
        strata = np.unique(np.column_stack([one.strata, two.strata]), axis=0, return_inverse=True)[1].ravel()
        k = strata.max() + 1
        if k <= max(strata_of(one), strata_of(two)) or k > n / 2:
            continue
        out.append(_levels_test(f"{one.name} x {two.name}", strata, table))
    out += [
        _levels_test(f"{test.name} in quarters", test.strata, table)
        for test in tests
        if not test.names and test.family != "derived" and test.allowed and n >= 3 * _BINS
    ]
    parts = [test.matrix for test in tests if test.family != "derived" and test.allowed]
    if len(parts) > 1:
        u, d, _ = np.linalg.svd(np.column_stack(parts), full_matrices=False)
        weight = d**2 / (d**2 + np.mean(d**2) + 1e-12)
        fitted = (u * weight) @ (u.T @ (table.labels - table.labels.mean()))
        hat = np.einsum("ij,j,ij->i", u, weight, u)
        left_out = (fitted - hat * (table.labels - table.labels.mean())) / np.maximum(1 - hat, 1e-6)
        auroc = max(0.5, _pairs_right(left_out, table))
        out.append(
            _Test("all columns together", "several", u * np.sqrt(weight), quarters(left_out), auroc, names=False)
        )
    return out


def _levels_test(name: str, strata: np.ndarray, table: UnitTable) -> _Test:
    share = np.eye(strata.max() + 1)[strata]
    matrix = _scaled(_centered(share, table.strata))
    return _Test(name, "several", matrix, strata, _leave_one_out(share, table), names=False)


def strata_of(test: _Test) -> int:
    """Number of strata of a test."""
    return len(np.unique(test.strata))


def quarters(values: np.ndarray) -> np.ndarray:
    """Numbers cut into at most four equal parts, each of at least three."""
    bins = int(np.clip(len(values) // 3, 1, _BINS))
    return np.searchsorted(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]), values, side="right")


def _p_values(labels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Permutation p-value of every arrangement, as if it were the true one."""
    statistic = np.round(((labels @ matrix) ** 2).sum(axis=1), 9)
    return rankdata(-statistic, method="max") / len(statistic)


def _centered(values: np.ndarray, strata: np.ndarray) -> np.ndarray:
    out = values.astype(float)
    for stratum in np.unique(strata):
        rows = strata == stratum
        out[rows] -= out[rows].mean(axis=0)
    return out


def _scaled(matrix: np.ndarray) -> np.ndarray:
    """Columns of length one; those that do not vary are left out."""
    length = np.linalg.norm(matrix, axis=0)
    return matrix[:, length > 1e-9] / length[length > 1e-9]


def _ranks(values: np.ndarray, strata: np.ndarray) -> np.ndarray:
    out = np.zeros(len(values))
    for stratum in np.unique(strata):
        rows = strata == stratum
        out[rows] = rankdata(values[rows])
    return _centered(out[:, None], strata)[:, 0]


def _leave_one_out(share: np.ndarray, table: UnitTable) -> float:
    """AUROC of predicting each row from the labels of the other rows at its levels; not below one half."""
    y = table.labels
    prior = y.mean()
    total, positive = share.sum(axis=0), share.T @ y
    rest, right = total[None, :] - share, positive[None, :] - share * y[:, None]
    rate = (right + prior) / (rest + 1)
    return max(0.5, _pairs_right((share * rate).sum(axis=1), table))


def _either_way(values: np.ndarray, table: UnitTable) -> float:
    auroc = _pairs_right(values, table)
    return max(auroc, 1 - auroc)


def _pairs_right(values: np.ndarray, table: UnitTable) -> float:
    right, pairs = count_pairs(values, table.labels[None, :].astype(float), table.strata)
    return float(right[0] / pairs[0]) if pairs[0] else 0.5


def count_pairs(values: np.ndarray, labels: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a sensitive and a resistant row of one stratum in the right order, and all pairs, by arrangement of labels."""
    higher = (values[:, None] > values[None, :]) + 0.5 * (values[:, None] == values[None, :])
    same = (strata[:, None] == strata[None, :]) & ~np.eye(len(values), dtype=bool)
    return ((labels @ (higher * same)) * (1 - labels)).sum(axis=1), ((labels @ same) * (1 - labels)).sum(axis=1)


def _constant(numbers: np.ndarray, rows: np.ndarray) -> bool:
    filled = np.where(np.isfinite(numbers), numbers, -np.inf)
    order = np.lexsort((filled, rows))
    same = rows[order][1:] == rows[order][:-1]
    return bool((filled[order][1:] == filled[order][:-1])[same].all())


def _cells_tell(numbers: np.ndarray, rows: np.ndarray, y: np.ndarray, table: UnitTable) -> bool:
    """A threshold on single cells tells the classes apart, patients weighing the same."""
    from sklearn.metrics import roc_auc_score

    known = np.isfinite(numbers)
    if len(np.unique(y[known])) < 2:
        return True
    weights = 1 / np.bincount(rows[known], minlength=len(table))[rows[known]]
    auroc = roc_auc_score(y[known], numbers[known], sample_weight=weights)
    return bool(max(auroc, 1 - auroc) >= _CELLS_TELL)
