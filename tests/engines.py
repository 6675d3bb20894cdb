"""What the tests of engines share."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from helpers import GOLDEN_MODELS, golden, load

import sc_drugresp as sdr
from sc_drugresp.models._load import model_class
from sc_drugresp.models._registry import find

NETWORKS = [model for model in GOLDEN_MODELS if "openvino" in model_class(find(model)[0]).engines]
FEW = ["scgpt", "uce"]


def some(names: list[str]) -> list:
    """A few models in the default suite, all in the slow one."""
    return [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in names]


def embedded(model: str, **how) -> np.ndarray:
    """The recorded cells by the recorded checkpoint."""
    record, encoder = golden(model), load(model)
    groups = np.arange(record.adata.n_obs) % 3 if encoder.set_based else None
    return encoder.embed(record.adata, genes="exact", groups=groups, **how)


@cache
def plain_embedding(model: str) -> np.ndarray:
    """The same without any speed-up; the tests of each model compare it with the original software."""
    with sdr.settings.override(speedups="none"):
        return embedded(model)
