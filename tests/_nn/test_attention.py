"""Attention against torch's own module, and its short cut for the first position."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sc_drugresp._nn import PostNormLayer, SelfAttention


def filled(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4
    return module.double().eval()


@pytest.fixture
def x():
    return torch.randn(3, 30, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


MASKS = {
    "none": None,
    "padding": torch.arange(30) < torch.tensor([30, 17, 1])[:, None],
    "bias": torch.where(torch.arange(30) < torch.tensor([30, 17, 1])[:, None], 0.0, 1.0).double(),
}


@pytest.mark.parametrize("mask", MASKS)
def test_attention_equals_torch(x, mask):
    ours, keep = filled(SelfAttention(12, 3)), MASKS[mask]
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
    theirs.in_proj_weight.data = torch.cat([ours.q.weight, ours.k.weight, ours.v.weight])
    theirs.in_proj_bias.data = torch.cat([ours.q.bias, ours.k.bias, ours.v.bias])
    theirs.out_proj.load_state_dict(ours.o.state_dict())
    ignored = None if keep is None else ~keep if keep.dtype == torch.bool else keep
    expected = theirs(x, x, x, key_padding_mask=ignored, need_weights=False)[0]
    assert torch.allclose(ours(x, keep), expected, atol=1e-10)


@pytest.mark.parametrize("mask", MASKS)
def test_the_first_position_alone(x, mask):
    layer, keep = filled(PostNormLayer(12, 3, 7)), MASKS[mask]
    expected = layer(x, keep)[:, :1]
    with torch.inference_mode():
        assert layer.attn._pays(x)
        short = layer(x, keep, queries=1)
    with_gradient = layer(x, keep, queries=1)
    assert with_gradient.requires_grad
    assert torch.allclose(short, expected, atol=1e-10)
    assert torch.allclose(with_gradient, expected, atol=1e-10)


def test_the_short_cut_calls_every_linear_layer(x):
    attention = filled(SelfAttention(12, 3))
    called = []
    for name in "qkvo":
        getattr(attention, name).register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.inference_mode():
        attention(x, queries=1)
    assert sorted(called) == ["k", "o", "q", "v"]
