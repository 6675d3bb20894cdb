"""The generator's switches do what they say."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

import sc_drugresp as sdr


def log_cpm(adata: ad.AnnData) -> pd.DataFrame:
    x = adata.X.toarray()
    return pd.DataFrame(np.log1p(1e4 * x / x.sum(1, keepdims=True)), columns=adata.var_names, index=adata.obs_names)


def program_contrast(adata: ad.AnnData, label: pd.Series) -> float:
    """Mean over program genes of sign * (sensitive - resistant) in malignant cells."""
    frame = log_cpm(adata)
    malignant = adata.obs["cell_type"] == "malignant"
    loading = adata.uns["toy"]["program"]["loading"]
    means = frame[malignant].groupby(np.asarray(label[malignant].astype(str))).mean()
    return float((np.sign(loading) * (means.loc["sensitive"] - means.loc["resistant"])[loading.index]).mean())


def test_counts_are_raw_sparse_and_of_the_asked_size():
    adata = sdr.datasets.toy(4, 20, 300)
    assert adata.shape == (80, 300)
    assert sparse.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.float32
    assert (adata.X.data > 0).all()
    assert (adata.X.data == np.round(adata.X.data)).all()
    assert adata.var_names.is_unique
    assert adata.var["ensembl_id"].str.fullmatch(r"ENSG\d{11}").all()
    assert adata.var.loc["EGR1", "ensembl_id"] == "ENSG00000120738"


def test_variance_exceeds_poisson():
    x = sdr.datasets.toy(2, 500, 60, sample_effect=0, batch_effect=0, signal=0).X.toarray()
    ratio = x.var(0) / x.mean(0)
    assert np.median(ratio) > 1.3


def test_same_seed_same_bits_and_the_global_state_is_left_alone():
    before = np.random.get_state()[1].copy()
    first, second = sdr.datasets.toy(rng=3), sdr.datasets.toy(rng=np.random.default_rng(3))
    assert (first.X != second.X).nnz == 0
    assert first.obs.equals(second.obs)
    assert (sdr.datasets.toy(rng=4).X != first.X).nnz > 0
    assert (np.random.get_state()[1] == before).all()


def test_signal_is_in_the_program_genes_and_grows():
    quiet = {"sample_effect": 0.0, "batch_effect": 0.0}
    contrasts = [
        program_contrast(adata, adata.obs["response"])
        for adata in (sdr.datasets.toy(signal=signal, **quiet) for signal in (0.0, 1.0, 2.0))
    ]
    assert abs(contrasts[0]) < 0.1
    assert 0.3 < contrasts[1] < contrasts[2]


def test_normal_cells_hold_no_signal():
    adata = sdr.datasets.toy(signal=2.0, sample_effect=0.0, batch_effect=0.0, cells_per_sample=200)
    normal = adata[adata.obs["cell_type"] == "normal"].copy()
    frame, sensitive = log_cpm(normal), normal.obs["response"] == "sensitive"
    p = stats.ttest_ind(frame[sensitive], frame[~sensitive]).pvalue
    assert np.nanmin(p) * np.isfinite(p).sum() > 0.01  # Bonferroni


def test_truth_is_recorded():
    adata = sdr.datasets.toy(6, 30, rng=1)
    truth = adata.uns["toy"]["samples"]
    labels = adata.obs.groupby("sample", observed=True)["response"].first().astype(str)
    assert (truth["true_class"] == labels.reindex(truth.index)).all()
    assert ((truth["activity"] > 0) == (truth["true_class"] == "sensitive")).all()
    assert set(adata.uns["toy"]["program"].index) <= set(adata.var_names)


def test_classes_are_balanced_in_both_batches():
    table = sdr.datasets.toy(8).obs.groupby("sample", observed=True)[["response", "batch"]].first()
    assert (pd.crosstab(table["response"], table["batch"]) == 2).all(axis=None)


def test_aliased_ties_label_to_batch():
    obs = sdr.datasets.toy(aliased=True).obs
    assert obs.groupby("batch", observed=True)["response"].nunique().eq(1).all()
    assert obs["batch"].nunique() == 2


@pytest.mark.parametrize("unit", ["sample", "cell"])
def test_noise_labels_switch_the_signal_off(unit):
    adata = sdr.datasets.toy(noise_labels=unit, signal=5.0, sample_effect=0.0, batch_effect=0.0)
    labels_per_sample = adata.obs.groupby("sample", observed=True)["response"].nunique()
    assert labels_per_sample.max() == (1 if unit == "sample" else 2)
    assert abs(program_contrast(adata, adata.obs["response"])) < 0.1


def test_sample_effect_separates_samples_not_cells():
    def between(effect: float) -> float:
        adata = sdr.datasets.toy(signal=0.0, batch_effect=0.0, sample_effect=effect)
        frame = log_cpm(adata)
        return float(frame.groupby(np.asarray(adata.obs["sample"].astype(str))).mean().var().mean())

    assert between(1.0) > 3 * between(0.0)


def test_unlabeled_samples_are_whole_and_keep_both_classes():
    obs = sdr.datasets.toy(8, unlabeled=0.9).obs
    missing = obs["response"].isna().groupby(obs["sample"], observed=True).mean()
    assert set(missing) == {0.0, 1.0}
    assert missing.sum() == 6
    assert obs["response"].nunique() == 2


def test_timepoints_are_pairs_of_one_patient():
    obs = sdr.datasets.toy(8, timepoints=True).obs
    patients = obs.groupby("patient", observed=True)
    assert patients["timepoint"].nunique().eq(2).all()
    assert patients["response"].nunique().eq(1).all()
    assert patients["sample"].nunique().eq(2).all()


def test_mouse_has_mouse_names():
    adata = sdr.datasets.toy(2, 10, organism="mouse")
    assert adata.var_names.isin(["Mki67"]).any()
    assert adata.var["ensembl_id"].str.startswith("ENSMUSG").all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 1}, "`n_samples` must be a whole number of at least 2"),
        ({"cells_per_sample": 0}, "`cells_per_sample` must be a whole number of at least 1"),
        ({"n_genes": 10}, "between 40 and"),
        ({"n_genes": 10**6}, "between 40 and"),
        ({"noise_labels": "patient"}, "found 'patient'"),
        ({"unlabeled": 1.0}, "`unlabeled` must be a number of at least 0 and below 1"),
        ({"timepoints": True, "n_samples": 6}, "multiple of 4"),
        ({"organism": "rat"}, "found 'rat'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sdr.datasets.toy(**arguments)


def test_it_survives_a_file(tmp_path):
    adata = sdr.datasets.toy(4, 10, unlabeled=0.25)
    adata.write_h5ad(tmp_path / "toy.h5ad")
    back = ad.read_h5ad(tmp_path / "toy.h5ad")
    assert (back.X != adata.X).nnz == 0
    assert back.obs["response"].isna().sum() == 10
    pd.testing.assert_frame_equal(back.uns["toy"]["samples"], adata.uns["toy"]["samples"], check_dtype=False)
