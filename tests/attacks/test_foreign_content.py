"""Something else under the keys that our verbs write: every reader says which slot it is and who writes it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from studies import done, raised_by_us

import sc_drugresp as sdr
from sc_drugresp._core.keys import CALL_CLASSES, PredictionKeys
from sc_drugresp.get import _read

RECORDS = {name: record for name, record in vars(_read).items() if isinstance(record, _read.Record) and name.isupper()}
FOREIGN = {
    "text": "a note of mine",
    "number": 3,
    "None": None,
    "array": np.arange(4),
    "list": ["a"],
    "frame": pd.DataFrame({"x": [1]}),
    "empty": {},
    "another package": {"params": {"n": 3}, "connectivities_key": "x"},
    "frames of another package": {"metrics": pd.DataFrame({"f1": [0.5]}), "table": pd.DataFrame(), "models": "mine"},
}
REPLACEMENTS: dict[str, Any] = {
    "text": "x",
    "number": 7,
    "None": None,
    "list": [1, None],
    "flag": True,
    "dict": {"a": 1},
    "array": np.zeros((2, 2)),
    "frame": pd.DataFrame({"x": [1]}),
}
SLOW = pytest.mark.slow


def readers() -> list[str]:
    """Public functions that read what others wrote, by introspection."""
    names = [f"{door}.{name}" for door in ("get", "pl") for name in getattr(sdr, door).__all__]
    return [name for name in names if "data" in inspect.signature(function(name)).parameters]


def function(name: str) -> Callable[..., Any]:
    door, _, short = name.partition(".")
    return getattr(getattr(sdr, door), short)


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("name", readers())
def test_a_reader_names_what_is_missing(name, foreign):
    adata = sdr.datasets.toy(4, 5, 50)
    for record in RECORDS.values():
        adata.uns[record.default] = FOREIGN[foreign]
    with pytest.raises(KeyError, match=r"(\.uns|\.obs).*sc_drugresp\.tl\.|Samples have not been aggregated"):
        function(name)(adata)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all parts of a record: keys of dictionaries and columns of tables."""
    parts = value if isinstance(value, dict) else value.columns if isinstance(value, pd.DataFrame) else ()
    for key in parts:
        yield (*path, key)
        yield from leaves(value[key], (*path, key))


def change(record: dict[str, Any], path: tuple[Any, ...], what: str) -> dict[str, Any]:
    """A copy of a record with one part deleted or replaced."""
    out = dict(record)
    place: Any = out
    for key in path[:-1]:
        place[key] = place[key].copy()
        place = place[key]
    if what == "delete":
        del place[path[-1]]
    elif what in ("one row", "no rows"):
        place[path[-1]] = place[path[-1]].iloc[: int(what == "one row")]
    elif isinstance(place, pd.DataFrame):
        value = REPLACEMENTS[what]
        place[path[-1]] = [value] * len(place)
    else:
        place[path[-1]] = REPLACEMENTS[what]
    return out


def changes(record: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Every part of a record and everything that is done to it."""
    for path in leaves(record):
        place: Any = record
        for key in path[:-1]:
            place = place[key]
        yield path, "delete"
        if isinstance(place, dict) and isinstance(place[path[-1]], pd.DataFrame):
            yield path, "one row"
            yield path, "no rows"
        for what in REPLACEMENTS if isinstance(place, dict) else ("text", "number", "None", "list"):
            yield path, what


def told(error: Exception, slot: str) -> None:
    """The error is one of ours that names the slot and the verb."""
    text = str(error)
    assert isinstance(error, KeyError | ValueError), repr(error)
    assert "sc_drugresp.tl." in text, text
    assert slot in text or "not found in `.obs`" in text, text


def damaged(slot: str) -> tuple[list[tuple[dict[str, Any], str]], int]:
    """Damaged records of a slot that are taken for whole, and the number of those that are refused by name."""
    adata = done()
    record = next(
        record for record in RECORDS.values() if record.default == slot.replace("by_drug", "predicted_response")
    )
    whole, taken, refused = adata.uns[slot], [], 0
    for path, what in changes(whole):
        adata.uns[slot] = change(whole, path, what)
        try:
            record.read(adata, slot)
        except KeyError as error:
            told(error, slot)
            refused += 1
        else:
            taken.append((adata.uns[slot], f"{path} {what}"))
    return taken, refused


SLOTS = ["evaluation", "predicted_response", "by_drug", "drug_ranking", "train_response", "state_control"]
FEWEST = {"evaluation": 420, "predicted_response": 190, "by_drug": 190, "drug_ranking": 190}


@pytest.mark.parametrize("slot", SLOTS)
def test_every_part_of_a_record(slot):
    """All frames are read from what is taken for whole; nothing but our own errors comes out."""
    taken, refused = damaged(slot)
    assert refused >= FEWEST.get(slot, 20)
    read_all(slot, taken[:: max(len(taken) // 20, 1)], [name for name in readers() if name.startswith("get.")])


@SLOW
@pytest.mark.parametrize("slot", SLOTS)
def test_every_plot_of_every_part(slot, tmp_path):
    read_all(slot, damaged(slot)[0], readers(), folder=tmp_path)


def read_all(
    slot: str, taken: list[tuple[dict[str, Any], str]], names: list[str], *, folder: Path | None = None
) -> None:
    adata = done()
    key = {"key_added": slot} if slot == "by_drug" else {}
    del adata.uns[slot]
    names = [name for name in names if needs_it(name, adata, key)]
    assert names
    for record, what in taken:
        adata.uns[slot] = record
        for name in names:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    function(name)(adata, **key)
            except (KeyError, ValueError) as error:
                raised_by_us(error, f"{name} of {what}")
        plt.close("all")
        if folder is not None:
            try:
                sdr.report(adata, folder / "r.html")
            except (KeyError, ValueError) as error:
                raised_by_us(error, f"report of {what}")


def needs_it(name: str, adata: ad.AnnData, key: dict[str, str]) -> bool:
    """Whether a reader misses what is not there."""
    try:
        function(name)(adata, **key)
    except KeyError:
        return True
    return False


@pytest.mark.parametrize("door", ["get", pytest.param("pl", marks=SLOW)])
def test_whole_records_are_read(tmp_path, door):
    """What is refused above is not refused when it is whole, and not after a round trip through a file either."""
    adata = done()
    adata.write_h5ad(tmp_path / "x.h5ad")
    for data in (adata, ad.read_h5ad(tmp_path / "x.h5ad")):
        for name in readers():
            if name.startswith(door):
                function(name)(data)
        plt.close("all")
        by_drug = sdr.get.predictions_df(data, key_added="by_drug")
        assert set(by_drug["call"]) <= set(CALL_CLASSES)
        if door == "pl":
            sdr.report(data, tmp_path / "r.html", prediction_key="by_drug")


@pytest.mark.parametrize(
    ("slot", "value", "reader"),
    [
        ("obs:predicted_response", "sensible", "get.predictions_df"),
        ("obs:predicted_response", 1.0, "pl.response"),
        ("obs:predicted_response_prob", "0.5", "get.predictions_df"),
        ("obs:predicted_response_ood", "no", "get.predictions_df"),
        ("obs:predicted_response_low", "a", "tl.aggregate"),
        ("obs:predicted_response_ood", 0.5, "tl.aggregate"),
        ("obs:evaluation_prob", "a", "pl.calibration"),
        ("obs:evaluation_score", True, "get.roc_df"),
    ],
)
def test_columns_of_another_kind(slot, value, reader):
    adata, key = done(), slot.removeprefix("obs:")
    adata.obs[key] = value
    with pytest.raises(KeyError, match=rf"\.obs\['{key}'\].*tl\.(predict_response|evaluate)"):
        function(reader)(adata)


@pytest.mark.parametrize("part", sorted({*PredictionKeys().__dict__.values()} - {"samples"}))
def test_lost_columns(part):
    """A column less is an error by name, or the frame without it."""
    adata = done()
    if part in adata.obs:
        del adata.obs[part]
    for name in ("get.predictions_df", "pl.response", "tl.aggregate"):
        try:
            function(name)(adata)
        except KeyError as error:
            raised_by_us(error, name, "tl.predict_response")
    plt.close("all")


@pytest.mark.parametrize("what", ["delete", *(pytest.param(what, marks=SLOW) for what in REPLACEMENTS)])
def test_notes_about_an_embedding(what):
    """What reads a damaged note refuses it by name; what writes does not stumble over it, and counts on."""
    cells = sdr.datasets.toy(6, 12, 60)
    sdr.tl.embed(cells, "pca", n_comps=5)
    whole = cells.uns["sdr_pca"]
    for path in leaves(whole):
        adata = cells.copy()
        adata.uns["sdr_pca"] = change(whole, path, what)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sdr.tl.train_response(adata, use_rep="X_sdr_pca")
        except (KeyError, ValueError, TypeError) as error:
            raised_by_us(error, str(path))
        if path == ("kind",):
            continue
        sdr.tl.embed(adata, "pca", n_comps=3, key_added="mine")
        assert adata.uns["mine"]["sequence"] >= 2 - (path == ("sequence",))
    plt.close("all")


@pytest.mark.parametrize("foreign", FOREIGN)
def test_writers_take_the_place_of_what_is_foreign(foreign):
    """Everything that a writer finds under its own keys, or beside them, is replaced or left alone, never stumbled over."""
    adata = sdr.datasets.toy(6, 12, 100)
    keys = [record.default for record in RECORDS.values()] + [
        "sdr_pca",
        "sdr_hvg",
        "harmonize_genes",
        "suggested_malignant",
    ]
    for key in keys:
        adata.uns[key] = FOREIGN[foreign]
    adata.uns["theirs"] = FOREIGN[foreign]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdr.pp.harmonize_genes(adata)
        sdr.tl.embed(adata, "pca", n_comps=3)
        sdr.tl.train_response(adata)
        sdr.tl.predict_response(adata)
        sdr.tl.aggregate(adata)
    assert isinstance(adata.uns["sdr_pca"], dict)
    assert adata.uns["theirs"] is FOREIGN[foreign]
    assert len(sdr.get.samples_df(adata))


@pytest.mark.parametrize("part", ["spread", "bags", "mean_calls", "sample_calls", "prevalence", "kind", "models"])
@pytest.mark.parametrize(
    "what", ["delete", "text", *(pytest.param(what, marks=SLOW) for what in REPLACEMENTS if what != "text")]
)
def test_aggregate_reads_only_what_prediction_wrote(part, what):
    adata = done()
    whole = adata.uns["predicted_response"]
    paths = [path for path in leaves(whole) if path[0] == part] or [(part,)]
    for path in paths:
        if what == "delete" and part not in whole:
            continue
        adata.uns["predicted_response"] = change(whole, path, what)
        before = list(adata.uns["predicted_response"])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sdr.tl.aggregate(adata, "patient")
        except (KeyError, ValueError) as error:
            raised_by_us(error, str(path), "predicted_response", "tl.predict_response")
            assert list(adata.uns["predicted_response"]) == before
