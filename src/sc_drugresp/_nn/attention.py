"""Softmax attention with separate projections."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


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
        source = x if queries is None else x[:, :queries]
        q, k, v = (
            self._split(self.q(source)),
            self._split(self.k(x)),
            self._split(self.v(x)),
        )  # (cells, heads, length, .)
        mask = None if keep is None else keep[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        causal = self.causal and queries is None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return self.o(y.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
