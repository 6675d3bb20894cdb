from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sc_drugresp._stats.near_copies import find_near_copies


def cells(n, genes, depth, rng, spread=1.5):
    """Independent cells of one type."""
    share = np.exp(rng.normal(0, spread, genes))
    total = depth * np.exp(0.4 * rng.normal(size=(n, 1)))
    return rng.poisson(share / share.sum() * total).astype(np.float32)


def search(counts, groups, **options):
    matrix = sparse.csr_matrix(counts)
    blocks = [(0, matrix[:70]), (70, matrix[70:])]
    return find_near_copies(lambda: blocks, groups, lambda rows: matrix[rows], counts=True, **options)


@pytest.mark.parametrize(
    ("depth", "genes", "spread"), [(60, 300, 1.5), (600, 300, 1.5), (20_000, 500, 2.5), (200, 50, 1.0)]
)
def test_cells_of_one_type_are_no_copies(depth, genes, spread):
    rng = np.random.default_rng(0)
    counts = cells(600, genes, depth, rng, spread)
    assert len(search(counts, np.arange(600) % 12).pairs) == 0


@pytest.mark.parametrize(("change", "least"), [("exact", 1.0), ("three counts", 1.0), ("thinned", 0.9)])
def test_copies_are_found(change, least):
    rng = np.random.default_rng(0)
    counts = cells(300, 500, 2000, rng)
    copied = counts[:50].copy()
    if change == "three counts":
        for row in copied:
            row[rng.choice(500, 3, replace=False)] += 1
    elif change == "thinned":
        copied = rng.binomial(copied.astype(int), 0.8).astype(np.float32)
    groups = np.r_[np.arange(300) % 6, np.full(50, 6)]
    found = search(np.concatenate([counts, copied]), groups)
    right = {(i, 300 + i) for i in range(50)}
    pairs = set(map(tuple, found.pairs.tolist()))
    assert pairs <= right
    assert len(pairs) >= least * 50
    share = found.share(groups)
    assert all(value >= 0.9 for (_, b), value in share.items() if b == 6) or sum(share.values()) > 0
    hashes = np.arange(1, 351, dtype=np.uint64)
    labeled = found.label(hashes)
    assert all(labeled[i] == labeled[j] for i, j in pairs)
    assert len(np.unique(labeled)) == 350 - len(pairs)


def test_copies_within_a_group_do_not_matter():
    rng = np.random.default_rng(0)
    counts = cells(100, 300, 1000, rng)
    both = np.concatenate([counts, counts])
    assert len(search(both, np.zeros(200, dtype=int)).pairs) == 0
    assert len(search(both, np.repeat([0, 1], 100)).pairs) == 100


def test_work_is_bounded_and_says_so():
    rng = np.random.default_rng(0)
    counts = cells(100, 300, 1000, rng)
    found = search(np.concatenate([counts, counts]), np.repeat([0, 1], 100), most_pairs=200 * 20)
    assert found.n_compared == 20
    assert 10 <= len(found.pairs) <= 20


def test_other_values_are_compared_by_their_direction():
    rng = np.random.default_rng(0)
    values = np.log1p(cells(100, 300, 1000, rng))
    matrix = sparse.csr_matrix(np.concatenate([values, values[:10] * 1.0001]))
    groups = np.r_[np.zeros(100, dtype=int), np.ones(10, dtype=int)]
    found = find_near_copies(lambda: [(0, matrix)], groups, lambda rows: matrix[rows], counts=False)
    assert found.pairs.tolist() == [[i, 100 + i] for i in range(10)]
