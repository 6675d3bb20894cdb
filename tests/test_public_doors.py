"""What a user meets first: names behind a dot, and an object of the wrong type."""

from __future__ import annotations

import importlib
import inspect
import operator

import numpy as np
import pandas as pd
import pytest

import sc_drugresp as sdr
from sc_drugresp._core.docs import doc_group_key
from sc_drugresp._core.keys import GROUP_CANDIDATES

DOORS = ("datasets", "get", "models", "pl", "pp", "tl")


@pytest.mark.parametrize("door", DOORS)
def test_completion_shows_public_names_only(door):
    module = importlib.import_module(f"sc_drugresp.{door}")
    assert dir(module) == sorted(module.__all__)
    assert [name for name in dir(module) if name.startswith("_") or not hasattr(module, name)] == []
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_completion_of_the_package():
    assert set(dir(sdr)) == {*sdr.__all__, "__version__"}


WITHOUT_DATA = {"get.prompt", "get.reliability"}
"""About a question or a drug, not about cells."""


def takes_data() -> list[str]:
    """Public functions whose first argument is an AnnData or MuData."""
    names = []
    for door in ("pp", "tl", "pl", "get"):
        module = importlib.import_module(f"sc_drugresp.{door}")
        names += [f"{door}.{name}" for name in module.__all__ if not inspect.isclass(getattr(module, name))]
    return [*(name for name in names if name not in WITHOUT_DATA), "report"]


@pytest.mark.parametrize("name", takes_data())
@pytest.mark.parametrize("data", [pd.DataFrame(np.eye(3)), np.eye(3), None, 7], ids=lambda d: type(d).__name__)
def test_an_object_of_the_wrong_type_is_refused_by_name(name, data):
    function = operator.attrgetter(name)(sdr)
    with pytest.raises(
        TypeError, match=r"`data` must be an anndata\.AnnData or a mudata\.MuData( or a path)?, found"
    ) as error:
        function(data, *_required(function))
    assert f"found {data}" in str(error.value) or type(data).__name__ in str(error.value)
    assert ("anndata.AnnData(frame)" in str(error.value)) == isinstance(data, pd.DataFrame)


@pytest.mark.parametrize("name", takes_data())
def test_a_path_is_opened_or_refused_by_name(name):
    function = operator.attrgetter(name)(sdr)
    with pytest.raises((TypeError, FileNotFoundError), match=r"`data` must be|There is no file 'data\.h5ad'"):
        function("data.h5ad", *_required(function))


def _required(function):
    """Something for each argument behind the first one that has no default."""
    return [
        "pca" if parameter.name == "model" else "x"
        for parameter in list(inspect.signature(function).parameters.values())[1:]
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]


def test_texts_list_the_usual_names_from_one_place():
    """`group_key=None` looks for names; whatever tells about it must name all of them."""
    told = {name for name in GROUP_CANDIDATES if f"`{name}`" in doc_group_key}
    assert told == set(GROUP_CANDIDATES)
    assert {"orig.ident", "donor_id", "patient_id", "sample_id"} <= told
    for function in (sdr.pp.check, sdr.pp.split, sdr.tl.train_response, sdr.tl.evaluate):
        assert all(f"`{name}`" in inspect.getdoc(function) for name in GROUP_CANDIDATES)


@pytest.mark.parametrize("key_added", ["a/b", "", "_index"])
@pytest.mark.parametrize("name", [name for name in takes_data() if name.startswith(("pp", "tl"))])
def test_names_that_files_cannot_hold_are_refused_before_work(name, key_added):
    function = getattr(getattr(sdr, name.split(".")[0]), name.split(".")[1])
    parameters = inspect.signature(function).parameters
    if "key_added" not in parameters:
        return
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=5, n_genes=50)
    required = {
        key: "pca" if key == "model" else "response"
        for key, parameter in list(parameters.items())[1:]
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    }
    with pytest.raises(ValueError, match="`key_added` must be a name without '/'"):
        function(adata, **required, key_added=key_added)
    assert set(adata.uns) == {"toy"}
