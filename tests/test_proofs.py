"""A checkout alone proves parity: the recordings are in it, small, and few tests are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import GOLDEN_MODELS

import sc_drugresp as sdr
from sc_drugresp.models._registry import find

HERE = Path(__file__).parent
OURS = HERE / "golden"


def test_every_model_has_recordings():
    ours = [name for name in sdr.models.available("encoder") if find(name)[0].target.startswith(".")]
    ours = [name for name in ours if find(name)[0].extra != "llm"]  # those are compared with transformers itself
    assert ours
    assert set(ours) <= set(GOLDEN_MODELS)
    for name in ours:
        for file in ("weights", "input.h5ad", "expected.npz", "manifest_full.json"):
            assert (OURS / name / file).exists(), (name, file)


def test_recordings_are_small():
    sizes = {path: path.stat().st_size for path in OURS.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 15_000_000
    assert max(sizes.values()) < 1_000_000


@pytest.mark.parametrize(("n_skipped", "mark", "code"), [(20, "", 0), (21, "", 1), (21, "@pytest.mark.gpu\n", 0)])
def test_a_run_that_skips_too_much_fails(tmp_path, n_skipped, mark, code):
    test = f"{mark}@pytest.mark.parametrize('i', range({n_skipped}))\ndef test_skip(i):\n    pytest.skip('lacks a thing')\n"
    (tmp_path / "test_some.py").write_text(f"import pytest\n\ndef test_pass():\n    pass\n\n{test}")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs a GPU\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "skips", "-p", "no:randomly", str(tmp_path)]
    run = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(HERE)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == code, run.stdout + run.stderr
    counted = 0 if mark else n_skipped
    assert f"{counted} tests skipped (at most 20)" in run.stdout
    assert (f"{n_skipped:4} lacks a thing" in run.stdout) == (not mark)
