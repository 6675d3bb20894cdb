"""Matrices of every kind: a clear error, or the result that the same numbers give in the plainest form."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import anndata as ad
import numpy as np
import pytest
from helpers import golden
from scipy import sparse
from studies import OPTIONS, cells, raised_by_us, reference

import sc_drugresp as sdr

WHO = {"malignant_key": "malignant", "chemistry": "dropseq"}
VERBS: dict[str, Any] = {
    "check": lambda a: sdr.pp.check(a),
    "genes": lambda a: sdr.pp.harmonize_genes(a),
    "malignant": lambda a: sdr.pp.suggest_malignant(a),
    "pca": lambda a: sdr.tl.embed(a, "pca", n_comps=5),
    "hvg": lambda a: sdr.tl.embed(a, "hvg", n_top_genes=20),
    "scgpt": lambda a: sdr.tl.embed(a, "scgpt", checkpoint=golden("scgpt").weights),
    "cellplm": lambda a: sdr.tl.embed(a, "cellplm", checkpoint=golden("cellplm").weights, group_key="sample"),
    "train": lambda a: sdr.tl.train_response(a, model="pca", n_comps=5),
    "predict": lambda a: sdr.tl.predict_response(a),
    "evaluate": lambda a: sdr.tl.evaluate(a, model="pca", options=OPTIONS),
    "rank": lambda a: sdr.tl.rank_drugs(a, groupby="patient", reference=reference(), **WHO),
    "leiden": lambda a: sdr.tl.rank_drugs(a, reference=reference(), **WHO),
    "drug": lambda a: sdr.tl.predict_response(
        a, drug="Erlotinib", groupby="patient", reference=reference(), per_cell=True, **WHO
    ),
    "state": lambda a: sdr.tl.state_control(a, "timepoint", "pre", model="pca"),
}
QUICK = ("check", "malignant", "pca", "train")
DESCRIBE = ("check", "genes")
"""These say what is wrong with values instead of refusing them."""


@cache
def _counts() -> np.ndarray:
    return cells().X.toarray()


def masked(share: float) -> np.ma.MaskedArray:
    return np.ma.masked_array(_counts(), mask=np.random.default_rng(0).random(_counts().shape) < share)


def with_one(value: float) -> np.ndarray:
    out = _counts().copy()
    out[40, 7] = value
    return out


def unsorted() -> sparse.csr_matrix:
    made = sparse.csr_matrix(_counts())
    for start, stop in zip(made.indptr[:-1], made.indptr[1:]):
        made.indices[start:stop] = made.indices[start:stop][::-1].copy()
        made.data[start:stop] = made.data[start:stop][::-1].copy()
    made.has_sorted_indices = False
    return made


def twice() -> sparse.csr_matrix:
    """Every entry in two halves."""
    made = sparse.csr_matrix(_counts() * 1.0)
    parts = (np.repeat(made.data / 2, 2), np.repeat(made.indices, 2), made.indptr * 2)
    return sparse.csr_matrix(parts, shape=made.shape)


def explicit_zeros() -> sparse.csr_matrix:
    made = sparse.csr_matrix(_counts() + 1)
    made.data -= 1
    return made


REFUSED: dict[str, Any] = {
    "masked": lambda: masked(0.2),
    "one masked value": lambda: masked(0.0005),
    "objects": lambda: _counts().astype(object),
    "text": lambda: _counts().astype(str),
    "complex": lambda: _counts().astype(complex),
    "sparse complex": lambda: sparse.csr_matrix(_counts().astype(complex)),
    "fields": lambda: np.zeros(_counts().shape, dtype=[("a", "f4"), ("b", "i4")]),
    "dates": lambda: _counts().astype("datetime64[s]"),
}
REFUSED_VALUES: dict[str, Any] = {
    "NaN": lambda: with_one(np.nan),
    "sparse NaN": lambda: sparse.csr_matrix(with_one(np.nan)),
    "infinity": lambda: with_one(np.inf),
    "minus infinity": lambda: with_one(-np.inf),
    "beyond float32": lambda: _counts().astype(np.float64) * 1e300,
    "beyond counts": lambda: (_counts() * 2**55).astype(np.uint64),
}
SAME: dict[str, Any] = {
    "nothing masked": lambda: np.ma.masked_array(_counts()),
    "float16": lambda: _counts().astype(np.float16),
    "long double": lambda: _counts().astype(np.longdouble),
    "int16": lambda: _counts().astype(np.int16),
    "uint64": lambda: sparse.csr_matrix(_counts().astype(np.uint64)),
    "big endian": lambda: _counts().astype(">f4"),
    "Fortran order": lambda: np.asfortranarray(_counts()),
    "read only": lambda: np.frombuffer(_counts().tobytes(), _counts().dtype).reshape(_counts().shape),
    "csc": lambda: sparse.csc_matrix(_counts()),
    "sparse array": lambda: sparse.csr_array(_counts()),
    "unsorted": unsorted,
    "duplicate entries": twice,
    "explicit zeros": explicit_zeros,
}
OTHER: dict[str, Any] = {
    "true and false": lambda: _counts() > 0,
    "negative": lambda: with_one(-1.0),
    "all zero": lambda: np.zeros_like(_counts()),
    "sparse all zero": lambda: sparse.csr_matrix(_counts().shape, dtype=np.float32),
    "constant": lambda: np.ones_like(_counts()),
    "one value": lambda: np.eye(1, _counts().size, dtype=np.float32).reshape(_counts().shape),
    "empty cells": lambda: _counts() * (np.arange(len(_counts())) % 2)[:, None],
    "normalized": lambda: np.log1p(_counts() / _counts().sum(1, keepdims=True) * 1e4),
    "scaled": lambda: (_counts() - _counts().mean(0)) / (_counts().std(0) + 1),
}
SHAPES: dict[str, Any] = {
    "one gene": lambda a: a[:, :1].copy(),
    "two genes": lambda a: a[:, :2].copy(),
    "one cell": lambda a: a[:1].copy(),
    "two cells": lambda a: a[[0, -1]].copy(),
    "no cells": lambda a: a[:0].copy(),
    "no genes": lambda a: a[:, :0].copy(),
    "no matrix": lambda a: ad.AnnData(obs=a.obs, var=a.var),
}


def cells_with(matrix: Any) -> ad.AnnData:
    plain = cells()
    return ad.AnnData(matrix, obs=plain.obs, var=plain.var)


def attempt(adata: ad.AnnData, verb: str) -> Exception | None:
    """Run a verb; its error, which is ours and leaves the object as it was."""
    before = {slot: sorted(map(str, getattr(adata, slot))) for slot in ("obs", "var", "obsm", "layers", "uns")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            VERBS[verb](adata)
    except (ValueError, KeyError) as error:
        raised_by_us(error, verb)
        assert {slot: sorted(map(str, getattr(adata, slot))) for slot in before} == before
        return error
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "verb" in metafunc.fixturenames:
        verbs = [verb if verb in QUICK else pytest.param(verb, marks=pytest.mark.slow) for verb in VERBS]
        metafunc.parametrize("verb", verbs)


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind, verb):
    assert attempt(cells_with(REFUSED[kind]()), verb) is not None


@pytest.mark.parametrize("kind", REFUSED_VALUES)
def test_refused_values(kind, verb):
    error = attempt(cells_with(REFUSED_VALUES[kind]()), verb)
    assert error is not None or verb in DESCRIBE


@pytest.mark.parametrize("place", ["layer", "obsm"])
def test_masks_elsewhere(place):
    adata = cells()
    if place == "layer":
        adata.layers["mine"] = masked(0.2)
        with pytest.raises(ValueError, match=r"masked array in which .* values are masked"):
            sdr.tl.embed(adata, "pca", layer="mine")
        return
    adata.obsm["X_mine"] = masked(0.2)[:, :4]
    with pytest.raises(ValueError, match="'X_mine' is a masked array"):
        sdr.tl.train_response(adata, use_rep="X_mine")


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.array([["a"] * 4]), "numbers"), (np.array([[np.inf] * 4]), "infinite"), (np.array([[1j] * 4]), "numbers")],
)
def test_embeddings_of_another_kind(value, message):
    adata = cells()
    adata.obsm["X_mine"] = np.repeat(value, adata.n_obs, axis=0)
    for verb, options in (("train_response", {}), ("evaluate", {"options": OPTIONS})):
        with pytest.raises(ValueError, match=f"'X_mine'.*{message}"):
            getattr(sdr.tl, verb)(adata, use_rep="X_mine", **options)


@cache
def plain(verb: str) -> dict[str, Any]:
    """What a verb writes for the plainest matrix."""
    adata = cells_with(_counts().astype(np.float32))
    assert attempt(adata, verb) is None
    return written(adata)


def written(adata: ad.AnnData) -> dict[str, Any]:
    """Numbers that a verb wrote."""
    out = {f"obsm {name}": np.asarray(value, np.float64) for name, value in adata.obsm.items()}
    known = set(cells().obs)
    return out | {f"obs {name}": adata.obs[name].astype(str).to_numpy() for name in adata.obs if name not in known}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_numbers_give_the_same_result(kind, verb):
    adata = cells_with(SAME[kind]())
    assert attempt(adata, verb) is None
    found = written(adata)
    assert found.keys() == plain(verb).keys()
    for name, value in found.items():
        if value.dtype.kind == "f":  # the last bit of a product depends on where its operands lie in memory
            np.testing.assert_allclose(value, plain(verb)[name], rtol=0, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(value, plain(verb)[name], err_msg=name)


@pytest.mark.parametrize("kind", OTHER)
def test_a_result_or_a_clear_error(kind, verb):
    attempt(cells_with(OTHER[kind]()), verb)


@pytest.mark.parametrize("kind", ["all zero", "sparse all zero"])
def test_nothing_is_learned_from_zeros(kind):
    for verb in ("pca", "hvg", "train"):
        assert "there is nothing to learn" in str(attempt(cells_with(OTHER[kind]()), verb))


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes(kind, verb):
    attempt(SHAPES[kind](cells()), verb)


@pytest.mark.filterwarnings("ignore:Observation names:UserWarning", "ignore:Variable names:UserWarning")
def test_names_that_occur_twice(verb):
    """Cells are told apart by their place; columns of one gene are added up."""
    adata, twins = cells_with(_counts().astype(np.float32)), cells_with(_counts().astype(np.float32))
    twins.obs_names = ["x"] * twins.n_obs
    assert (attempt(twins, verb) is None) == (attempt(adata, verb) is None)
    for name, value in written(twins).items():
        np.testing.assert_array_equal(value, written(adata)[name], err_msg=name)
    twins.var_names = ["TP53"] * twins.n_vars
    attempt(twins, verb)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["yes", "no"], "values of type object"),
        ([1.0, np.nan], "values of type float64"),
        ([1, 0], "values of type int64"),
        ([True, None], "values of type object"),
        ([False, False], "keeps no cell"),
    ],
)
def test_only_true_and_false_choose_cells(values, message):
    adata = cells()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdr.tl.predict_response(adata)
    adata.obs["keep"] = (values * adata.n_obs)[: adata.n_obs]
    with pytest.raises(ValueError, match=message):
        sdr.tl.aggregate(adata, "patient", mask_obs="keep")
    adata.obs["keep"] = adata.obs["keep"].astype("category")
    with pytest.raises(ValueError, match=r"keeps no cell|must hold true or false"):
        sdr.tl.aggregate(adata, "patient", mask_obs="keep")
    pca = sdr.models.load("pca")
    for mask in (values, np.array(values), np.ones(3, bool), "keep", np.zeros(adata.n_obs, bool)):
        with pytest.raises(ValueError, match=r"`mask_obs` (must|keeps)"):
            pca.embed(adata, mask_obs=mask)


@pytest.mark.parametrize("dtype", ["bool", "boolean"])
def test_true_and_false_choose_cells(dtype):
    adata = cells()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdr.tl.predict_response(adata)
    adata.obs["keep"] = np.arange(adata.n_obs) % 3 > 0
    adata.obs["keep"] = adata.obs["keep"].astype(dtype)
    sdr.tl.aggregate(adata, "patient", mask_obs="keep")
    assert sdr.get.samples_df(adata)["n_cells"].sum() == (np.arange(adata.n_obs) % 3 > 0).sum()


@pytest.mark.parametrize("missing", [np.nan, None])
def test_cells_without_a_set_are_refused(missing):
    adata = cells()
    adata.obs["set"] = [missing, *["a"] * (adata.n_obs - 1)]
    with pytest.raises(ValueError, match=r"'set' .* is missing for 1 cells"):
        sdr.tl.embed(adata, "cellplm", checkpoint=golden("cellplm").weights, group_key="set")
    assert "X_cellplm" not in adata.obsm
    model = sdr.tl.train_response(adata, model="pca", n_comps=3, group_key="patient")
    with pytest.raises(ValueError, match=r"'set' .* is missing for 1 cells"):
        sdr.tl.predict_response(adata, model, group_key="set")


@pytest.mark.parametrize(("values", "n"), [([1.0, 0.0], 1), ([1.0, np.nan], 1), ([0.3, 1.0], None)])
def test_malignant_cells_by_number(values, n):
    """Zeros that became floating point are still zeros."""
    adata = cells()
    adata.obs["malignant"] = (values * adata.n_obs)[: adata.n_obs]
    if n is None:
        with pytest.raises(ValueError, match="true and false"):
            sdr.tl.rank_drugs(adata, groupby="patient", reference=reference(), **WHO)
        return
    sdr.tl.rank_drugs(adata, groupby="patient", reference=reference(), **WHO)
    assert adata.uns["drug_ranking"]["groups"]["n_cells"].sum() == adata.n_obs // 2
