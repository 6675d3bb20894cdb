"""One place decides where networks run, and says so if it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sc_drugresp as sdr
from sc_drugresp._core.device import resolve_device


def test_auto_takes_what_there_is():
    with sdr.settings.override(device="auto"):
        assert resolve_device().type in {"cuda", "mps"} or not torch.cuda.is_available()
    with sdr.settings.override(device="cpu"):
        assert resolve_device() == torch.device("cpu")


def pretend(monkeypatch, n_cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)


@pytest.mark.parametrize(("n_cuda", "device"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2"), (2, "xpu")])
def test_a_device_that_is_not_there(monkeypatch, n_cuda, device):
    pretend(monkeypatch, n_cuda)
    with sdr.settings.override(device=device), pytest.raises(RuntimeError, match="Available devices: 'cpu'") as error:
        resolve_device()
    assert repr(device) in str(error.value)
    assert ("'cuda:1'" in str(error.value)) == (n_cuda == 2)


def test_a_device_that_is_there(monkeypatch):
    pretend(monkeypatch, 2)
    for device in ("cuda", "cuda:1"):
        with sdr.settings.override(device=device):
            assert resolve_device() == torch.device(device)
    with sdr.settings.override(device="auto"):
        assert resolve_device() == torch.device("cuda")


def test_nobody_else_reads_the_setting():
    source = Path(sdr.__file__).parent
    readers = [path.name for path in source.rglob("*.py") if "settings.device" in path.read_text(encoding="utf-8")]
    assert readers == ["device.py"]


@pytest.mark.parametrize("value", ["cuda:x", "gpu", "cpu:", "tpu"])
def test_settings_refuse_what_is_no_device(value):
    with pytest.raises(ValueError, match=r"settings\.device must be"):
        sdr.settings.device = value
