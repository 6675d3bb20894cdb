from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sc_drugresp._stats.same_unit import contrasts, find_same


def patients(rng, n, cells, effect, *, directions=None):
    """Counts of patients that differ in all genes, or in a few directions, and their codes."""
    genes = 300
    if directions is None:
        shift = effect * rng.normal(size=(n, genes))
    else:
        shift = effect * rng.normal(size=(n, directions)) @ rng.normal(size=(directions, genes)) / np.sqrt(directions)
    share = np.exp(rng.normal(0, 1.2, genes) + shift)
    codes = np.repeat(np.arange(n), cells)
    total = 600 * np.exp(0.4 * rng.normal(size=(len(codes), 1)))
    return sparse.csr_matrix(
        rng.poisson(share[codes] / share[codes].sum(axis=1, keepdims=True) * total).astype(float)
    ), codes


def two_names(codes, which):
    """Every second cell of some groups under a new code."""
    out = codes.copy()
    for new, old in enumerate(which, codes.max() + 1):
        out[np.flatnonzero(codes == old)[1::2]] = new
    return out


@pytest.mark.parametrize("which", [[0], [1, 4, 6], list(range(10))])
def test_two_names_of_one_patient_are_found(which):
    rng = np.random.default_rng(0)
    counts, codes = patients(rng, 10, 80, 0.4)
    named = two_names(codes, which)
    found = find_same(named, lambda rows: counts[rows])
    expected = {(old, new) for new, old in enumerate(which, 10)}
    pairs = {(min(a, b), max(a, b)) for a, b, _ in found}
    assert pairs <= expected
    assert len(pairs) >= 0.9 * len(expected)
    assert all(auroc < 0.7 for *_, auroc in found)


@pytest.mark.parametrize("effect", [0.0, 0.03, 0.1, 0.3, 0.6])
def test_different_patients_are_left_apart(effect):
    for seed in range(4):
        counts, codes = patients(np.random.default_rng(seed), 14, 30, effect)
        assert find_same(codes, lambda rows, counts=counts: counts[rows]) == []


def test_patients_that_differ_in_few_directions_are_left_apart():
    found = 0
    for seed in range(8):
        counts, codes = patients(np.random.default_rng(seed), 16, 40, 0.5, directions=3)
        found += bool(find_same(codes, lambda rows, counts=counts: counts[rows]))
    assert found <= 1


def test_batches_are_not_patients():
    """Patients of a batch that do not differ are many that look alike, not one with many names."""
    rng = np.random.default_rng(0)
    counts, _ = patients(rng, 2, 240, 0.5)
    assert find_same(np.arange(480) // 30, lambda rows: counts[rows]) == []


def test_contrasts():
    rng = np.random.default_rng(0)
    counts, codes = patients(rng, 4, 100, 0.4)
    found = contrasts(counts, two_names(codes, [0]))
    assert found.auroc[0, 4] == pytest.approx(0.5, abs=0.15)
    assert found.auroc[1, 2] > 0.95
    assert np.array_equal(found.auroc, found.auroc.T, equal_nan=True)
    assert abs(found.distance[0, 4]) < 0.1 * found.distance[1, 2]


def test_few_groups_or_cells_say_nothing():
    rng = np.random.default_rng(0)
    counts, codes = patients(rng, 3, 20, 0.4)
    assert find_same(codes, lambda rows: counts[rows]) == []
    counts, codes = patients(rng, 8, 5, 0.4)
    assert find_same(codes, lambda rows: counts[rows]) == []
