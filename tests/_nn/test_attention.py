"""Attention against torch's own module, and its short cut for the first position."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import sc_drugresp as sdr
from sc_drugresp._nn import PostNormLayer, SelfAttention, attention, chunks


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


@pytest.fixture
def in_chunks(monkeypatch):
    """Chunks wherever they are possible, and few scores at a time."""
    monkeypatch.setattr(attention, "chunks_pay", lambda q, k: not torch.is_grad_enabled())
    monkeypatch.setattr(chunks, "_FEWEST", 7)
    monkeypatch.setattr(chunks, "_SCORES", 1)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("queries", [None, 5])
def test_chunks_give_the_same_numbers(x, in_chunks, mask, queries):
    layer, keep = filled(SelfAttention(12, 3)), MASKS[mask]
    expected = layer(x, keep, queries=queries)
    with torch.inference_mode():
        found = layer(x, keep, queries=queries)
    assert not found.requires_grad
    assert torch.allclose(found, expected, atol=1e-10)


def test_causal_chunks_give_the_same_numbers(x, in_chunks):
    layer = filled(SelfAttention(12, 3, causal=True))
    expected = layer(x)
    with torch.inference_mode():
        found = layer(x)
    assert torch.allclose(found, expected, atol=1e-10)
    assert torch.allclose(expected[:, :9], layer(x[:, :9]), atol=1e-10)


def test_chunks_hold_few_scores_at_a_time():
    q, k, v = torch.randn(3, 1, 4, 9_000, 8).unbind()
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **kwargs or {})
            largest = max(largest, out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    with torch.inference_mode(), Watch():
        chunks.attend_in_chunks(q, k, v)
    assert largest <= chunks._SCORES


def test_chunks_are_taken_where_large_products_are_much_faster(monkeypatch):
    q = torch.zeros(1, 2, 100, 8)
    monkeypatch.setattr(chunks, "are_fast", lambda: True)
    with torch.inference_mode():
        for ratio, expected in ((1.1, False), (2.3, True)):
            monkeypatch.setattr(chunks, "advantage", lambda dtype, threads, ratio=ratio: ratio)
            assert chunks.chunks_pay(q, q) is expected
        with sdr.settings.override(speedups=["onednn"]):
            assert not chunks.chunks_pay(q, q)
        monkeypatch.setattr(chunks, "are_fast", lambda: False)
        assert not chunks.chunks_pay(q, q)
        assert chunks.chunks_pay(q.bfloat16(), q.bfloat16())
    monkeypatch.setattr(chunks, "are_fast", lambda: True)
    assert not chunks.chunks_pay(q, q)  # gradients need fused attention, which keeps less
