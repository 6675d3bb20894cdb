"""Transformer layers and the loop over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import SelfAttention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class PostNormLayer(nn.Module):
    """Attention and feed-forward, each followed by a residual sum and LayerNorm (Vaswani et al., 2017).

    `attn_dropout` (attention weights) and `inner_dropout` (after the activation) are `dropout` unless they are given.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        ffn_dim: int,
        *,
        dropout: float = 0.0,
        attn_dropout: float | None = None,
        inner_dropout: float | None = None,
        eps: float = 1e-5,
        activation: Callable[[Tensor], Tensor] = torch.relu_,
    ) -> None:
        super().__init__()
        self.attn = SelfAttention(dim, heads, dropout=dropout if attn_dropout is None else attn_dropout)
        self.attn_norm = nn.LayerNorm(dim, eps=eps)
        self.up, self.down = nn.Linear(dim, ffn_dim), nn.Linear(ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim, eps=eps)
        self.drop = nn.Dropout(dropout)
        self.inner_drop = nn.Dropout(dropout if inner_dropout is None else inner_dropout)
        self.activation = activation

    def forward(self, x: Tensor, keep: Tensor | None = None, *, queries: int | None = None) -> Tensor:
        """`queries` computes only the first positions, which is exact when nothing reads the others."""
        residual = x if queries is None else x[:, :queries]
        return self.finish(residual, self.attn(x, keep, queries=queries))

    def finish(self, residual: Tensor, mixed: Tensor) -> Tensor:
        """Apply what follows the attention: residual sums, norms and feed-forward."""
        x = self.attn_norm(residual + self.drop(mixed))
        return self.ffn_norm(x + self.drop(self.down(self.inner_drop(self.activation(self.up(x))))))


def run_layers(
    layers: Iterable[nn.Module],
    x: Tensor,
    *others: Any,
    queries: int | slice | None = None,
    gradient_checkpointing: bool = False,
) -> Tensor:
    """Apply `layers` one after another.

    Parameters
    ----------
    layers
        Modules called as `layer(x, *others)`; the last one also with `queries`, if that is given.
    x
        Input of the first layer.
    others
        What every layer reads besides the output of the one before it, such as the mask of real tokens.
    queries
        Positions that the last layer computes; `None` for all.
    gradient_checkpointing
        Recompute activations in the backward pass to save memory.
    """
    layers = list(layers)
    recompute = gradient_checkpointing and torch.is_grad_enabled()
    for layer in layers:
        only: dict[str, Any] = {"queries": queries} if queries is not None and layer is layers[-1] else {}
        x = checkpoint(layer, x, *others, **only, use_reentrant=False) if recompute else layer(x, *others, **only)
    return x


def mean_between(hidden: Tensor, first: int, stop: Tensor) -> Tensor:
    """Mean over the positions `first` to `stop - 1` of each cell, shape `(cells, width)`; 0 where there are none.

    `hidden` has shape `(cells, length, width)`, `stop` has shape `(cells,)`.
    """
    place = torch.arange(hidden.shape[1], device=hidden.device)
    chosen = ((place >= first) & (place < stop[:, None])).to(hidden.dtype)
    weight = chosen / (stop - first).clamp(min=1)[:, None].to(hidden.dtype)
    return (weight[:, None] @ hidden)[:, 0]
