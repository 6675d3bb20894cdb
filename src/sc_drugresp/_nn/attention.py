"""Softmax attention with separate projections."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing
from torch.nn import functional as F

from .._core.settings import settings
from .chunks import attend_in_chunks, chunks_pay
from .products import plain_products


class SelfAttention(nn.Module):
    """Multi-head softmax attention: `q`, `k`, `v`, `o` are plain linear layers that are really called.

    Parameters
    ----------
    dim
        Width of the input and output.
    heads
        Number of heads of `dim / heads` channels each.
    dropout
        Dropout of attention weights while training.
    causal
        Whether a position sees only itself and what comes before.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, keep: Tensor | None = None, *, queries: int | None = None) -> Tensor:
        """Attend from the first `queries` positions (all of them by default) to all positions that `keep` allows.

        `x` has shape `(cells, length, dim)`, `keep` `(cells, length)` with True for real tokens.
        """
        if queries == 1 and self._pays(x):
            return self._first(x, keep)
        source = x if queries is None else x[:, :queries]
        causal = self.causal and queries is None
        return self.mix(self.q(source), self.k(x), self.v(x), keep, causal=causal)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """Complete the attention, given the outputs of `q`, `k` and `v` of shape `(cells, length, dim)`."""
        q, k, v = self._split(q), self._split(k), self._split(v)  # (cells, heads, length, channels)
        if not self.training and chunks_pay(q, k):
            y = attend_in_chunks(q, k, v, keep, causal=causal)
        else:
            mask = (
                None if keep is None else keep[:, None, None, :].to(q.dtype if keep.is_floating_point() else keep.dtype)
            )
            dropout = self.dropout if self.training else 0.0
            with plain_products():
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return self.o(y.transpose(1, 2).flatten(2))

    def _pays(self, x: Tensor) -> bool:
        if is_tracing():  # lengths of an example say nothing
            return True
        if "first_position" not in settings.speedups:
            return False
        return not (self.training or torch.is_grad_enabled()) and x.shape[0] * x.shape[1] > x.shape[2]

    def _first(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Attention from the first position, without keys and values of the others.

        The query is taken to the space of the input instead of the keys to that of the query, and the input is summed
        before the values are computed. All four layers are called, so that adapters count.
        """
        dim = x.shape[-1]
        basis = torch.cat([x.new_zeros(1, dim), torch.eye(dim, dtype=x.dtype, device=x.device)])
        keys = self.k(basis)
        keys = (keys[1:] - keys[:1]).unflatten(-1, (self.heads, -1))  # the bias shifts all logits alike
        q = self.q(x[:, 0]).unflatten(-1, (self.heads, -1))
        logits = torch.einsum("bhc,dhc->bhd", q, keys) @ x.transpose(1, 2) / math.sqrt(q.shape[-1])
        if keep is not None:
            mask = keep[:, None]
            logits = logits.masked_fill(~mask, -math.inf) if keep.dtype == torch.bool else logits + mask
        values = self.v(logits.softmax(-1) @ x).unflatten(-1, (self.heads, -1))  # (cells, heads, heads, channels)
        own = torch.eye(self.heads, dtype=values.dtype, device=x.device)[
            ..., None
        ]  # every head has values of every head
        return self.o((values * own).sum(2).flatten(1))[:, None]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
