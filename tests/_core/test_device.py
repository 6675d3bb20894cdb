"""One place decides where networks run, and says so if it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sc_drugresp as sdr
from sc_drugresp._core import device
from sc_drugresp._core.device import resolve_device


def test_auto_takes_what_there_is():
    with sdr.settings.override(device="auto"):
        assert resolve_device().type in {"cuda", "mps"} or not torch.cuda.is_available()
    with sdr.settings.override(device="cpu"):
        assert resolve_device() == torch.device("cpu")


def pretend(monkeypatch, n_cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
    monkeypatch.setattr(device, "_probe", lambda _: None)


@pytest.mark.parametrize(("n_cuda", "wanted"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2"), (2, "xpu")])
def test_a_device_that_is_not_there(monkeypatch, n_cuda, wanted):
    pretend(monkeypatch, n_cuda)
    with sdr.settings.override(device=wanted), pytest.raises(RuntimeError, match="Available devices: 'cpu'") as error:
        resolve_device()
    assert repr(wanted) in str(error.value)
    assert ("'cuda:1'" in str(error.value)) == (n_cuda == 2)


def test_a_device_that_is_there(monkeypatch):
    pretend(monkeypatch, 2)
    for name in ("cuda", "cuda:1"):
        with sdr.settings.override(device=name):
            assert resolve_device() == torch.device(name)
    with sdr.settings.override(device="auto"):
        assert resolve_device() == torch.device("cuda")


def test_the_choice_is_always_logged(monkeypatch, caplog):
    with sdr.settings.override(verbosity=2):
        for name in ("auto", "cpu"):
            with sdr.settings.override(device=name):
                resolve_device()
        pretend(monkeypatch, 1)
        with sdr.settings.override(device="auto"):
            resolve_device()
    assert [record.message for record in caplog.records] == [
        "networks run on 'cpu', chosen by settings.device='auto' from cpu",
        "networks run on 'cpu', as settings.device says",
        "networks run on 'cuda', chosen by settings.device='auto' from cpu, cuda:0",
    ]


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_device_that_cannot_compute_is_an_error(monkeypatch, name):
    """There is no silent way back to the CPU: it would take hours instead of minutes."""
    probe = device._probe
    pretend(monkeypatch, 1)
    monkeypatch.setattr(device, "_probe", probe)
    with (
        sdr.settings.override(device=name),
        pytest.raises(RuntimeError, match=r"'cuda' is there, but cannot compute .*settings\.device = 'cpu'"),
    ):
        resolve_device()


def test_where_it_was_computed_stays_in_the_object():
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=10)
    sdr.tl.embed(adata, "pca", n_comps=3)
    assert adata.uns["sdr_pca"]["device"] == "cpu"


def test_nobody_else_reads_the_setting():
    source = Path(sdr.__file__).parent
    readers = [path.name for path in source.rglob("*.py") if "settings.device" in path.read_text(encoding="utf-8")]
    assert readers == ["device.py"]


@pytest.mark.parametrize("value", ["cuda:x", "gpu", "cpu:", "tpu"])
def test_settings_refuse_what_is_no_device(value):
    with pytest.raises(ValueError, match=r"settings\.device must be"):
        sdr.settings.device = value
