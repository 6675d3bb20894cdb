"""Changed files of all eight checkpoints: what loads gives the recorded numbers, all else is refused and named.

`SC_DRUGRESP_FUZZ=1000 pytest tests/fuzz -m slow` changes each file that many times; without it, a minute's worth.
"""

from __future__ import annotations

import os
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from damage import Copy, mutate, publish
from helpers import GOLDEN_MODELS, golden

ROUNDS = min(int(os.environ.get("SC_DRUGRESP_FUZZ", "12")), 1_000)

pytestmark = pytest.mark.slow


@pytest.fixture(params=GOLDEN_MODELS)
def copy(request, tmp_path) -> Copy:
    return Copy(request.param, tmp_path)


def embed(copy: Copy, **options) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CellPLM asks for sets
        return copy.load(**options).embed(golden(copy.model).adata[:4], genes="exact")


def changed(copy: Copy, only: tuple[str, ...] = ()):
    """Change each file in turn, many times; HDF5 files are read by HDF5 alone."""
    for role, path in copy.files.items():
        if path.suffix == ".h5ad" or (only and path.suffix not in only):
            continue
        rng = np.random.default_rng(zlib.crc32(f"{copy.name}/{role}".encode()))
        content = path.read_bytes()
        for _ in range(ROUNDS):
            path.unlink()
            path.write_bytes(mutate(content, rng))
            yield path
        path.unlink()
        path.write_bytes(content)


def refusal(copy: Copy, error: Exception) -> None:
    assert str(copy.folder.parent) in str(error), repr(error)


def test_a_published_checkpoint_is_right_or_refused(copy, monkeypatch):
    publish(copy, monkeypatch)
    expected, loaded = embed(copy), 0
    for _ in changed(copy):
        try:
            found = embed(copy)
        except (ValueError, FileNotFoundError) as error:
            refusal(copy, error)
        else:
            loaded += 1
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(embed(copy), expected)


def test_torch_files_of_nobody_are_right_or_refused(copy):
    expected = embed(copy)
    for path in changed(copy, (".pth", ".pt", ".ckpt", ".bin", ".torch")):
        try:
            found = embed(copy)
        except (ValueError, FileNotFoundError) as error:
            refusal(copy, error)
        else:
            np.testing.assert_array_equal(found, expected, err_msg=str(path))


def test_unverified_files_load_or_are_refused(copy):
    for _ in changed(copy):
        try:
            copy.load(verify=False)
        except (ValueError, FileNotFoundError) as error:
            refusal(copy, error)
        else:
            with suppress(ValueError):  # numbers far out of range, names of other genes
                assert np.isfinite(embed(copy, verify=False)).any()
