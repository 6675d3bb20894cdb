"""FAVOR+ attention of the Performer :cite:p:`Choromanski2021`: softmax attention whose cost is linear in the length.

Queries and keys become positive random features, `exp(u - |x|^2 / 2)` with `u` the projection of `x` on fixed random
directions, so that the sum over keys is done once for all queries. The published code subtracts a stabilizer inside
the exponential (the largest `u`: of the row for queries, of all keys for keys) and then adds 1e-4 to every feature.
That constant makes the stabilizer part of the model. Here the one of the keys is always taken *per cell*, which is
what the published code computes for one cell at a time, so a cell does not depend on its neighbors.

Features are kept to base 2 (the factor is folded into the directions) because `exp2` is several times cheaper.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

EPSILON = 1e-4
_LOG2_E = 1 / math.log(2)
_ROWS = 768  # positions at a time without gradient on a CPU: the features of one head stay in its second-level cache
_ELEMENTS = {"cpu": 2**22, "cuda": 2**27}  # features at a time elsewhere


class KeySums(NamedTuple):
    """What the queries of a cell need to know about its keys, and a work buffer."""

    sums: Tensor  # (heads, features, head_dim)
    norms: Tensor  # (heads, features)
    floor: Tensor  # what the 1e-4 of the query features adds to the numerator, (heads, head_dim)
    norm_floor: Tensor  # and to the denominator, (heads,)
    directions: Tensor
    buffer: Tensor


class FavorAttention(nn.Module):
    """Multi-head linear attention with plain `q`, `k`, `v`, `o` layers and fixed random directions.

    Parameters
    ----------
    dim
        Width of input and output.
    heads, head_dim
        Number of heads, and channels of each; their product need not be `dim`.
    features
        Number of random directions, shared by the heads.
    bias
        Whether `q`, `k` and `v` have a bias.
    """

    projection: Tensor

    def __init__(self, dim: int, heads: int, head_dim: int, features: int, *, bias: bool = False) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.q, self.k, self.v = (nn.Linear(dim, heads * head_dim, bias=bias) for _ in range(3))
        self.o = nn.Linear(heads * head_dim, dim)
        self.register_buffer("projection", torch.empty(features, head_dim))

    def forward(
        self, x: Tensor, weight: Tensor | None = None, keep: Tensor | None = None, queries: slice | None = None
    ) -> Tensor:
        """Attend from the positions `queries` (all by default) to all positions; differentiable.

        Parameters
        ----------
        x
            Input of shape `(cells, length, dim)`.
        weight
            How many keys a position stands for, shape `(cells, length)`; 0 hides it.
        keep
            Positions that have a value, shape `(cells, length)`; the others only count in the denominator.
        queries
            Positions to compute.
        """
        source = x if queries is None else x[:, queries]
        q, k, v = self._split(self.q(source)), self._split(self.k(x)), self._split(self.v(x))
        if keep is not None:
            v = v * keep[:, None, :, None]
        with torch.autocast(x.device.type, enabled=False):  # the exponential and 1e-4 need single precision
            y = favor_attention(q, k, v, self._directions(q), weight)
        return self.o(y.transpose(1, 2).flatten(2).to(x.dtype))

    def summarize(
        self, x: Tensor, norm: nn.Module, weight: Tensor | None = None, keep: Tensor | None = None
    ) -> KeySums:
        """Sums over the keys of one cell, `x` of shape `(length, dim)`: one pass, a few positions at a time.

        The largest `u` so far rescales the sums when it grows, as in streaming softmax, so the result is exact.
        """
        if weight is not None and bool((weight == 0).any()):
            seen = weight > 0
            x, weight, keep = x[seen], weight[seen], None if keep is None else keep[seen]
        directions, d = self._padded_directions(), self.head_dim
        features = len(self.projection)
        sums, norms = directions.new_zeros(self.heads, features, d), directions.new_zeros(self.heads, features)
        values, peaks = directions.new_zeros(self.heads * d), [-math.inf] * self.heads
        buffer = directions.new_empty(_ROWS, directions.shape[1])
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            a = norm(x[rows])
            k, v = self.k(a).to(directions.dtype), self.v(a).to(directions.dtype)
            if keep is not None:
                v = v * keep[rows, None]
            values += v.sum(0)
            shift = _half_square(k.unflatten(-1, (self.heads, d))).squeeze(-1)  # (positions, heads)
            if weight is not None:
                shift = shift - weight[rows, None].log2()
            for head in range(self.heads):
                channels = slice(head * d, (head + 1) * d)
                padded = torch.mm(k[:, channels], directions, out=buffer[: len(k)])
                u = padded[:, :features]
                peak = u.amax().item()
                if peak > peaks[head]:
                    sums[head] *= 2.0 ** (peaks[head] - peak)
                    norms[head] *= 2.0 ** (peaks[head] - peak)
                    peaks[head] = peak
                padded.sub_(shift[:, head, None] + peaks[head]).exp2_()
                torch.addmm(sums[head], u.T, v[:, channels], out=sums[head])
                norms[head] += u.sum(0)
        scale = torch.exp2(directions.new_tensor(peaks) - max(peaks))
        total = float(len(x)) if weight is None else weight.sum()
        sums = sums * scale[:, None, None] + EPSILON * values.view(self.heads, 1, d)
        norms = norms * scale[:, None] + EPSILON * total
        return KeySums(sums, norms, EPSILON * sums.sum(1), EPSILON * norms.sum(1), directions, buffer)

    def read(self, a: Tensor, keys: KeySums) -> Tensor:
        """Answer the queries of some positions, `a` of shape `(positions, dim)`, from the sums over the keys."""
        d, features = self.head_dim, len(self.projection)
        q = self.q(a).to(keys.directions.dtype)
        shift = _half_square(q.unflatten(-1, (self.heads, d)))  # (positions, heads, 1)
        y, total = q.new_empty(q.shape), q.new_empty(self.heads, len(q))
        for head in range(self.heads):
            channels = slice(head * d, (head + 1) * d)
            padded = torch.mm(q[:, channels], keys.directions, out=keys.buffer[: len(q)])
            u = padded[:, :features]
            padded.sub_(u.amax(-1, keepdim=True).add_(shift[:, head])).exp2_()
            torch.mm(u, keys.sums[head], out=y[:, channels])
            torch.mv(u, keys.norms[head], out=total[head])
        y, total = y.unflatten(-1, (self.heads, d)).add_(keys.floor), total.T[..., None] + keys.norm_floor[:, None]
        return self.o(y.div_(total).flatten(1).to(a.dtype))

    def _padded_directions(self) -> Tensor:
        """The directions with columns of zeros up to a multiple of 16, so that rows of features start at cache lines."""
        directions = self._directions(self.projection)
        return F.pad(directions, (0, -directions.shape[1] % 16)).contiguous()

    def _directions(self, like: Tensor) -> Tensor:
        """Directions as columns, with the temperature of the softmax and the base of the exponential folded in."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        return self.projection.to(dtype).T * (self.head_dim**-0.25 * _LOG2_E)

    def _split(self, x: Tensor) -> Tensor:
        x = x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        return x.to(torch.promote_types(x.dtype, torch.float32))


class PerformerLayer(nn.Module):
    """Attention and feed-forward (GELU), each behind a LayerNorm and added to its input.

    Without gradient on a CPU the layer walks over the positions in pieces that stay in the cache.
    """

    def __init__(
        self, dim: int, heads: int, head_dim: int, features: int, ffn_dim: int, *, bias: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(dim, eps=eps)
        self.attn = FavorAttention(dim, heads, head_dim, features, bias=bias)
        self.ffn_norm = nn.LayerNorm(dim, eps=eps)
        self.up, self.down = nn.Linear(dim, ffn_dim), nn.Linear(ffn_dim, dim)

    def forward(
        self, x: Tensor, weight: Tensor | None = None, keep: Tensor | None = None, queries: slice | None = None
    ) -> Tensor:
        """Parameters as in :meth:`FavorAttention.forward`."""
        if streams(self, x):
            rows = [
                self._stream(cell, None if weight is None else weight[i], None if keep is None else keep[i], queries)
                for i, cell in enumerate(x)
            ]
            return rows[0][None] if len(rows) == 1 else torch.stack(rows)
        x = (x if queries is None else x[:, queries]) + self.attn(self.attn_norm(x), weight, keep, queries)
        return x + self._feed_forward(x)

    def _stream(self, x: Tensor, weight: Tensor | None, keep: Tensor | None, queries: slice | None) -> Tensor:
        """One cell, `x` of shape `(length, dim)`."""
        keys = self.attn.summarize(x, self.attn_norm, weight, keep)
        source = x if queries is None else x[queries]
        out = torch.empty_like(source)
        for start in range(0, len(source), _ROWS):
            rows = slice(start, start + _ROWS)
            y = source[rows] + self.attn.read(self.attn_norm(source[rows]), keys)
            torch.add(y, self._feed_forward(y), out=out[rows])
        return out

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.ffn_norm(x))))


def streams(module: nn.Module, x: Tensor) -> bool:
    """Whether `module` may work on `x` piece by piece: on a CPU, where no gradient is recorded."""
    recording = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in module.parameters()))
    return x.device.type == "cpu" and not recording


def favor_attention(q: Tensor, k: Tensor, v: Tensor, directions: Tensor, weight: Tensor | None = None) -> Tensor:
    """Linear attention of queries, keys and values of shape `(cells, heads, positions, channels)`; differentiable.

    Parameters
    ----------
    q, k, v
        Projected input.
    directions
        Scaled random directions to base 2, shape `(channels, features)`.
    weight
        How many keys a position stands for, shape `(cells, positions)`.

    Returns
    -------
    Array of the shape of `q`. Features exist for some positions at a time only, and are recomputed in the backward
    pass, so memory grows with the width of the network rather than with the number of features.
    """
    cells, heads, length, _ = k.shape
    budget = _ELEMENTS.get(q.device.type, _ELEMENTS["cuda"])
    size = max(64, budget // (cells * heads * directions.shape[1]))
    log_weight = None if weight is None else weight.to(k.dtype).log2()
    recompute = torch.is_grad_enabled() and max(length, q.shape[2]) > size

    def apply(function: Any, *inputs: Any) -> Any:
        if recompute:
            return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
        return function(*inputs)

    def pieces(x: Tensor | None, axis: int) -> Any:
        return [None] * math.ceil(length / size) if x is None else x.split(size, dim=axis)

    peak = _key_peak(k, directions, weight, size)
    parts = [
        apply(_key_sums, k_part, v_part, directions, peak, log_part)
        for k_part, v_part, log_part in zip(pieces(k, 2), pieces(v, 2), pieces(log_weight, 1))
    ]
    total = float(length) if weight is None else weight.to(k.dtype).sum(1)[:, None, None]
    sums = sum(part[0] for part in parts) + EPSILON * v.sum(2)[:, :, None]
    norms = sum(part[1] for part in parts) + EPSILON * total
    return torch.cat([apply(_answer, part, directions, sums, norms) for part in q.split(size, dim=2)], dim=2)


def _half_square(x: Tensor) -> Tensor:
    """Half the squared length of each row at the temperature of the softmax, to base 2."""
    return x.square().sum(-1, keepdim=True) * (0.5 * _LOG2_E * x.shape[-1] ** -0.5)


def _key_peak(k: Tensor, directions: Tensor, weight: Tensor | None, size: int) -> Tensor:
    """Largest `u` of each cell over heads, positions and directions, shape `(cells,)`.

    The search records no gradient; the value is computed again from the key and the direction where it was found.
    """
    with torch.no_grad():
        tops, places = [], []
        for start in range(0, k.shape[2], size):
            u = (k[:, :, start : start + size] @ directions).amax(-1)  # (cells, heads, positions)
            if weight is not None:
                u = u.masked_fill(weight[:, None, start : start + size] == 0, -math.inf)
            top, place = u.flatten(1).max(1)
            tops.append(top)
            places.append(torch.stack([place // u.shape[2], place % u.shape[2] + start]))
        peak, piece = torch.stack(tops).max(0)
        if not (k.requires_grad or directions.requires_grad):
            return peak
        cells = torch.arange(len(peak), device=k.device)
        head, position = torch.stack(places)[piece, :, cells].T
        direction = (k[cells, head, position] @ directions).argmax(1)
    return (k[cells, head, position] * directions.T[direction]).sum(1)


def _key_sums(
    k: Tensor, v: Tensor, directions: Tensor, peak: Tensor, log_weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    shift = _half_square(k) + peak[:, None, None, None]
    if log_weight is not None:
        shift = shift - log_weight[:, None, :, None]
    u = torch.exp2(k @ directions - shift)
    return u.transpose(-1, -2) @ v, u.sum(2)


def _answer(q: Tensor, directions: Tensor, sums: Tensor, norms: Tensor) -> Tensor:
    u = q @ directions
    u = torch.exp2(u - u.amax(-1, keepdim=True) - _half_square(q)) + EPSILON
    return (u @ sums) / (u @ norms[..., None])
