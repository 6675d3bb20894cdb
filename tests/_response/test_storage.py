"""Saving a response model over an old one: the old or the new is there, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import sc_drugresp as sdr
from sc_drugresp._core import folders
from sc_drugresp.models import ResponseModel


@pytest.fixture(scope="module")
def model() -> ResponseModel:
    cells = sdr.datasets.toy(n_samples=6, cells_per_sample=15, n_genes=100, signal=2.0)
    return sdr.tl.train_response(cells, model="pca", group_key="sample", n_comps=5)


@pytest.fixture(params=["exchange", "two renames"])
def way(request, monkeypatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(folders, "exchange", lambda first, second: False)
    return request.param


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_a_model_takes_the_place_of_another_and_leaves_nothing(model, tmp_path, way):
    model.save(tmp_path / "m")
    (tmp_path / "m" / "encoder.safetensors").write_bytes(b"of a tuned model")
    model.save(tmp_path / "m", overwrite=True)
    assert names(tmp_path) == ["m"]
    assert not (tmp_path / "m" / "encoder.safetensors").exists()
    assert ResponseModel.load(tmp_path / "m").info == model.info


def test_files_of_others_stay(model, tmp_path, way):
    folder = tmp_path / "m"
    model.save(folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "figures" / "deep").mkdir(parents=True)
    (folder / "figures" / "deep" / "a.png").write_bytes(b"png")
    (folder / "link").symlink_to("notes.txt")
    (folder / "gone").symlink_to("nowhere")
    before = (folder / "notes.txt").stat()
    model.save(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "notes.txt").stat().st_mtime_ns == before.st_mtime_ns
    assert (folder / "figures" / "deep" / "a.png").read_bytes() == b"png"
    assert str((folder / "link").readlink()) == "notes.txt"
    assert str((folder / "gone").readlink()) == "nowhere"
    assert names(tmp_path) == ["m"]


def test_a_link_keeps_pointing_where_it_points(model, tmp_path, way):
    (tmp_path / "disk").mkdir()
    (tmp_path / "m").symlink_to(tmp_path / "disk" / "real")
    model.save(tmp_path / "m")
    model.save(tmp_path / "m", overwrite=True)
    assert (tmp_path / "m").is_symlink()
    assert ResponseModel.load(tmp_path / "m").info == model.info
    assert (names(tmp_path), names(tmp_path / "disk")) == (["disk", "m"], ["real"])


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_follow_the_umask(model, tmp_path, umask, way):
    before = os.umask(umask)
    try:
        for _ in range(2):
            model.save(tmp_path / "m", overwrite=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o777 & ~umask
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "m").iterdir()} == {0o666 & ~umask}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (float("nan"), r"info\['x'\] = nan"),
        ([1.0, np.float32("inf")], r"info\['x'\]\[1\] = inf"),
        ({"deep": {"er": np.array([np.nan])}}, r"info\['x'\]\['deep'\]\['er'\], an array"),
    ],
)
def test_nan_in_info_is_found_before_anything_is_written(model, tmp_path, value, where):
    model.save(tmp_path / "m")
    before = {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()}
    broken = ResponseModel(**{**vars(model), "info": {**model.info, "x": value}})
    with pytest.raises(ValueError, match=where):
        broken.save(tmp_path / "m", overwrite=True)
    with pytest.raises(ValueError, match=where):
        broken.save(tmp_path / "other")
    assert names(tmp_path) == ["m"]
    assert {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()} == before


@pytest.mark.parametrize("call", [0, 1, 2])
def test_a_full_disk_keeps_the_old_model(model, tmp_path, monkeypatch, call, way):
    import safetensors.numpy

    model.save(tmp_path / "m")
    calls = []
    original = safetensors.numpy.save_file

    def full(*args: object) -> None:
        calls.append(args)
        if len(calls) > call:
            raise OSError(28, "No space left on device")
        original(*args)

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(tmp_path / "m", overwrite=True)
    assert names(tmp_path) == ["m"]
    assert ResponseModel.load(tmp_path / "m").info == model.info


def test_a_process_that_died_between_two_renames_loses_nothing(model, tmp_path):
    model.save(tmp_path / "m")
    (tmp_path / "m").rename(tmp_path / ".m.sc_drugresp-old")
    (tmp_path / ".m.sc_drugresp-new").mkdir()
    assert ResponseModel.load(tmp_path / "m").info == model.info
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(tmp_path / "m")
    model.save(tmp_path / "m", overwrite=True)
    assert names(tmp_path) == ["m"]


def test_readers_never_see_half_of_each(model, tmp_path, way):
    models = [ResponseModel(**{**vars(model), "info": {**model.info, "which": i}}) for i in range(2)]
    models[0].save(tmp_path / "m")
    stop, errors, seen = threading.Event(), [], set()

    def read() -> None:
        try:
            while not stop.is_set():
                seen.add(ResponseModel.load(tmp_path / "m").info["which"])
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(30):
        models[i % 2].save(tmp_path / "m", overwrite=True)
    stop.set()
    reader.join()
    assert errors == []
    assert seen == {0, 1}


KILLS = """
import json, os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import sc_drugresp as sdr
from sc_drugresp._core import folders
from kills import kill_often
if RENAMES:
    folders.exchange = lambda first, second: False
path = Path(sys.argv[1]) / "m"
cells = sdr.datasets.toy(n_samples=6, cells_per_sample=15, n_genes=100, signal=2.0)
model = sdr.tl.train_response(cells, model="pca", group_key="sample", n_comps=5)
models = [sdr.models.ResponseModel(**{**vars(model), "info": {**model.info, "which": i}}) for i in range(2)]
models[0].save(path)
(path / "notes.txt").write_text("mine")
count = [0]
def action(i):
    count[0] += 1
    models[count[0] % 2].save(path, overwrite=True)
def check(i):
    found = sdr.models.ResponseModel.load(path)
    assert found.info["which"] in (0, 1)
    assert (folders.standing(path) / "notes.txt").read_text() == "mine"
    if i % 2:
        models[i % 2].save(path, overwrite=True)
        assert os.listdir(path.parent) == ["m"], os.listdir(path.parent)
kill_often(action, check, n=NUMBER, longest=0.05)
models[1].save(path, overwrite=True)
assert os.listdir(path.parent) == ["m"], os.listdir(path.parent)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("renames", [False, True])
@pytest.mark.parametrize("n", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_leave_the_old_or_the_new_model(tmp_path, n, renames):
    code = KILLS.replace("NUMBER", str(n)).replace("RENAMES", str(renames))
    arguments = [str(tmp_path), str(Path(__file__).parents[1])]
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *arguments], capture_output=True, text=True)
    assert run.stdout.strip().endswith(f"killed {n} times"), run.stderr
    assert json.loads((tmp_path / "m" / "model.json").read_text())["info"]["which"] == 1


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("adapter_config.json", b""),
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"\xff\xfe"),
        ("adapter_model.safetensors", b""),
        ("adapter_model.safetensors", b"\xff" * 100),
        ("encoder.safetensors", b"\x08" + bytes(7) + b"not json"),
    ],
)
def test_a_damaged_adapter_is_one_clear_error(model, tmp_path, name, body):
    import torch

    adapter = {"config": {"r": 2}, "tensors": {"a.lora_A.weight": torch.zeros(2, 3)}}
    tuned = ResponseModel(**{**vars(model), "adapter": adapter, "weights": {"a": torch.zeros(2)}})
    tuned.save(tmp_path / "m")
    assert ResponseModel.load(tmp_path / "m").adapter["config"] == {"r": 2}
    (tmp_path / "m" / name).write_bytes(body)
    with pytest.raises(ValueError, match="damaged or incomplete"):
        ResponseModel.load(tmp_path / "m")
