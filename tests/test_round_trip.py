"""Whatever a public function writes comes back from a file as it was, and works there."""

from __future__ import annotations

import inspect
import os
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
from screens import toy_reference

import sc_drugresp as sdr
from sc_drugresp._data.modalities import in_memory

SHARED = Path(os.environ.get("SC_DRUGRESP_SHARED") or Path(__file__).resolve().parents[2] / "shared")
SOURCES = ["toy", *sorted(str(path) for path in (SHARED / "data").glob("*.h5ad"))]
TEXT = {"O", "U", "T"}
"""Kinds of text arrays; zarr gives NumPy's newest one."""
SLOTS = ("obs", "var", "obsm", "varm", "obsp", "layers", "uns")

CALLS: dict[str, dict[str, Any]] = {
    "pp.check": {},
    "pp.harmonize_genes": {},
    "pp.harmonize_labels": {"key": "response", "key_added": "label"},
    "pp.split": {"label_key": "label"},
    "pp.suggest_malignant": {},
    "tl.embed": {"model": "pca", "n_comps": 5},
    "tl.train_response": {"use_rep": "X_sdr_pca"},
    "tl.predict_response": {},
    "tl.aggregate": {},
    "tl.evaluate": {"use_rep": "X_sdr_pca", "options": sdr.tl.EvaluationOptions(n_boot=20, n_permutations=20)},
    "tl.rank_drugs": {
        "groupby": "sample",
        "reference": toy_reference()[0],
        "malignant_key": "malignant",
        "chemistry": "dropseq",
        "combine": 2,
    },
    "tl.state_control": {"treatment_key": "when", "untreated": "pre", "use_rep": "X_sdr_pca"},
}
"""Every function that writes, in the order of a study, with options that make it quick."""
TOO_FEW_SAMPLES = ("GSE108383", "GSE118767", "GSE149214", "GSE157220")
"""Data that cannot be split in three."""
NOT_RANKED = ("GSE108383", "GSE149214", "GSE157220")
"""Scaled values, or other genes than those of the reference."""
NOT_THERE = {"history", "model_comparison"}
"""Pictures of what only fine-tuning, or several models and data sets, write."""


def test_every_function_that_writes_is_called():
    writers = {f"{door}.{name}" for door in ("pp", "tl") for name in getattr(sdr, door).__all__}
    asked_elsewhere = {"tl.ask_llm"}  # needs a server or a language model, see tests/tl/test_ask_llm.py
    assert {name for name in writers if not inspect.isclass(resolve(name))} - asked_elsewhere == set(CALLS)


def resolve(name: str) -> Any:
    door, function = name.split(".")
    return getattr(getattr(sdr, door), function)


def small(source: str) -> ad.AnnData:
    """Some cells and genes of a data set, with a made-up treatment."""
    if source == "toy":
        adata = sdr.datasets.toy(n_samples=12, cells_per_sample=15, n_genes=200)
    else:
        adata = ad.read_h5ad(source)
        cells = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:150])
        adata = adata[cells, :800].copy()
    adata.obs["malignant"] = True
    adata.obs["when"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2, "pre", "post"))
    return adata


@cache
def studied(source: str) -> tuple[ad.AnnData, dict[str, set[str]]]:
    """A data set after all calls, and the names that they added to each slot."""
    adata = small(source)
    before = {slot: set(getattr(adata, slot)) for slot in SLOTS}
    for call, arguments in CALLS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # small samples are warned about
            if call == "pp.suggest_malignant" and source != "toy":
                with pytest.raises(ValueError, match=r"marker genes are in these data|scaled"):  # a few genes are left
                    resolve(call)(adata, **arguments)
            elif call == "pp.split" and Path(source).name.startswith(TOO_FEW_SAMPLES):
                with pytest.raises(ValueError, match="3 parts need at least 3"):
                    resolve(call)(adata, **arguments)
            elif call == "tl.rank_drugs" and Path(source).name.startswith(NOT_RANKED):
                with pytest.raises(ValueError, match=r"scaled|None of the 120 genes"):
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


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: Path(source).stem)
def test_slots_and_tables_come_back_as_they_were(source, tmp_path):
    adata, added = studied(source)
    for form in ("h5ad", "zarr"):
        again = stored(adata, tmp_path, form)
        assert again.var_names.tolist() == adata.var_names.tolist()
        for slot in SLOTS:
            assert set(getattr(again, slot)) == set(getattr(adata, slot))
        for slot, key in [(slot, key) for slot, keys in added.items() for key in sorted(keys)]:
            one, two = getattr(adata, slot)[key], getattr(again, slot)[key]
            if isinstance(one, pd.Series):
                one, two = one.to_frame(), two.to_frame()
            assert_same(one, two, f".{slot}[{key!r}]")
    for key in sdr.get.__all__:
        one, two = outcome(getattr(sdr.get, key), adata), outcome(getattr(sdr.get, key), again)
        assert type(one) is type(two), key
        if isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(one, two, obj=key)


def test_real_data_are_among_the_sources(shared):
    assert len(SOURCES) == 1 + len(list((shared / "data").glob("*.h5ad"))) > 5


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
    except (KeyError, TypeError, ValueError) as error:  # the second: `get.reliability` takes no object
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
    if container == "lazy":
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
