"""Speed-ups and precisions: the same numbers as the original software, whatever computes them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from engines import NETWORKS, embedded, plain_embedding, some
from helpers import GOLDEN_MODELS, close, golden, load, relative

import sc_drugresp as sdr
from sc_drugresp._core.settings import SPEEDUPS
from sc_drugresp._nn import attention
from sc_drugresp.models._engines import running


@pytest.fixture
def plain():
    return plain_embedding


@pytest.mark.parametrize("model", some(GOLDEN_MODELS))
@pytest.mark.parametrize("speedups", ["all", *SPEEDUPS])
def test_speedups_do_not_change_a_cell(plain, model, speedups):
    with sdr.settings.override(speedups=speedups):
        close(embedded(model), plain(model))


@pytest.mark.parametrize("model", some(NETWORKS))
def test_attention_in_chunks_does_not_change_a_cell(plain, model, monkeypatch):
    used = []
    monkeypatch.setattr(attention, "chunks_pay", lambda q, k: not used.append(1))
    close(embedded(model), plain(model))
    assert used


@pytest.mark.parametrize("model", some(GOLDEN_MODELS))
def test_bfloat16_is_near_and_leaves_the_weights_alone(plain, model):
    encoder, record = load(model), golden(model)
    groups = None if not encoder.set_based else np.arange(record.adata.n_obs) % 3
    before = {name: (x.data_ptr(), x.clone()) for name, x in encoder.state_dict().items()}
    found = encoder.embed(record.adata, genes="exact", groups=groups, precision="bfloat16")
    assert found.dtype == np.float32
    assert 1e-4 < relative(found, plain(model)) < 5e-2
    for name, x in encoder.state_dict().items():
        assert x.data_ptr() == before[name][0]
        assert torch.equal(x, before[name][1])
    close(encoder.embed(record.adata, genes="exact", groups=groups), plain(model))


def test_an_error_ends_the_precision():
    encoder = load("scgpt")
    with pytest.raises(ValueError, match="bfloat16"), running(encoder, "torch", "bfloat16"):
        raise ValueError(encoder.layers[0].up.weight.dtype)
    assert encoder.layers[0].up.weight.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("model", ["pca", "cellplm", "scbert", "celllm"])
def test_models_that_cannot_be_converted_are_refused_before_files_are_looked_for(model):
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=5)
    with pytest.raises(ValueError, match=r"cannot be converted.*'geneformer'.*'scgpt'"):
        sdr.tl.embed(adata, model, engine="openvino")
    assert not adata.obsm


def test_a_precision_is_for_networks():
    with pytest.raises(ValueError, match="precision='bfloat16' is for pretrained networks"):
        sdr.tl.embed(sdr.datasets.toy(n_samples=2, cells_per_sample=5), "pca", precision="bfloat16")


def test_the_engine_needs_the_cpu():
    with sdr.settings.override(device="cuda"), pytest.raises(ValueError, match=r"the device in the settings is 'cuda'"):
        sdr.tl.Recipe("scgpt", engine="openvino")


def test_without_openvino_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"pip install 'sc-drugresp\[fast\]'"):
        sdr.tl.embed(golden("scgpt").adata, "scgpt", checkpoint=golden("scgpt").weights, engine="openvino")
