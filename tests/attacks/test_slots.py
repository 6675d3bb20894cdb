"""Every verb writes all of its slots or none: whichever write fails, the object is as it was."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from anndata._core.aligned_mapping import AxisArrays, Layers
from llm_server import chat_server
from studies import OPTIONS, cells, reference

import sc_drugresp as sdr
from sc_drugresp._data import together
from sc_drugresp._data.modalities import Target, in_memory

SLOTS = ("layers", "obsm", "obs", "var", "uns")


def calls() -> dict[str, dict[str, Any]]:
    """Arguments of every verb that writes."""
    who = {"groupby": "patient", "malignant_key": "malignant", "chemistry": "dropseq", "reference": reference()}
    return {
        "pp.harmonize_genes": {},
        "pp.harmonize_labels": {"key": "response", "key_added": "label"},
        "pp.split": {"val_size": 0, "test_size": 0.4},
        "pp.suggest_malignant": {},
        "tl.embed": {"model": "pca", "n_comps": 5},
        "tl.train_response": {"use_rep": "X_mine"},
        "tl.predict_response": {"use_rep": "X_mine"},
        "tl.ask_llm": {"model": "m", "drug": "erlotinib"},
        "tl.aggregate": {"group_key": "patient"},
        "tl.evaluate": {"use_rep": "X_mine", "options": OPTIONS},
        "tl.rank_drugs": who,
        "tl.state_control": {"treatment_key": "timepoint", "untreated": "pre", "use_rep": "X_mine"},
    }


def test_every_verb_that_writes_is_here():
    writers = {
        f"{door}.{name}"
        for door in ("pp", "tl")
        for name in getattr(sdr, door).__all__
        if "Target(" in inspect.getsource(inspect.unwrap(getattr(getattr(sdr, door), name)))
    }
    assert writers == set(calls())


@cache
def _start() -> ad.AnnData:
    adata = cells()
    adata.obsm["X_mine"] = (
        np.random.default_rng(0).normal(size=(adata.n_obs, 4)) + adata.obs["patient"].cat.codes.to_numpy()[:, None]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdr.tl.predict_response(adata, use_rep="X_mine")
    return adata


def snapshot(adata: ad.AnnData) -> dict[str, Any]:
    out: dict[str, Any] = {"index": (adata.obs.index.name, adata.var.index.name), "uns": dict(adata.uns)}
    for slot in ("obs", "var"):
        out[slot] = in_memory(getattr(adata, slot)).copy()
    for slot in ("obsm", "layers"):
        out[slot] = {name: np.asarray(value) for name, value in getattr(adata, slot).items()}
    return out


def unchanged(adata: ad.AnnData, before: dict[str, Any]) -> None:
    now = snapshot(adata)
    assert now["index"] == before["index"]
    assert list(now["uns"]) == list(before["uns"])
    assert all(now["uns"][key] is before["uns"][key] for key in now["uns"])
    for slot in ("obs", "var"):
        pd.testing.assert_frame_equal(now[slot], before[slot])
    for slot in ("obsm", "layers"):
        assert list(now[slot]) == list(before[slot])
        for name, value in now[slot].items():
            np.testing.assert_array_equal(value, before[slot][name])


class DiskFullError(Exception):
    """What is injected."""


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let the write of that number fail, wherever it goes to; returns what was asked to be written."""
    written: list[str] = []
    original = together.write_together

    class Place:
        """A slot that counts what is written into it."""

        def __init__(self, place: Any, slot: str) -> None:
            self.__dict__.update(place=place, slot=slot)

        def __setitem__(self, name: str, value: Any) -> None:
            written.append(f"{self.slot}[{name!r}]")
            if len(written) > number:
                raise DiskFullError
            self.place[name] = value

        def __getattr__(self, name: str) -> Any:
            return getattr(self.place, name)

    class Object:
        """An AnnData whose slots count."""

        def __init__(self, adata: ad.AnnData) -> None:
            self.__dict__["adata"] = adata

        def __getattr__(self, name: str) -> Any:
            value = getattr(self.adata, name)
            return Writable(value, name) if name in SLOTS else value

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self.adata, name, value)

    class Writable(Place):
        def __getitem__(self, name: str) -> Any:
            return self.place[name]

        def __delitem__(self, name: str) -> None:
            del self.place[name]

        def __contains__(self, name: str) -> bool:
            return name in self.place

    monkeypatch.setattr(
        "sc_drugresp._data.modalities.write_together", lambda adata, slots: original(Object(adata), slots)
    )
    return written


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "tl.evaluate" else name for name in calls()]
)
def test_a_write_that_fails_leaves_nothing(name, monkeypatch):
    with chat_server() as server:
        options = calls()[name] | ({"base_url": server.url} if name == "tl.ask_llm" else {})
        _fail_everywhere(name, options, monkeypatch)


def _fail_everywhere(name, options, monkeypatch):
    adata = _start().copy()
    verb = getattr(getattr(sdr, name[:2]), name[3:])
    real = Target.write
    asked: dict[str, Any] = {}
    monkeypatch.setattr(Target, "write", lambda self, **slots: asked.update(slots) or real(self, **slots))
    before = snapshot(adata)
    written = fail_at(monkeypatch, 0)
    with pytest.raises(DiskFullError):
        verb(adata, **options)
    unchanged(adata, before)
    total = sum(len(values) for values in asked.values())
    for number in range(1, total):
        monkeypatch.undo()
        written = fail_at(monkeypatch, number)
        with pytest.raises(DiskFullError):
            Target(adata, "rna", copy=False).write(**asked)
        assert len(written) > number
        unchanged(adata, before)
    monkeypatch.undo()
    verb(adata, **options)
    for slot, values in asked.items():
        assert set(values) <= set(getattr(adata, slot))


def stored(adata: ad.AnnData, how: str, path: Any) -> tuple[Any, Callable[[], ad.AnnData]]:
    """The object to write into, and the AnnData in it."""
    if how == "view":
        view = adata[:]
        return view, lambda: view
    if "MuData" in how:
        data = mudata.MuData({"rna": adata})
        data = data[:] if "view" in how else data
        return data, lambda: data.mod["rna"]
    if how in {"backed", "lazy"}:
        adata.write_h5ad(path / "x.h5ad")
        data = (
            ad.experimental.read_lazy(path / "x.h5ad") if how == "lazy" else ad.read_h5ad(path / "x.h5ad", backed="r")
        )
        return data, lambda: data
    return adata, lambda: adata


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("how", ["memory", "view", "MuData", "view of MuData", "backed", "lazy"])
@pytest.mark.parametrize("slot", ["obsm", "layers"])
def test_a_slot_of_anndata_that_raises(how, slot, monkeypatch, tmp_path):
    """The last write of an array fails inside anndata, after others took the place of older values."""
    start = sdr.datasets.toy(4, 5, 40)
    start.obs["call"], start.obs.index.name, start.var["name"] = "old", "flag", "old"
    start.obsm["X_mine"], start.uns["mine"], start.layers["twice"] = np.zeros((20, 2)), {"n": 1}, np.zeros((20, 40))
    data, inner = stored(start, how, tmp_path)
    snapshot(inner())  # reading names the index of a lazy frame
    before = snapshot(inner())
    values = {
        "obs": {"call": pd.Categorical(["a", "b"] * 10), "flag": np.arange(20) > 3},
        "var": {"name": np.array(["x"] * 40, dtype=object)},
        "uns": {"mine": {"n": 2}, "more": {}},
        "obsm": {"X_mine": np.ones((20, 2)), "X_more": np.ones((20, 3))},
        "layers": {"twice": np.ones((20, 40)), "more": np.ones((20, 40))},
    }
    kind = AxisArrays if slot == "obsm" else Layers
    original = kind.__setitem__

    def full(self: Any, key: str, value: Any) -> None:
        if key in {"X_more", "more"}:
            raise DiskFullError
        original(self, key, value)

    was_view = inner().is_view
    monkeypatch.setattr(kind, "__setitem__", full)
    with pytest.raises(DiskFullError):
        Target(data, "rna", copy=False).write(**values)
    monkeypatch.undo()
    assert inner().is_view == was_view
    now = snapshot(inner())
    assert list(now["obsm"]) == list(before["obsm"])
    assert list(now["layers"]) == list(before["layers"])
    np.testing.assert_array_equal(now["obsm"]["X_mine"], before["obsm"]["X_mine"])
    assert now["uns"].keys() == before["uns"].keys()
    assert now["uns"]["mine"] == {"n": 1}
    assert list(now["obs"]) == list(before["obs"])
    assert set(now["obs"]["call"]) == {"old"}
    assert now["index"] == before["index"]
    Target(data, "rna", copy=False).write(**values)
    assert "X_more" in inner().obsm


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_an_interruption_leaves_nothing(error, monkeypatch):
    adata = sdr.datasets.toy(4, 5, 40)
    before = snapshot(adata)

    def stop(*_: Any) -> None:
        raise error

    monkeypatch.setattr(AxisArrays, "__setitem__", stop)
    with pytest.raises(error):
        Target(adata, "rna", copy=False).write(uns={"a": {}}, obs={"b": np.zeros(20)}, obsm={"c": np.zeros((20, 1))})
    unchanged(adata, before)
