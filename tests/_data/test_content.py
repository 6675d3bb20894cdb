"""Counts come back from normalized values exactly, or not at all."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy import sparse

from sc_drugresp._data import read_counts
from sc_drugresp._data.content import kind_of, probe_rows, recover_counts


@pytest.fixture
def counts() -> sparse.csr_matrix:
    rng = np.random.default_rng(1)
    rate = rng.lognormal(-1.5, 1.8, 400)
    depth = rng.lognormal(0, 0.6, (120, 1))
    return sparse.csr_matrix(rng.poisson(rate * depth).astype(np.float32))


def normalized(counts, *, target_sum=1e4, log=True, base=None) -> ad.AnnData:
    adata = ad.AnnData(counts.copy())
    sc.pp.normalize_total(adata, target_sum=target_sum)
    if log:
        sc.pp.log1p(adata, base=base)
    return adata


def read(adata) -> np.ndarray:
    return np.vstack([block.toarray() for _, block in read_counts(adata).blocks(50)])


@pytest.mark.parametrize(
    "how",
    [
        {"target_sum": 1e4},
        {"target_sum": 1e6},
        {"target_sum": None},  # scanpy's default: the median
        {"target_sum": 1e4, "base": 2},
        {"target_sum": 1e4, "base": 10},
        {"target_sum": 1e4, "log": False},
    ],
)
@pytest.mark.parametrize("dense", [False, True])
def test_what_scanpy_did_is_undone_exactly(counts, how, dense):
    adata = normalized(counts, **how)
    if dense:
        adata.X = adata.X.toarray()
    source = read_counts(adata)
    assert (source.kind, source.origin) == ("counts", "X (counts recovered)")
    np.testing.assert_array_equal(read(adata), counts.toarray())


def test_deep_cells_and_large_counts():
    rng = np.random.default_rng(2)
    counts = rng.negative_binomial(0.3, 0.001, (20, 300)).astype(np.float32)
    counts[:, 0] = 1
    counts[:, 1] = 60_000
    adata = normalized(sparse.csr_matrix(counts))
    np.testing.assert_array_equal(read(adata), counts)


def test_smallest_count_need_not_be_one(counts):
    odd = counts.copy()
    odd.data = odd.data * 2 + 1  # 3, 5, 7, ...
    np.testing.assert_array_equal(read(normalized(odd)), odd.toarray())


def test_genes_removed_after_normalization_do_not_matter(counts):
    adata = normalized(counts)[:, 100:].copy()
    np.testing.assert_array_equal(read(adata), counts.toarray()[:, 100:])


@pytest.mark.parametrize("spoil", ["noise", "corrected", "rounded", "tpm", "few genes", "half precision"])
def test_anything_else_is_refused(counts, spoil):
    rng = np.random.default_rng(3)
    adata = normalized(counts)
    if spoil == "noise":
        adata.X.data += rng.normal(0, 1e-3, adata.X.nnz).astype(np.float32)
    elif spoil == "corrected":  # ambient RNA taken away before normalization
        changed = counts.copy()
        changed.data = changed.data * rng.uniform(0.7, 1, changed.nnz).astype(np.float32)
        adata = normalized(changed)
    elif spoil == "rounded":
        adata.X.data = np.round(adata.X.data, 2)
    elif spoil == "tpm":
        adata = normalized(sparse.csr_matrix(counts / rng.uniform(0.5, 5, counts.shape[1]).astype(np.float32)))
    elif spoil == "few genes":
        adata = adata[:, :15].copy()
    else:
        adata.X.data = adata.X.data.astype(np.float16).astype(np.float32)
    with pytest.raises(ValueError, match="does not give integers"):
        read_counts(adata)


@pytest.mark.parametrize("base", [1.0, np.log(2), np.log(10)])
def test_logged_counts_that_were_not_normalized(counts, base):
    logged = counts.copy()
    logged.data = (np.log1p(logged.data) / base).astype(np.float32)
    source = read_counts(ad.AnnData(logged))
    assert source.transform.endswith("_counts")
    np.testing.assert_array_equal(read(ad.AnnData(logged)), counts.toarray())
    late = sparse.vstack([logged] * 10, format="csr")
    row = next(i for i in range(100, 1000) if i not in set(probe_rows(1200)))
    late.data[late.indptr[row]] = np.log1p(0.5) / base
    with pytest.raises(ValueError, match=f"row {row} the integer counts"):
        read(ad.AnnData(late))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("part", [1 / 2, 1 / 3, 1 / 4])
def test_reads_divided_among_genes_are_no_normalized_counts(counts, log, part):
    shared = counts.copy()
    shared.data[::7] += np.float32(part)
    if log:
        shared.data = np.log1p(shared.data)
    with pytest.raises(ValueError, match="does not give integers"):
        read_counts(ad.AnnData(shared))


def test_zeros_and_ones_prove_nothing(counts):
    binary = counts.copy()
    binary.data[:] = 1
    with pytest.raises(ValueError, match="does not give integers"):
        read_counts(normalized(binary))


def test_one_spoiled_cell_is_found_when_it_is_read(counts):
    adata = normalized(sparse.vstack([counts] * 10, format="csr"))
    spoiled = next(i for i in range(100, 1000) if i not in set(probe_rows(1200)))
    adata.X.data[adata.X.indptr[spoiled] + 3] *= 1.01
    source = read_counts(adata)
    with pytest.raises(ValueError, match=f"row {spoiled} the integer counts cannot be recovered"):
        list(source.blocks(64))


@pytest.mark.filterwarnings("ignore:Some cells have zero counts")
def test_empty_cells_are_fine(counts):
    with_empty = counts.toarray()
    with_empty[[0, 7, 119]] = 0
    np.testing.assert_array_equal(read(normalized(sparse.csr_matrix(with_empty))), with_empty)
    recovered, wrong = recover_counts(sparse.csr_matrix((3, 4), dtype=np.float32), "log1p")
    assert len(recovered) == len(wrong) == 0


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "counts"),
        ([1, 2, 3], "counts"),
        ([0.5, 3], "log_normalized"),
        ([0.5, 300], "nonnegative"),
        ([-1, 3], "scaled"),
        ([1, np.nan], "nan"),
        ([1, np.inf], "infinite"),
    ],
)
def test_kinds(values, kind):
    assert kind_of(np.array(values, dtype=np.float32)) == kind


@pytest.mark.parametrize("n", [1, 5, 255, 256, 257, 100_000])
def test_probed_rows(n):
    rows = probe_rows(n)
    assert rows[0] == 0
    assert rows[-1] == n - 1
    assert len(np.unique(rows)) == len(rows) <= 256
