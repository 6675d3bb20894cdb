"""Samples stay whole; every part has both classes."""

from __future__ import annotations

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest

import sc_drugresp as sdr
from sc_drugresp._data.modalities import in_memory


def test_groups_stay_whole_and_classes_balanced():
    adata = sdr.datasets.toy(n_samples=20, cells_per_sample=8, n_genes=50, unlabeled=0.2)
    before = np.random.get_state()[1].copy()
    sdr.pp.split(adata, group_key="sample", rng=3)
    np.testing.assert_array_equal(before, np.random.get_state()[1])
    obs = adata.obs
    assert list(obs["split"].cat.categories) == ["train", "val", "test"]
    assert (obs.groupby("sample", observed=True)["split"].nunique() <= 1).all()
    labeled = obs[obs["response"].notna()]
    assert labeled["split"].notna().all()
    assert obs.loc[obs["response"].isna(), "split"].isna().all()
    share = labeled["split"].value_counts(normalize=True)
    assert share["test"] == pytest.approx(0.2, abs=0.08)
    assert share["val"] == pytest.approx(0.2, abs=0.08)
    table = pd.crosstab(labeled["split"], labeled["response"])
    assert (table > 0).all().all()


def test_same_seed_same_split_and_copy():
    adata = sdr.datasets.toy(n_samples=12, cells_per_sample=4, n_genes=50)
    one = sdr.pp.split(adata, group_key="sample", rng=1, copy=True)
    two = sdr.pp.split(adata, group_key="sample", rng=1, copy=True)
    assert "split" not in adata.obs
    assert one.obs["split"].tolist() == two.obs["split"].tolist()
    others = [sdr.pp.split(adata, group_key="sample", rng=s, copy=True).obs["split"].tolist() for s in range(2, 8)]
    assert any(other != one.obs["split"].tolist() for other in others)


def test_columns_of_a_whole_mudata():
    adata = sdr.datasets.toy(n_samples=12, cells_per_sample=4, n_genes=50)
    expected = sdr.pp.split(adata, group_key="sample", copy=True).obs["split"]
    bare = adata.copy()
    bare.obs = bare.obs.drop(columns=["response", "sample"])
    mdata = mudata.MuData({"rna": bare})
    mdata.obs["response"], mdata.obs["well"] = adata.obs["response"], adata.obs["sample"]
    sdr.pp.split(mdata, group_key="well")
    assert mdata.mod["rna"].obs["split"].tolist() == expected.tolist()
    prefixed = mudata.MuData({"rna": adata})
    sdr.pp.split(prefixed, label_key="rna:response", group_key="rna:sample")
    assert prefixed.mod["rna"].obs["split"].tolist() == expected.tolist()


def test_integer_or_generator():
    adata = sdr.datasets.toy(n_samples=12, cells_per_sample=4, n_genes=50)
    one, two = (sdr.pp.split(adata, rng=np.random.default_rng(5), copy=True).obs["split"].tolist() for _ in range(2))
    assert one == two == sdr.pp.split(adata, rng=5, copy=True).obs["split"].tolist()


def test_lazy_and_backed_objects(tmp_path):
    adata = sdr.datasets.toy(n_samples=12, cells_per_sample=4, n_genes=50)
    adata.write_h5ad(tmp_path / "x.h5ad")
    sdr.pp.split(adata)
    for other in (ad.read_h5ad(tmp_path / "x.h5ad", backed="r"), ad.experimental.read_lazy(tmp_path / "x.h5ad")):
        sdr.pp.split(other)
        assert in_memory(other.obs)["split"].equals(adata.obs["split"])


@pytest.mark.parametrize("name", ["", "a/b", "_index"])
def test_names_that_files_cannot_hold(name):
    adata = sdr.datasets.toy(n_samples=12, cells_per_sample=4, n_genes=50)
    with pytest.raises(ValueError, match="`key_added` must be a name"):
        sdr.pp.split(adata, key_added=name)
    with pytest.raises(ValueError, match="`key_added` must be a name"):
        sdr.pp.harmonize_labels(adata, "response", key_added=name)


def test_without_validation_and_unlabeled_cells_follow_their_sample():
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=6, n_genes=50)
    adata.obs.loc[adata.obs_names[::3], "response"] = np.nan
    sdr.pp.split(adata, group_key="sample", val_size=0, test_size=0.5, key_added="part")
    assert list(adata.obs["part"].cat.categories) == ["train", "test"]
    assert adata.obs["part"].notna().all()
    assert adata.obs["part"].value_counts().tolist() == [12, 12]


def test_samples_that_hold_both_classes():
    adata = sdr.datasets.toy(n_samples=8, cells_per_sample=10, n_genes=50)
    adata.obs["response"] = pd.Categorical(["sensitive", "resistant"] * 40)
    sdr.pp.split(adata, group_key="sample")
    table = pd.crosstab(adata.obs["split"], adata.obs["response"])
    assert (table > 0).all().all()


def test_too_few_samples_and_wrong_arguments():
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=4, n_genes=50)
    with pytest.raises(ValueError, match="3 parts need at least 3 values of 'sample'"):
        sdr.pp.split(adata, group_key="sample")
    with pytest.raises(KeyError, match="Available columns"):
        sdr.pp.split(adata, group_key="nope")
    with pytest.raises(KeyError, match="Available columns"):
        sdr.pp.split(adata, label_key="nope")
    for wrong in ({"test_size": 0}, {"test_size": 1.2}, {"val_size": -0.1}, {"test_size": 0.6, "val_size": 0.4}):
        with pytest.raises(ValueError, match="_size"):
            sdr.pp.split(adata, group_key="sample", **wrong)
    assert "split" not in adata.obs
