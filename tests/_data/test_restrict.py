"""Restricting CSR rows to a model's genes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sc_drugresp._data.kernels import restrict_rows


@pytest.mark.parametrize("n_ranks", [3, 64, 200])
def test_equals_the_dense_product(n_ranks: int):
    rng = np.random.default_rng(n_ranks)
    dense = rng.poisson(0.4, (7, 150)).astype(np.float32)
    dense[2] = 0
    rank = rng.integers(-1, n_ranks, 150).astype(np.int32)  # unknown columns, and columns that share a place
    csr = csr_matrix(dense)
    indptr, ranks, counts, totals = restrict_rows(csr.indptr, csr.indices, csr.data, rank, n_ranks)
    target = np.zeros((150, n_ranks), dtype=np.float32)
    target[np.flatnonzero(rank >= 0), rank[rank >= 0]] = 1
    expected = csr_matrix(dense @ target)
    np.testing.assert_array_equal(indptr, expected.indptr)
    np.testing.assert_array_equal(ranks, expected.indices)
    np.testing.assert_array_equal(counts, expected.data)
    np.testing.assert_array_equal(totals, dense.sum(1))
