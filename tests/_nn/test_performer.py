"""FAVOR+ attention against its definition, written out in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sc_drugresp._nn import performer
from sc_drugresp._nn.performer import FavorAttention, PerformerLayer, favor_attention, streams

CELLS, LENGTH, DIM, HEADS, HEAD_DIM, FEATURES = 2, 37, 12, 3, 8, 21


@pytest.fixture
def layer() -> PerformerLayer:
    return _layer(torch.float32)


def _layer(dtype: torch.dtype, *, bias: bool = False, scale: float = 0.6) -> PerformerLayer:
    generator = torch.Generator().manual_seed(3)
    layer = PerformerLayer(DIM, HEADS, HEAD_DIM, FEATURES, 20, bias=bias).to(dtype)
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
        layer.attn.projection /= scale
    return layer.requires_grad_(False)


def _input(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(CELLS, LENGTH, DIM, generator=torch.Generator().manual_seed(4)).to(dtype)


def _defined(attn: FavorAttention, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
    """The formulas of the published code, cell by cell, head by head; padding as rows whose value is zero."""
    attn = _layer_copy(attn)
    out = []
    for i, cell in enumerate(x.double()):
        q, k, v = (getattr(attn, name)(cell).view(-1, HEADS, HEAD_DIM) for name in "qkv")
        if keep is not None:
            v = v * keep[i, :, None, None]
        u_q, u_k = (t @ attn.projection.T * HEAD_DIM**-0.25 for t in (q, k))
        g_q, g_k = (t.square().sum(-1, keepdim=True) / (2 * math.sqrt(HEAD_DIM)) for t in (q, k))
        f_q = FEATURES**-0.5 * (torch.exp(u_q - g_q - u_q.amax(-1, keepdim=True)) + 1e-4)
        f_k = FEATURES**-0.5 * (torch.exp(u_k - g_k - u_k.max()) + 1e-4)
        kernel = torch.einsum("ihf,jhf->hij", f_q, f_k)
        y = torch.einsum("hij,jhd->ihd", kernel / kernel.sum(-1, keepdim=True), v)
        out.append(attn.o(y.flatten(1)))
    return torch.stack(out)


def _layer_copy(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module).double()


def _whole(layer: PerformerLayer, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
    double = _layer_copy(layer)
    y = x.double() + _defined(layer.attn, double.attn_norm(x.double()), keep)
    return y + double.down(F.gelu(double.up(double.ffn_norm(y))))


@pytest.mark.parametrize("rows", [5, 512])
@pytest.mark.parametrize("scale", [0.6, 3.0])
def test_streaming_and_differentiable_layers_follow_the_definition(rows, scale, monkeypatch):
    layer, x = _layer(torch.float32, bias=True, scale=scale), _input()
    monkeypatch.setattr(performer, "_ROWS", rows)
    wanted = _whole(layer, x)
    assert streams(layer, x)
    got = layer(x)
    plain = layer(x.clone().requires_grad_())
    size = wanted.abs().max()
    assert (got - wanted).abs().max() / size < 5e-6
    assert (plain - wanted).abs().max() / size < 5e-6
    last = layer(x, queries=slice(LENGTH - 1, LENGTH))
    assert (last[:, 0] - wanted[:, -1]).abs().max() / size < 5e-6


@pytest.mark.parametrize("rows", [7, 512])
def test_one_weighted_row_of_padding_equals_many(layer, rows, monkeypatch):
    monkeypatch.setattr(performer, "_ROWS", rows)
    monkeypatch.setitem(performer._ELEMENTS, "cpu", rows * CELLS * HEADS * FEATURES)
    x, n_pad = _input(), torch.tensor([6, 0])
    real = torch.tensor([LENGTH - 1, LENGTH - 6])  # the second cell has filler rows but stands for no padding
    for i in range(CELLS):
        x[i, real[i] :] = x[0, -1]
    position = torch.arange(LENGTH)
    keep = position < real[:, None]
    weight = keep + (position == real[:, None]) * n_pad[:, None].float()
    got, plain = layer(x, weight, keep), layer(x.clone().requires_grad_(), weight, keep)
    for i in range(CELLS):
        n, pad = int(real[i]), int(n_pad[i])
        full = torch.cat([x[i, :n], x[i, -1:].expand(pad, -1)])[None]
        wanted = _whole(layer, full, torch.arange(n + pad)[None] < n)[0]
        rows_to_compare = n + (pad > 0)
        for out in (got, plain):
            assert (out[i, :rows_to_compare] - wanted[:rows_to_compare]).abs().max() / wanted.abs().max() < 5e-6


def test_the_stabilizer_of_keys_is_taken_per_cell(layer):
    x = _input()
    x[1] *= 3  # larger keys in the neighbor
    assert torch.equal(layer(x)[:1], layer(x[:1]))


@pytest.mark.parametrize("chunked", [False, True])
def test_gradients_are_those_of_the_function(chunked, monkeypatch):
    if chunked:  # recomputation in pieces
        monkeypatch.setitem(performer._ELEMENTS, "cpu", 1)
    length = 70
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, length, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    directions = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    weight = torch.ones(1, length, dtype=torch.float64)
    weight[0, -1], weight[0, -2] = 9.0, 0.0
    inputs = [t.requires_grad_() for t in (q, k, v)]
    function = lambda *t: favor_attention(*t, directions, weight)[:, :, ::23]  # noqa: E731
    assert torch.autograd.gradcheck(function, inputs, atol=1e-7, fast_mode=True)


def test_recomputing_in_pieces_changes_no_gradient(layer, monkeypatch):
    gradients = []
    for elements in (2**22, 1):
        monkeypatch.setitem(performer._ELEMENTS, "cpu", elements)
        x = torch.cat([_input()] * 4, dim=1).requires_grad_()  # 148 positions: three pieces of 64
        layer(x).square().sum().backward()
        gradients.append(x.grad)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-4 * float(gradients[0].abs().max()))


def test_extreme_keys_and_queries_stay_finite():
    layer = _layer(torch.float32, scale=40.0)
    x = _input() * 10
    assert torch.isfinite(layer(x)).all()
    assert torch.isfinite(layer(x.clone().requires_grad_())).all()


def test_half_precision_input_is_computed_in_single(layer):
    x = _input()
    wanted = layer.attn(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = layer.attn(x)
    assert (got.float() - wanted).abs().max() / wanted.abs().max() < 0.05
