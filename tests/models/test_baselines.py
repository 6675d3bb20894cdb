"""PCA and variable genes: scanpy's choice, exact components, and refits that equal fresh fits."""

from __future__ import annotations

from copy import copy

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sc_drugresp._core.settings import settings
from sc_drugresp._data import read_counts
from sc_drugresp.models import _refits
from sc_drugresp.models._refits import GeneSums, principal_axes, products, variable_genes
from sc_drugresp.models.baselines import HVG, PCA


def counts(rng: np.random.Generator, n: int, width: int) -> sparse.csr_matrix:
    """Overdispersed counts with programs, rare genes and silent genes."""
    rate = rng.gamma(0.3, 2.0, width) * np.exp(rng.normal(size=(n, 4)) @ (0.6 * rng.normal(size=(4, width))))
    return sparse.csr_matrix(rng.poisson(rate * rng.gamma(3, 0.3, (n, 1))).astype(np.float32))


def cells(rng: np.random.Generator, n: int, width: int, kind: str = "counts") -> ad.AnnData:
    matrix = counts(rng, n, width)
    if kind != "counts":
        matrix = matrix.multiply(1e4 / np.maximum(matrix.sum(axis=1), 1)).log1p().tocsr().astype(np.float32)
    if kind == "scaled":
        matrix = matrix.toarray()
        matrix = (matrix - matrix.mean(axis=0)) / np.maximum(matrix.std(axis=0), 0.1)
    return ad.AnnData(matrix, var=pd.DataFrame(index=[f"g{i}" for i in range(width)]))


def fresh(embedder, source, train: np.ndarray) -> np.ndarray:
    mask = np.zeros(source.n_obs, dtype=bool)
    mask[train] = True
    return copy(embedder).fit(source, mask_obs=mask).transform(source)


@pytest.mark.parametrize("seed", range(25))
def test_genes_are_those_of_scanpy(seed: int) -> None:
    import scanpy as sc

    rng = np.random.default_rng(seed)
    n, width = int(rng.integers(5, 200)), int(rng.integers(30, 600))
    matrix = counts(rng, n, width)
    matrix = matrix[:, matrix.getnnz(axis=0) > 0]
    logged = matrix.multiply(1e4 / np.maximum(matrix.sum(axis=1), 1)).log1p().tocsr().astype(np.float32)
    adata = ad.AnnData(logged)
    n_top = int(rng.integers(5, matrix.shape[1] // 2))
    sc.pp.highly_variable_genes(adata, n_top_genes=n_top, flavor="seurat")
    expected = np.flatnonzero(adata.var["highly_variable"])
    np.testing.assert_array_equal(variable_genes(GeneSums.of(logged, "counts"), "counts", n_top), expected)


def test_silent_and_constant_genes_do_not_enter_the_bins() -> None:
    rng = np.random.default_rng(0)
    logged = counts(rng, 40, 60).log1p().toarray()
    logged[:, :7] = 0
    logged[:, 7] = 1.5
    chosen = variable_genes(GeneSums.of(sparse.csr_matrix(logged), "log_normalized"), "log_normalized", 20)
    assert not np.isin(np.arange(8), chosen).any()


@pytest.mark.parametrize(("n", "width"), [(120, 40), (30, 90)])
@pytest.mark.parametrize("max_side", [5_000, 20])
def test_axes_are_those_of_a_singular_value_decomposition(monkeypatch, n: int, width: int, max_side: int) -> None:
    monkeypatch.setattr(_refits, "MAX_SIDE", max_side)
    x = counts(np.random.default_rng(1), n, width).log1p()
    mean, axes = principal_axes(x, 6)
    dense = x.toarray().astype(np.float64)
    np.testing.assert_allclose(mean, dense.mean(axis=0))
    right = np.linalg.svd(dense - dense.mean(axis=0))[2][:6].T
    np.testing.assert_allclose(np.abs((axes * right).sum(axis=0)), 1, atol=1e-8)
    assert (axes[np.abs(axes).argmax(axis=0), range(6)] > 0).all()


def test_fit_is_scanpys_pca() -> None:
    import scanpy as sc

    adata = cells(np.random.default_rng(2), 150, 80)
    pca = PCA(n_comps=8, n_top_genes=1_000)
    source = read_counts(adata)
    ours = pca.fit(source).transform(source)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=8)
    np.testing.assert_allclose(ours, adata.obsm["X_pca"], atol=2e-4)


@pytest.mark.parametrize("kind", ["counts", "log_normalized", "scaled"])
@pytest.mark.parametrize(("n", "width", "n_top"), [(160, 120, 40), (160, 40, 100), (50, 300, 80)])
@pytest.mark.parametrize("model", ["pca", "hvg"])
def test_refits_equal_fresh_fits(kind: str, n: int, width: int, n_top: int, model: str) -> None:
    rng = np.random.default_rng(3)
    adata = cells(rng, n, width, kind)
    if kind == "counts":
        dense = adata.X.toarray()
        dense[n // 5 :, -1] = 0  # a gene that nobody but the first fold's cells expresses
        adata.X = sparse.csr_matrix(dense)
    source = read_counts(adata, expect="any")
    assert source.kind == kind
    embedder = PCA(n_comps=5, n_top_genes=n_top) if model == "pca" else HVG(n_top_genes=n_top)
    embed = embedder.refits(source).embed
    folds = [np.setdiff1d(np.arange(n), part) for part in np.array_split(np.arange(n), 5)]
    for train in [*folds, np.arange(n // 3), np.arange(n)]:
        expected, found = fresh(embedder, source, train), embed(train)
        assert found.dtype == np.float32
        signs = np.sign((expected * found).sum(axis=0)) if model == "pca" else 1
        np.testing.assert_allclose(found * signs, expected, atol=1e-4 * np.abs(expected).max())
    assert not embedder.genes.size  # the embedder itself is not fitted


def test_refits_where_names_repeat_and_products_are_bounded(monkeypatch) -> None:
    rng = np.random.default_rng(4)
    adata = cells(rng, 140, 200)
    adata.var_names = [f"g{i % 150}" for i in range(200)]
    monkeypatch.setattr(_refits, "MAX_SIDE", 45)
    source, pca = read_counts(adata), PCA(n_comps=4, n_top_genes=40)
    embed = pca.refits(source).embed
    for _ in range(4):
        train = np.sort(rng.choice(140, 100, replace=False))
        expected = fresh(pca, source, train)
        np.testing.assert_allclose(np.abs(embed(train)), np.abs(expected), atol=1e-4 * np.abs(expected).max())


def test_folds_of_many_cells_learn_from_one_evenly_spread_choice() -> None:
    adata = cells(np.random.default_rng(5), 90, 60)
    source, pca = read_counts(adata), PCA(n_comps=4, n_top_genes=30, max_fit_cells=40)
    refits, train = pca.refits(source), np.arange(20, 90)
    held = np.intersect1d(np.linspace(0, 89, 50).astype(int), train)
    fitted, expected = refits.fit(train), fresh(PCA(n_comps=4, n_top_genes=30), source, held)
    assert fitted.fitted_on == len(held)
    np.testing.assert_allclose(fitted.transform(source), expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(refits.embed(train), fitted.transform(source))


def test_folds_of_few_among_many_cells_read_their_own() -> None:
    adata = cells(np.random.default_rng(5), 90, 60)
    source, pca = read_counts(adata), PCA(n_comps=4, n_top_genes=30, max_fit_cells=40)
    train = np.arange(12)
    np.testing.assert_array_equal(pca.refits(source).embed(train), fresh(pca, source, train))


def test_sparse_products_are_those_of_the_dense_matrix() -> None:
    rng = np.random.default_rng(8)
    x = sparse.random(300, 70, density=0.08, format="csr", rng=rng, dtype=np.float32)
    dense = x.toarray().astype(np.float64)
    for first in (0, 25, 70):
        np.testing.assert_allclose(products(x, first), dense.T @ dense[:, first:], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("model", [PCA, HVG])
def test_too_few_cells_are_refused(model) -> None:
    source = read_counts(cells(np.random.default_rng(6), 20, 30))
    with pytest.raises(ValueError, match="at least three cells"):
        model(n_top_genes=10).refits(source).fit(np.arange(2))


@pytest.mark.parametrize("kind", ["counts", "log_normalized"])
def test_folds_embedded_in_one_pass_are_those_embedded_one_by_one(kind: str) -> None:
    """To the last bit, in any order of rows, though the folds choose different genes and blocks hold parts of them."""
    rng = np.random.default_rng(7)
    source = read_counts(cells(rng, 150, 90, kind), expect="any")
    refits = PCA(n_comps=4, n_top_genes=30).refits(source)
    asked = [(np.setdiff1d(np.arange(150), part), rng.permutation(150)[:60]) for part in np.array_split(range(150), 5)]
    asked += [(np.arange(100), np.array([5, 5, 149])), (np.arange(90), np.empty(0, dtype=int))]
    with settings.override(block_cells=16):
        found = refits.embed_each(asked)
    genes = [tuple(refits.fit(train).genes) for train, _ in asked]
    assert len(set(genes)) > 1
    for (train, rows), values in zip(asked, found):
        np.testing.assert_array_equal(values, refits.fit(train).transform(source, rows))


def test_few_eigenvectors_of_many_are_those_of_a_full_decomposition() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(400, 300)) * np.linspace(2, 1, 300)
    matrix = np.ascontiguousarray(x.T @ x)
    values, vectors = np.linalg.eigh(matrix)
    for ordered in (matrix, np.asfortranarray(matrix)):
        found = _refits._iterated(ordered, 10)
        assert found is not None
        np.testing.assert_allclose(found[0], values[-10:], rtol=1e-10)
        np.testing.assert_allclose(np.abs((found[1] * vectors[:, -10:]).sum(axis=0)), 1, atol=1e-10)


def test_eigenvectors_without_variance_are_left_to_the_full_decomposition() -> None:
    x = np.random.default_rng(9).normal(size=(5, 300))
    assert _refits._iterated(x.T @ x, 10) is None
    vectors, values = _refits._largest(x.T @ x, 10)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(10), atol=1e-10)
    np.testing.assert_allclose(values[5:], 0, atol=1e-8)
