"""Softmax attention by matrix products, some queries at a time: the same numbers as fused attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.jit._trace import is_tracing

from .._core.settings import settings
from .products import advantage, are_fast

LEAST_ADVANTAGE = 1.5
"""Below it fused attention is as fast or faster. Processors lie far on one side or the other (1.1 and 2.3 were measured), so
that the choice, and with it the last bits of a result, is the same in every process."""
_SCORES = 2**22  # at a time, so that they stay in the last-level cache
_FEWEST, _MOST = 64, 256


def chunks_pay(q: Tensor, k: Tensor) -> bool:
    """Whether products of chunks are faster than fused attention: measured on this machine, for this precision.

    Fused attention works on small blocks, in float32 whatever the precision, and cannot profit from a library whose large
    products are much faster. `q` and `k` have the shape `(cells, heads, length, channels)`.
    """
    if q.device.type != "cpu" or torch.is_grad_enabled() or is_tracing() or "attention" not in settings.speedups:
        return False
    usable = are_fast() if q.dtype == torch.float32 else q.dtype == torch.bfloat16
    return usable and advantage(q.dtype, torch.get_num_threads()) >= LEAST_ADVANTAGE


def attend_in_chunks(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Attention of shape `(cells, heads, queries, channels)`; the scores of a few million pairs exist at a time.

    Parameters
    ----------
    q, k, v
        Queries, keys and values, shape `(cells, heads, length, channels)`.
    keep
        Real tokens (bool), or what is added to the scores of each token (float), shape `(cells, length)`.
    causal
        Whether a position sees only itself and what comes before.
    """
    cells, heads, length, channels = q.shape
    bias = None
    if keep is not None:
        bias = (
            keep if keep.is_floating_point() else torch.zeros_like(keep, dtype=q.dtype).masked_fill_(~keep, -math.inf)
        )
        bias = bias.to(q.dtype).repeat_interleave(heads, 0)[:, None]  # (cells * heads, 1, keys)
    q, keys, values = (q * channels**-0.5).flatten(0, 1), k.flatten(0, 1).mT, v.flatten(0, 1)
    size = min(_MOST, max(_FEWEST, _SCORES // (len(q) * k.shape[2])))
    out = torch.empty_like(q)
    with torch.autocast(q.device.type, enabled=False):
        for start in range(0, length, size):
            stop = min(start + size, length)
            seen = stop if causal else k.shape[2]
            part, rows = keys[:, :, :seen], q[:, start:stop]
            scores = rows @ part if bias is None else torch.baddbmm(bias[..., :seen], rows, part)
            if causal:
                ahead = torch.ones(stop - start, seen, dtype=torch.bool, device=q.device).triu_(start + 1)
                scores.masked_fill_(ahead, -math.inf)
            torch.bmm(scores.softmax(-1), values[:, :seen], out=out[:, start:stop])
    return out.unflatten(0, (cells, heads))
