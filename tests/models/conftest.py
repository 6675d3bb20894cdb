"""The recordings of the model that a test file names in `MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from helpers import Golden
from helpers import golden as recordings


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Golden:
    return recordings(request.module.MODEL)


@pytest.fixture
def folder(record: Golden) -> Path:
    """Where the recordings lie; nothing in it is changed."""
    return record.folder


@pytest.fixture
def golden(record: Golden) -> dict[str, np.ndarray]:
    """What the original software gave, by name."""
    return record.expected


@pytest.fixture
def adata(record: Golden) -> ad.AnnData:
    return record.adata


@pytest.fixture
def manifest(record: Golden) -> dict[str, Any]:
    """The tensors of the published checkpoints at full size."""
    return record.manifest


@pytest.fixture
def copy(record: Golden, tmp_path: Path) -> Path:
    """A folder of weights that a test may damage."""
    return record.copy(tmp_path)
