"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch load: xdist workers must not fight for cores

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The read-only folder beside the checkout: specifications, golden files, real data."""
    if not SHARED.is_dir():
        pytest.skip("the folder '../shared' with golden files and real data is not on this machine")
    return SHARED


@pytest.fixture(autouse=True)
def _isolated_settings(tmp_path: Path):
    """No test reads the user's cache, uses the network or leaves a changed setting behind."""
    import sc_drugresp as sdr

    with sdr.settings.override(cache_dir=tmp_path / "cache", data_dir=None, offline=True, progress=False, device="cpu"):
        yield
