"""Kernels work where nothing can be written."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("where", ["nowhere", "a file in place of the folder"])
def test_kernels_compile_without_a_place_for_their_code(where, tmp_path):
    """A read-only installation without a home folder; and a folder that is none."""
    code = (
        "import numba.core.caching as caching\n"
        + ("caching.CacheImpl._locator_classes = []\n" if where == "nowhere" else "")
        + "import numpy as np\n"
        "from sc_drugresp._data.kernels import mix64\n"
        "assert mix64(np.uint64(1)) == mix64.py_func(np.uint64(1))\n"
    )
    (tmp_path / "file").write_text("")
    environment = os.environ | ({} if where == "nowhere" else {"NUMBA_CACHE_DIR": str(tmp_path / "file" / "x")})
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr


def test_code_is_kept_where_it_can_be(tmp_path):
    code = "import numpy as np\nfrom sc_drugresp._data.kernels import mix64\nmix64(np.uint64(1))\n"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)
    assert list(tmp_path.rglob("kernels.mix64*.nbi"))
