"""Whatever a public function writes comes back from a file as it was, and works there."""

from __future__ import annotations

import inspect
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import pytest
import zarr

import sc_drugresp as sdr
from sc_drugresp._data.modalities import in_memory

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = (
    "GSE108383_A375_PLX4720_zscored",
    "GSE118767_lung5_afatinib_celseq2",
    "GSE120575_melanoma_ICB_partA",
    "GSE149214_PC9_erlotinib",
    "GSE157220_SCC47_gefitinib_zscored",
    "GSE173634_breast21_lines_dropseq",
)
TEXT = {"O", "U", "T"}
"""Kinds of text arrays; zarr gives NumPy's newest one."""
SLOTS = ("obs", "var", "obsm", "varm", "obsp", "layers", "uns")

CALLS: dict[str, dict[str, Any]] = {
    "pp.check": {},
    "pp.harmonize_genes": {},
    "pp.harmonize_labels": {"key": "response", "key_added": "label"},
    "pp.split": {"label_key": "label"},
    "tl.embed": {"model": "pca", "n_comps": 5},
    "tl.train_response": {"use_rep": "X_sdr_pca"},
    "tl.predict_response": {},
    "tl.aggregate": {},
    "tl.evaluate": {"use_rep": "X_sdr_pca", "options": sdr.tl.EvaluationOptions(n_boot=20, n_permutations=20)},
    "tl.state_control": {"treatment_key": "when", "untreated": "pre", "use_rep": "X_sdr_pca"},
}
"""Every function that writes, in the order of a study, with options that make it quick."""
TOO_FEW_SAMPLES = ("GSE108383", "GSE118767", "GSE149214", "GSE157220")
"""Data that cannot be split in three."""
NOT_THERE = {"history", "model_comparison"}
"""Pictures of what only fine-tuning, or several models and data sets, write."""


def test_every_function_that_writes_is_called():
    writers = {f"{door}.{name}" for door in ("pp", "tl") for name in getattr(sdr, door).__all__}
    assert {name for name in writers if not inspect.isclass(resolve(name))} == set(CALLS)


def resolve(name: str) -> Any:
    door, function = name.split(".")
    return getattr(getattr(sdr, door), function)


def small(name: str) -> ad.AnnData:
    """Some cells and genes of a data set, with a made-up treatment."""
    if name == "toy":
        adata = sdr.datasets.toy(n_samples=12, cells_per_sample=15, n_genes=200)
    else:
        adata = ad.read_h5ad(SHARED / f"{name}.h5ad")
        cells = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:150])
        adata = adata[cells, :800].copy()
    adata.obs["when"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2, "pre", "post"))
    return adata


@cache
def studied(name: str) -> tuple[ad.AnnData, dict[str, set[str]]]:
    """A data set after all calls, and the names that they added to each slot."""
    adata = small(name)
    before = {slot: set(getattr(adata, slot)) for slot in SLOTS}
    for call, arguments in CALLS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # small samples are warned about
            if call == "pp.split" and name.startswith(TOO_FEW_SAMPLES):
                with pytest.raises(ValueError, match="3 parts need at least 3"):
                    resolve(call)(adata, **arguments)
            else:
                resolve(call)(adata, **arguments)
    return adata, {slot: set(getattr(adata, slot)) - names for slot, names in before.items()}


def stored(adata: ad.AnnData, folder: Path, form: str) -> ad.AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about formats that anndata will write in the future
        if form == "zarr":
            store = zarr.storage.MemoryStore()
            adata.write_zarr(store)
            return ad.read_zarr(store)
        adata.write_h5ad(folder / "x.h5ad")
        return ad.read_h5ad(folder / "x.h5ad")


def assert_same(one: Any, two: Any, where: str) -> None:
    """Equal in type, dtype, categories and value; only scalars may have become NumPy's."""
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, two, check_exact=True, obj=where)
    elif isinstance(one, dict):
        assert set(one) == set(two), where
        for key in one:
            assert_same(one[key], two[key], f"{where}[{key!r}]")
    elif isinstance(one, np.ndarray):
        assert isinstance(two, np.ndarray), where
        assert one.dtype == two.dtype or {one.dtype.kind, two.dtype.kind} <= TEXT, where
        np.testing.assert_array_equal(one, two, err_msg=where)
    else:
        assert np.ndim(one) == 0, f"{where} is a {type(one).__name__}, which comes back as something else"
        assert np.asarray(one).dtype.kind == np.asarray(two).dtype.kind, where
        assert one == two or (one != one and two != two), where


@pytest.fixture(params=["toy", *FILES])
def name(request) -> str:
    if request.param != "toy" and not SHARED.is_dir():
        pytest.skip("the folder '../shared' with real data is not on this machine")
    return request.param


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_slots_come_back_as_they_were(name, form, tmp_path):
    adata, added = studied(name)
    again = stored(adata, tmp_path, form)
    assert {slot: set(getattr(again, slot)) for slot in SLOTS} == {slot: set(getattr(adata, slot)) for slot in SLOTS}
    assert again.var_names.tolist() == adata.var_names.tolist()
    for slot, names in added.items():
        for key in sorted(names):
            one, two = getattr(adata, slot)[key], getattr(again, slot)[key]
            if isinstance(one, pd.Series):
                pd.testing.assert_series_equal(one, two, check_exact=True, check_names=False, obj=f".{slot}[{key!r}]")
                assert one.dtype == two.dtype
            else:
                assert_same(one, two, f".{slot}[{key!r}]")


def test_tables_of_what_came_back(name, tmp_path):
    adata, _ = studied(name)
    again = stored(adata, tmp_path, "h5ad")
    for key in sdr.get.__all__:
        one, two = outcome(getattr(sdr.get, key), adata), outcome(getattr(sdr.get, key), again)
        if isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(one, two, obj=key)
        else:
            assert type(one) is type(two), key


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_pictures_and_report_of_what_came_back(form, tmp_path):
    again = stored(studied("toy")[0], tmp_path, form)
    shown = {key for key in sdr.pl.__all__ if not isinstance(outcome(getattr(sdr.pl, key), again), Exception)}
    assert shown == set(sdr.pl.__all__) - NOT_THERE
    sdr.report(again, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000
    plt.close("all")


def outcome(function: Any, adata: ad.AnnData) -> Any:
    """What a function returns, or the error of data that do not have what it shows."""
    try:
        return function(adata)
    except (KeyError, ValueError) as error:
        return error


@pytest.mark.parametrize("lazy", [False, True])
def test_a_later_session_goes_on_from_the_file(lazy, tmp_path):
    adata, _ = studied("toy")
    again = stored(adata, tmp_path, "h5ad")
    again = ad.experimental.read_lazy(tmp_path / "x.h5ad") if lazy else again
    sdr.tl.aggregate(again)  # of the stored predictions
    one, two = adata.uns["predicted_response"]["samples"], again.uns["predicted_response"]["samples"]
    pd.testing.assert_frame_equal(one, two)
    sdr.tl.predict_response(again, use_rep="X_sdr_pca")  # from the stored embedding
    sdr.tl.aggregate(again)
    two = again.uns["predicted_response"]["samples"]
    pd.testing.assert_frame_equal(one, two, check_exact=False, rtol=1e-5)


@pytest.mark.parametrize("container", ["lazy", "backed", "view", "MuData"])
def test_every_container_gets_the_same(container, tmp_path):
    """Objects on disk, views and modalities are read and written as objects in memory are."""
    expected, added = studied("toy")
    raw = small("toy")
    raw.write_h5ad(tmp_path / "x.h5ad")
    data = {
        "lazy": lambda: ad.experimental.read_lazy(tmp_path / "x.h5ad"),
        "backed": lambda: ad.read_h5ad(tmp_path / "x.h5ad", backed="r"),
        "view": lambda: raw[:, :],
        "MuData": lambda: mudata.MuData({"rna": raw}),
    }[container]()
    for call, arguments in CALLS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            resolve(call)(data, **arguments)
    found = data.mod["rna"] if container == "MuData" else data
    for slot in ("obs", "var"):
        frame = in_memory(getattr(found, slot))[sorted(added[slot])]
        pd.testing.assert_frame_equal(frame, getattr(expected, slot)[sorted(added[slot])], obj=slot, rtol=1e-5)
    np.testing.assert_allclose(in_memory(found.obsm["X_sdr_pca"]), expected.obsm["X_sdr_pca"], rtol=1e-4, atol=1e-4)
    assert added["uns"] <= set(found.uns)
    one, two = expected.uns["evaluation"]["metrics"], in_memory(found.uns["evaluation"]["metrics"])
    pd.testing.assert_frame_equal(one, two, rtol=1e-4)
    for key in sdr.get.__all__:
        one, two = outcome(getattr(sdr.get, key), expected), outcome(getattr(sdr.get, key), data)
        assert type(one) is type(two), (key, two)
    sdr.report(data, tmp_path / "report.html")
    plt.close("all")


def test_a_mudata_comes_back_too(tmp_path):
    adata, added = studied("toy")
    mdata = mudata.MuData({"rna": adata.copy()})
    mdata.write(tmp_path / "x.h5mu")
    again = mudata.read(tmp_path / "x.h5mu").mod["rna"]
    for key in added["uns"]:
        assert_same(adata.uns[key], again.uns[key], f".uns[{key!r}]")
    pd.testing.assert_frame_equal(again.obs[sorted(added["obs"])], adata.obs[sorted(added["obs"])])
