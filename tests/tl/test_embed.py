"""`tl.embed`: slots, options, errors before work."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import sc_drugresp as sdr


def test_pca_matches_an_independent_computation() -> None:
    import scanpy as sc

    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=25, n_genes=200)
    sdr.tl.embed(adata, "pca", n_comps=8)
    reference = adata.copy()
    sc.pp.normalize_total(reference, target_sum=1e4)
    sc.pp.log1p(reference)
    x = reference.X.toarray().astype(np.float64)
    x -= x.mean(axis=0)
    _, _, components = np.linalg.svd(x, full_matrices=False)
    ours, exact = adata.obsm["X_sdr_pca"], x @ components[:8].T
    cosine = np.abs(np.sum(ours * exact, axis=0)) / np.linalg.norm(ours, axis=0) / np.linalg.norm(exact, axis=0)
    np.testing.assert_allclose(cosine, 1, atol=1e-4)


def test_only_the_promised_slots_are_written_and_survive_h5ad(tmp_path) -> None:
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=100)
    before = adata.copy()
    sdr.tl.embed(adata, "hvg", n_top_genes=50, key_added="mine")
    assert set(adata.obsm) - set(before.obsm) == {"mine"}
    assert set(adata.uns) - set(before.uns) == {"mine"}
    assert (adata.X != before.X).nnz == 0
    assert list(adata.obs.columns) == list(before.obs.columns)
    assert list(adata.var.columns) == list(before.var.columns)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert back.uns["mine"]["params"]["model"] == "hvg"
    np.testing.assert_array_equal(back.obsm["mine"], adata.obsm["mine"])


def test_copy_leaves_the_input_alone() -> None:
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=100)
    out = sdr.tl.embed(adata, "pca", copy=True)
    assert "X_sdr_pca" not in adata.obsm
    assert out.obsm["X_sdr_pca"].shape[0] == adata.n_obs


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"model": "scgtp"}, ValueError, "scgpt"),
        ({"model": "pca", "layer": "nothing"}, KeyError, "Available layers"),
        ({"model": "pca", "group_key": "nobody"}, KeyError, "Available columns"),
        ({"model": "pca", "n_comp": 3}, TypeError, "Unknown option 'n_comp'"),
        ({"model": "pca", "rng": None}, TypeError, "`rng` must be"),
        ({"model": "scgpt", "checkpoint": "/does/not/exist"}, FileNotFoundError, "best_model.pt"),
    ],
)
def test_errors_name_what_exists_and_leave_the_object_alone(call, error, words) -> None:
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=100)
    with pytest.raises(error, match=words):
        sdr.tl.embed(adata, **call)
    assert not adata.obsm
    assert set(adata.uns) == {"toy"}


def test_count_models_refuse_scaled_values_before_weights_are_looked_for() -> None:
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=100)
    adata.X = np.random.default_rng(0).normal(size=adata.shape).astype(np.float32)
    with pytest.raises(ValueError, match="Raw counts"):
        sdr.tl.embed(adata, "scgpt")
    sdr.tl.embed(adata, "pca", n_comps=5)
    assert adata.obsm["X_sdr_pca"].shape == (40, 5)


def test_fitted_embedding_of_other_cells_matches_genes_by_name() -> None:
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=20, n_genes=200)
    pca = sdr.models.load("pca", n_comps=6)
    pca.fit(pca.read(adata))
    shuffled = adata[:, np.random.default_rng(0).permutation(adata.n_vars)].copy()
    np.testing.assert_allclose(pca.transform(pca.read(shuffled)), pca.transform(pca.read(adata)), atol=2e-4)


def test_mudata_modality() -> None:
    from mudata import MuData

    rna = sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=100)
    mdata = MuData({"rna": rna})
    sdr.tl.embed(mdata, "pca", n_comps=4)
    assert mdata.mod["rna"].obsm["X_sdr_pca"].shape == (40, 4)
    with pytest.raises(KeyError, match="Available modalities"):
        sdr.tl.embed(mdata, "pca", modality="protein")
