"""Saved students: whole or not at all, and refused by name when something in them has changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sc_drugresp as sdr
from sc_drugresp._core.seal import SEAL, sealed
from sc_drugresp.models._student_files import META, WEIGHTS
from sc_drugresp.models._student_network import StudentNetwork

GENES = [f"GENE{i}" for i in range(40)]


@pytest.fixture
def student() -> sdr.models.Student:
    network = StudentNetwork.empty(len(GENES) + 1, 8, 5)
    network.draw(3)
    network.scale.fill_(1.0)
    network.target_scale.fill_(1.0)
    network.target_mean.fill_(0.0)
    network.mean.fill_(0.0)
    teacher = {"name": "scgpt.whole-human", "sha256": "ab", "source": "local", "options": {}}
    teacher |= {"license": "L", "commercial": "not stated", "publisher": "P"}
    row = {"cosine": 0.9, "cosine_p05": 0.7, "neighbors_kept": 0.5, "auroc": float("nan")}
    fidelity = {"rows": {"student": row}, "verdict": "OK", "n_samples": 3}
    return sdr.models.Student(GENES, "symbol", network.arrays(), teacher, fidelity, {"n_cells": 7}, {"rng": 0})


@pytest.fixture
def cells():
    adata = sdr.datasets.toy(2, 10, 40)
    adata.var_names = GENES
    return adata


def test_a_saved_student_is_the_same(student, cells, tmp_path):
    student.save(tmp_path / "s")
    read = sdr.models.load("student", checkpoint=tmp_path / "s")
    np.testing.assert_array_equal(read.embed(cells), student.embed(cells))
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [META, WEIGHTS]
    assert (read.teacher, read.data, read.genes, read.name) == (
        student.teacher,
        student.data,
        GENES,
        "student(scgpt.whole-human)",
    )
    assert read.checkpoint == student.checkpoint
    assert (
        read.checkpoint["sha256"] == json.loads((tmp_path / "s" / META).read_text())[SEAL]["files"][WEIGHTS]["sha256"]
    )
    assert np.isnan(read.fidelity_df().loc["student", "auroc"])


def test_nothing_is_overwritten_unasked(student, tmp_path):
    student.save(tmp_path / "s")
    (tmp_path / "s" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        student.save(tmp_path / "s")
    student.save(tmp_path / "s", overwrite=True)
    assert (tmp_path / "s" / "mine.txt").read_text() == "mine"
    (tmp_path / "other").mkdir()
    with pytest.raises(FileExistsError, match="Choose another path"):
        student.save(tmp_path / "other", overwrite=True)
    assert list((tmp_path / "other").iterdir()) == []


def test_a_failed_save_leaves_the_old_student(student, cells, tmp_path):
    student.save(tmp_path / "s")
    expected = student.embed(cells)
    student.training["what"] = object()
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        student.save(tmp_path / "s", overwrite=True)
    np.testing.assert_array_equal(sdr.models.load("student", checkpoint=tmp_path / "s").embed(cells), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_every_flipped_byte_of_the_weights_is_found(student, tmp_path):
    student.save(tmp_path / "s")
    path = tmp_path / "s" / WEIGHTS
    whole = path.read_bytes()
    for at in np.linspace(0, len(whole) - 1, 25).astype(int):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            sdr.models.load("student", checkpoint=tmp_path / "s")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        sdr.models.load("student", checkpoint=tmp_path / "s")


def resealed(folder, change) -> None:
    """Somebody who knows how the seal is made changes a student."""
    meta, arrays = json.loads((folder / META).read_text()), load_file(folder / WEIGHTS)
    meta.pop(SEAL)
    change(meta, arrays)
    (folder / META).unlink()
    save_file(arrays, folder / WEIGHTS)
    (folder / META).write_text(sealed(meta, folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda meta, _: meta["genes"].pop(), "has shape"),
        (lambda _, arrays: arrays.pop("leave.bias"), r"leave\.bias"),
        (lambda _, arrays: arrays.update(more=np.zeros(2, dtype=np.float32)), "'more'"),
        (lambda _, arrays: arrays["up.weight"].fill(np.nan), "NaN or infinite"),
        (lambda meta, _: meta["teacher"].pop("license"), "license"),
        (lambda meta, _: meta["fidelity"].pop("rows"), "rows"),
        (lambda meta, _: meta.update(teacher="scgpt"), "damaged"),
        (lambda meta, _: meta.update(format=2), "Update sc-drugresp"),
        (lambda meta, _: meta.update(format="1"), "`format`"),
    ],
)
def test_what_does_not_fit_is_refused_even_when_sealed(student, tmp_path, change, words):
    student.save(tmp_path / "s")
    resealed(tmp_path / "s", change)
    with pytest.raises(ValueError, match=words):
        sdr.models.load("student", checkpoint=tmp_path / "s")


def test_changed_terms_are_found(student, tmp_path):
    student.save(tmp_path / "s")
    path = tmp_path / "s" / META
    path.write_text(path.read_text().replace('"license": "L"', '"license": "MIT"'))
    with pytest.raises(ValueError, match="seal"):
        sdr.models.load("student", checkpoint=tmp_path / "s")


def test_other_folders_are_no_students(tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved student"):
        sdr.models.load("student", checkpoint=tmp_path)
    with pytest.raises(ValueError, match="`checkpoint` must name the folder"):
        sdr.models.load("student")
    with pytest.raises(TypeError, match="Unknown option 'width'"):
        sdr.models.load("student", checkpoint=tmp_path, width=3)
    with pytest.raises(ValueError, match="`checkpoint` must name the folder"):
        sdr.tl.Recipe("student")


def test_random_weights_are_another_network(student, cells):
    assert not np.allclose(student.redraw(1).embed(cells), student.embed(cells))
    np.testing.assert_array_equal(student.redraw(1).embed(cells), student.redraw(1).embed(cells))
