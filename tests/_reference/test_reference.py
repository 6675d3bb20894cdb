"""Building, saving and reading references; refusals."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from screens import toy_reference, toy_screen

import sc_drugresp as sdr
from sc_drugresp._reference.storage import ARRAYS, META, write_reference


@pytest.fixture(scope="module")
def built():
    expression, response, tissue = toy_screen()
    return sdr.models.build_reference("own", expression=expression, response=response, tissue=tissue)


def test_skill_is_found_where_there_is_some(built) -> None:
    assert built.drugs.loc["seen", "r"] > 0.6
    assert built.drugs.loc["seen", "r_within_tissue"] > 0.6
    assert abs(built.drugs.loc["unseen", "r"]) < 0.25
    assert set(built.lineages) == {"breast", "lung", "blood"}
    assert built.tissue_means.shape == (4, 3)


def test_excluded_lines_and_their_relatives_have_no_influence() -> None:
    expression, response, _ = toy_screen()
    rename = {expression.index[0]: "MCF7", expression.index[1]: "KPL1", expression.index[2]: "BT474"}
    expression = expression.rename(index=rename)
    response = response.assign(line=response["line"].replace(rename))
    without = sdr.models.build_reference("own", expression=expression, response=response, exclude_lines=["kpl-1"])
    kept = expression.drop(index=["MCF7", "KPL1"])
    same = sdr.models.build_reference("own", expression=kept, response=response)
    assert without.info["left_out"] == ["KPL1", "MCF7"]
    assert "BT474" in without.lines.index
    np.testing.assert_array_equal(without.weights, same.weights)
    assert without.info["sha256"] == same.info["sha256"]


def test_repeated_pairs_are_averaged_and_names_are_reconciled(built) -> None:
    expression, response, tissue = toy_screen()
    twice = pd.concat([response.assign(value=response["value"] - 1), response.assign(value=response["value"] + 1)])
    spelled = expression.rename(index=lambda line: f"{line[:4].lower()}-{line[4:]}")
    again = sdr.models.build_reference("own", expression=spelled, response=twice, tissue=tissue)
    np.testing.assert_allclose(again.weights, built.weights, atol=1e-5)


def test_dead_genes_are_left_out(built) -> None:
    expression, response, _ = toy_screen()
    dead = expression.assign(DEAD1=expression.mean(axis=1))
    found = sdr.models.build_reference("own", expression=dead, response=response)
    assert "DEAD1" not in found.genes
    assert found.info["n_dead_genes"] == 1


def test_save_and_load_give_the_same_model(built, tmp_path) -> None:
    reference, *_ = toy_reference()
    reference.save(tmp_path / "model")
    again = sdr.models.Reference.load(tmp_path / "model")
    for name in ("mean", "weights", "intercept", "errors", "recalibration", "tissue_means", "centroids", "gaps"):
        np.testing.assert_array_equal(getattr(again, name), getattr(reference, name), err_msg=name)
    pd.testing.assert_frame_equal(again.drugs, reference.drugs, check_dtype=False, check_index_type=False)
    pd.testing.assert_frame_equal(again.lines, reference.lines, check_dtype=False, check_index_type=False)
    np.testing.assert_array_equal(again.shifts["dropseq"].values, reference.shifts["dropseq"].values)
    assert again.genes == reference.genes
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    with pytest.raises(FileExistsError, match="overwrite"):
        reference.save(tmp_path / "model")
    (tmp_path / "other").mkdir()
    with pytest.raises(FileExistsError):
        reference.save(tmp_path / "other", overwrite=True)


def test_eight_bits_are_enough_for_the_ranking(tmp_path) -> None:
    reference, _expression, _ = toy_reference()
    write_reference(vars(reference), tmp_path / "small", overwrite=False, compact=True)
    small = sdr.models.Reference.load(tmp_path / "small")
    Z = np.random.default_rng(0).normal(size=(50, len(reference.genes)))
    error = small.z(small.predict(Z)) - reference.z(reference.predict(Z))
    assert np.abs(error).max() < 0.05


def test_damaged_folders_are_refused(built, tmp_path) -> None:
    built.save(tmp_path / "model")
    meta = json.loads((tmp_path / "model" / META).read_text())
    for wrong, message in (
        ({"genes": meta["genes"][1:]}, "damaged or incomplete"),
        ({"format": 99}, "Update sc-drugresp"),
        ({"drugs": {}}, "damaged or incomplete"),
    ):
        (tmp_path / "model" / META).write_text(json.dumps(meta | wrong))
        with pytest.raises(ValueError, match=message):
            sdr.models.Reference.load(tmp_path / "model")
    (tmp_path / "model" / META).write_text(json.dumps(meta))
    (tmp_path / "model" / ARRAYS).write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="damaged"):
        sdr.models.Reference.load(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="reference_table"):
        sdr.models.Reference.load("nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, r: (e, r.drop(columns="value")), "'value'"),
        (lambda e, r: (e.iloc[:50], r), "share 50 lines"),
        (lambda e, r: (e.assign(TP53=np.nan), r), "holds nan for gene 'TP53'"),
        (lambda e, r: (e.assign(name="x"), r), "table of numbers"),
        (lambda e, r: (e, r[r["line"] < "LINEC"].iloc[:0]), "share 0 lines"),
    ],
)
def test_tables_of_another_layout_are_refused(change, message) -> None:
    expression, response, _ = toy_screen()
    expression, response = change(expression, response)
    with pytest.raises(ValueError, match=message):
        sdr.models.build_reference("own", expression=expression, response=response)


def test_agreement_with_a_second_screen() -> None:
    expression, response, _ = toy_screen()
    noise = np.random.default_rng(3).normal(0, 0.3, len(response))
    second = response.assign(value=response["value"] + noise, drug=response["drug"].str.upper())
    found = sdr.models.build_reference("own", expression=expression, response=response, second_screen=second)
    assert (found.drugs["screen_agreement"] > 0.8).all()


def test_default_reference_is_small_and_says_what_it_is() -> None:
    reference = sdr.models.Reference.load()
    row = sdr.models.reference_table().loc["default"]
    assert row["installed"]
    assert row["size_mb"] < 1
    assert 0.3 < row["median_r"] < 0.5
    assert "CC BY 4.0" in reference.info["licence"]
    assert "Seashore-Ludlow" in reference.info["citation"]
    assert set(reference.shifts) == {"dropseq"}
    assert reference.match("Tarceva") == "erlotinib"
    with pytest.raises(ValueError, match="Did you mean"):
        reference.match("erlotinip")


def test_table_lists_what_was_built(built, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sdr.settings, "cache_dir", tmp_path)
    assert not sdr.models.reference_table().loc["gdsc2", "installed"]
    built.save(tmp_path / "references" / "own")
    table = sdr.models.reference_table()
    assert table.loc["own", "installed"]
    assert table.loc["own", "drugs"] == 4
    assert sdr.models.Reference.load("own").name == "own"


def test_shift_of_other_genes_is_refused(built) -> None:
    other = sdr.models.PlatformShift("x", np.zeros(3), ())
    with pytest.raises(ValueError, match="has 3 genes"):
        built.with_shift(other)


def test_screen_by_name_is_read_from_a_folder_and_kept(built, monkeypatch, tmp_path) -> None:
    """The way of an offline cluster: published tables in a folder, then the reference by its name."""
    expression, response, _ = toy_screen()
    folder = tmp_path / "tables"
    folder.mkdir()
    response.rename(columns={"value": "auc"}).to_csv(folder / "ctrpv2.csv", index=False)
    expression.rename_axis("line").reset_index().to_csv(folder / "expression.csv", index=False)
    found = sdr.datasets.screen("ctrp2", folder=folder)
    reference = sdr.models.build_reference(found)
    assert set(reference.drugs.index) == set(built.drugs.index)
    assert reference.info["licence"] == found.licence
    np.testing.assert_allclose(reference.weights, built.weights, atol=1e-4)
    monkeypatch.setattr(sdr.settings, "cache_dir", tmp_path / "cache")
    monkeypatch.setattr("sc_drugresp.datasets._screens.screen", lambda name, *, accept_terms: found)
    named = sdr.models.build_reference("ctrp2", accept_terms=True)
    again = sdr.models.Reference.load("ctrp2")
    np.testing.assert_array_equal(again.weights, named.weights)
    sdr.models.build_reference("ctrp2", accept_terms=True, exclude_lines=["LINEAA"])
    assert "LINEAA" in sdr.models.Reference.load("ctrp2").lines.index  # one with lines left out is not kept
    assert sdr.models.reference_table().loc["ctrp2", "installed"]


def test_unknown_screen_needs_both_tables() -> None:
    expression, _, _ = toy_screen()
    with pytest.raises(ValueError, match="Pass both `expression` and `response`"):
        sdr.models.build_reference("gdsc3", expression=expression)
