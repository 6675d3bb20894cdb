"""Free text to response classes, without guessing."""

from __future__ import annotations

import logging

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest

import sc_drugresp as sdr


def make(values) -> ad.AnnData:
    obs = pd.DataFrame({"raw": values}, index=[f"c{i}" for i in range(len(values))])
    return ad.AnnData(np.ones((len(values), 2), np.float32), obs=obs)


def translated(values, **kwargs) -> list[str]:
    adata = make(values)
    sdr.pp.harmonize_labels(adata, "raw", **kwargs)
    column = adata.obs["response"]
    assert list(column.cat.categories) == ["sensitive", "resistant"]
    return ["s" if v == "sensitive" else "r" if v == "resistant" else "-" for v in column.astype(object)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["Resistant", " sensitive ", "RESISTANT"], "rsr"),
        (["responder", "Non-Responder", "non_responders", "nonresponder", "Responders"], "srrrs"),
        (["CR", "PR", "PD", "NE", "NA"], "ssr--"),
        (["Complete Response", "progressive disease", "partial-response"], "srs"),
        (["drug-sensitive cells", "acquired resistance", "Resistant line", "refractory"], "srrr"),
        (["R", "S", "R"], "rsr"),
        (["R", "NR", "R"], "srs"),
        (["R", "N"], "sr"),
        (["DCB", "NDB", None, float("nan"), ""], "sr---"),
    ],
)
def test_known_words(values, expected):
    assert "".join(translated(values)) == expected


@pytest.mark.parametrize(
    ("values", "kwargs", "expected"),
    [
        ([0, 1, 1], {"sensitive": 1, "resistant": 0}, "rss"),
        ([0.0, 1.0, np.nan], {"sensitive": 1, "resistant": 0}, "rs-"),
        (["0", "1"], {"sensitive": "1", "resistant": 0}, "rs"),
        ([True, False], {"sensitive": True, "resistant": False}, "sr"),
        (["PR", "SD", "PD"], {"sensitive": ["sd"]}, "ssr"),
        (["persister", "sensitive", "resistant"], {"missing": "persister"}, "-sr"),
        (["pre", "Post"], {"sensitive": "PRE", "resistant": {"post"}}, "sr"),
        (["responder", "nonresponder"], {"sensitive": "nonresponder", "resistant": "responder"}, "rs"),
    ],
)
def test_given_values_count_more(values, kwargs, expected):
    assert "".join(translated(values, **kwargs)) == expected


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (["PR", "SD"], "stable disease"),
        (["sensitive", "persister"], "survived"),
        (["R", "sensitive"], "responder in others"),
        ([0, 1], "0, 1"),
        ([True, False], "True"),
        (["sensitive", "not really sensitive"], "not really sensitive"),
        (["sensitive to A, resistant to B", "resistant"], "sensitive to A"),
    ],
)
def test_what_is_not_clear_is_listed(values, hint):
    adata = make(values)
    with pytest.raises(ValueError, match=hint) as error:
        sdr.pp.harmonize_labels(adata, "raw")
    assert "sensitive=" in str(error.value)
    assert list(adata.obs) == ["raw"]


def test_unknown_may_become_missing():
    assert "".join(translated(["PR", "SD", "who knows"], unknown="missing")) == "s--"


def test_errors_before_anything_is_written():
    adata = make(["a", "b"])
    with pytest.raises(KeyError, match=r"Available columns: \['raw'\]"):
        sdr.pp.harmonize_labels(adata, "nope")
    with pytest.raises(ValueError, match="given as 'sensitive' and as 'resistant'"):
        sdr.pp.harmonize_labels(adata, "raw", sensitive="a", resistant="A")
    with pytest.raises(ValueError, match="No cell of column"):
        sdr.pp.harmonize_labels(adata, "raw", missing=["a", "b"])
    with pytest.raises(ValueError, match="missing values only"):
        sdr.pp.harmonize_labels(make([None, None]), "raw")
    with pytest.raises(ValueError, match="`unknown` must be"):
        sdr.pp.harmonize_labels(adata, "raw", unknown="drop")  # type: ignore[arg-type]
    assert list(adata.obs) == ["raw"]


def test_in_place_copy_and_file(tmp_path, caplog):
    adata = make(pd.Categorical(["R", "NR", None]))
    out = sdr.pp.harmonize_labels(adata, "raw", key_added="label", copy=True)
    assert list(adata.obs) == ["raw"]
    with caplog.at_level(logging.INFO, logger="sc_drugresp"):
        sdr.pp.harmonize_labels(adata, "raw", key_added="raw")
    assert "'sensitive': 1, 'resistant': 1" in caplog.text
    assert adata.obs["raw"].tolist()[:2] == out.obs["label"].tolist()[:2] == ["sensitive", "resistant"]
    out.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad").obs["label"]
    assert again.isna().tolist() == [False, False, True]


def test_lazy_object(tmp_path):
    make(["R", "NR"]).write_h5ad(tmp_path / "x.h5ad")
    lazy = ad.experimental.read_lazy(tmp_path / "x.h5ad")
    sdr.pp.harmonize_labels(lazy, "raw")
    assert np.asarray(lazy.obs["response"]).tolist() == ["sensitive", "resistant"]


def test_column_of_a_whole_mudata():
    mdata = mudata.MuData({"rna": make(["x", "y", "z"])})
    mdata.obs["outcome"] = ["R", "NR", None]
    sdr.pp.harmonize_labels(mdata, "outcome")
    assert mdata.mod["rna"].obs["response"].tolist()[:2] == ["sensitive", "resistant"]
    sdr.pp.harmonize_labels(mdata, "rna:raw", sensitive="x", resistant="y", missing="z", key_added="mine")
    assert mdata.mod["rna"].obs["mine"].tolist()[:2] == ["sensitive", "resistant"]
    with pytest.raises(KeyError, match="'outcome'"):
        sdr.pp.harmonize_labels(mdata, "nope")
