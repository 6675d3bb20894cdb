"""The object that is read and the one that is written: all slots or none, whatever holds them."""

from __future__ import annotations

import warnings

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest

import sc_drugresp as sdr
from sc_drugresp._data.modalities import Target, in_memory, observations


@pytest.fixture
def adata() -> ad.AnnData:
    return sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=60)


@pytest.fixture
def mdata(adata) -> mudata.MuData:
    protein = ad.AnnData(np.ones((30, 3), np.float32), obs=pd.DataFrame(index=adata.obs_names[30::-1][:30]))
    return mudata.MuData({"rna": adata, "prot": protein})


def stored(adata, path, how):
    adata.write_h5ad(path / "x.h5ad")
    if how == "lazy":
        return ad.experimental.read_lazy(path / "x.h5ad")
    return ad.read_h5ad(path / "x.h5ad", backed="r" if how == "backed" else None)


SLOTS = {
    "obs": {"call": pd.Categorical(["b", "a", None, "b"] * 10, categories=["b", "a"]), "flag": np.arange(40) > 3},
    "var": {"name": np.array(["x", ""] * 30, dtype=object)},
    "obsm": {"X_mine": np.arange(80, dtype=np.float32).reshape(40, 2)},
    "layers": {"twice": np.ones((40, 60), np.float32)},
    "uns": {"mine": {"n": 3}},
}


@pytest.mark.parametrize("how", ["memory", "backed", "lazy", "view", "lazy view", "MuData", "view of MuData"])
def test_every_slot_is_written(how, adata, tmp_path):
    data = stored(adata, tmp_path, how.split()[0])
    if "view" in how and "MuData" not in how:
        data = data[:]
    if "MuData" in how:
        data = mudata.MuData({"rna": data})
        data = data[:] if "view" in how else data
    assert Target(data, "rna", copy=False).write(**SLOTS) is None
    written = data.mod["rna"] if "MuData" in how else data
    obs, var = in_memory(written.obs), in_memory(written.var)
    assert obs["call"].cat.categories.tolist() == ["b", "a"]
    assert obs["call"].isna().sum() == 10
    assert obs["flag"].dtype == bool
    assert var["name"].tolist() == ["x", ""] * 30
    np.testing.assert_array_equal(written.obsm["X_mine"], SLOTS["obsm"]["X_mine"])
    np.testing.assert_array_equal(written.layers["twice"], SLOTS["layers"]["twice"])
    assert written.uns["mine"] == {"n": 3}
    assert "toy" in written.uns


@pytest.mark.parametrize("how", ["memory", "view", "lazy", "MuData"])
def test_a_copy_leaves_the_input_alone(how, adata, tmp_path):
    data = stored(adata, tmp_path, how)[:] if how == "view" else stored(adata, tmp_path, how)
    if how == "MuData":
        data = mudata.MuData({"rna": data})
    out = Target(data, "rna", copy=True).write(**SLOTS)
    before, after = (data.mod["rna"], out.mod["rna"]) if how == "MuData" else (data, out)
    for slot, values in SLOTS.items():
        assert set(values) <= set(getattr(after, slot))
        assert not set(values) & set(getattr(before, slot))


@pytest.mark.parametrize(
    "wrong", [{"obs": {"x": np.ones(3)}}, {"var": {"x": ["a"]}}, {"obsm": {"x": np.ones((3, 40))}}]
)
@pytest.mark.parametrize("how", ["memory", "lazy", "backed"])
def test_all_slots_or_none(how, wrong, adata, tmp_path):
    data = stored(adata, tmp_path, how)
    with pytest.raises(ValueError, match=r"must have the shape"):
        Target(data, "rna", copy=False).write(**{"obs": {"call": SLOTS["obs"]["call"]}, "uns": {"mine": {}}} | wrong)
    assert "call" not in data.obs
    assert "mine" not in data.uns


def test_files_are_refused_before_work(adata, tmp_path):
    backed = stored(adata, tmp_path, "backed")
    for data, copy in ((backed[:3], False), (backed, True), (mudata.MuData({"rna": backed}), True)):
        with pytest.raises(ValueError, match="needs a file of its own"):
            Target(data, "rna", copy)


@pytest.mark.parametrize("how", ["memory", "lazy", "backed", "view"])
@pytest.mark.parametrize("axis", ["obs", "var"])
def test_a_column_named_like_the_index(axis, how, adata, tmp_path):
    getattr(adata, axis).index.name = "mine"
    data = stored(adata, tmp_path, "memory" if how == "view" else how)
    data = data[:] if how == "view" else data
    names = np.asarray(data.obs_names if axis == "obs" else data.var_names)
    same = Target(data, "rna", copy=False)
    same.write(**{axis: {"mine": names.copy()}})
    assert in_memory(getattr(data, axis))["mine"].tolist() == names.tolist()
    Target(data, "rna", copy=False).write(**{axis: {"mine": np.array(["new"] * len(names), dtype=object)}})
    again = data.to_memory() if data.isbacked or how == "lazy" else data
    again.write_h5ad(tmp_path / "y.h5ad")
    frame = getattr(ad.read_h5ad(tmp_path / "y.h5ad"), axis)
    assert set(frame["mine"]) == {"new"}
    assert frame.index.tolist() == names.tolist()
    assert getattr(adata, axis).index.name == "mine"  # the index is shared between copies; only ours was renamed


def test_columns_of_the_whole_mudata_are_seen(mdata):
    mdata.obs["site"] = [f"s{i}" for i in range(mdata.n_obs)]
    obs = observations(mdata)
    assert obs.index.equals(mdata.mod["rna"].obs_names)
    assert obs["site"].tolist() == mdata.obs["site"].reindex(obs.index).tolist()
    assert obs["rna:response"].tolist() == obs["response"].tolist()
    assert observations(mdata, modality="prot").index.equals(mdata.mod["prot"].obs_names)
    assert "site" not in mdata.mod["rna"].obs


def test_lazy_slots_in_memory(adata, tmp_path):
    adata.obsm["E"] = np.ones((40, 2), np.float32)
    lazy = stored(adata, tmp_path, "lazy")
    pd.testing.assert_frame_equal(observations(lazy), adata.obs)
    uns = in_memory(lazy.uns)
    pd.testing.assert_frame_equal(uns["toy"]["samples"], adata.uns["toy"]["samples"])
    assert uns["toy"]["params"] == adata.uns["toy"]["params"]
    np.testing.assert_array_equal(in_memory(lazy.obsm["E"]), adata.obsm["E"])


def test_one_mudata_with_repeated_names_still_shows_its_own_columns(adata):
    adata.obs_names = ["same"] * adata.n_obs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = mudata.MuData({"rna": adata})
    assert observations(mdata)["sample"].tolist() == adata.obs["sample"].tolist()
