"""The first layer of a transformer whose tokens and positions are few: their projections are computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


class ProjectedTokens(NamedTuple):
    """Parts of distinct tokens, and of positions, in the input, queries, keys and values of the first layer.

    The input is a sum of a part of the token and one of the position, and linear maps of such sums are sums again.

    Parameters
    ----------
    rows
        Ids of the tokens, increasing, shape `(n_tokens,)`.
    tokens, positions
        Input, queries, keys and values of each token, and of each position.
    """

    rows: Tensor
    tokens: tuple[Tensor, ...]
    positions: tuple[Tensor, ...]

    @classmethod
    def of(cls, layer: Any, rows: Tensor, x: Tensor, positions: Tensor) -> Self:
        """Project the vectors `x` of the tokens `rows`, and those of the positions."""
        linears = (layer.attn.q, layer.attn.k, layer.attn.v)
        without_bias = (linear(positions) - linear(torch.zeros_like(x[:1])) for linear in linears)
        return cls(rows, (x, *(linear(x) for linear in linears)), (positions, *without_bias))

    def inputs(self, ids: Tensor) -> Tensor:
        """Input of the first layer, shape `(cells, length, width)`."""
        return F.embedding(torch.searchsorted(self.rows, ids), self.tokens[0]) + self.positions[0][: ids.shape[1]]

    def first_layer(self, layer: Any, ids: Tensor, keep: Tensor | None) -> Tensor:
        """Output of the first layer, shape `(cells, length, width)`; `ids` has the shape `(cells, length)`."""
        index, length = torch.searchsorted(self.rows, ids), ids.shape[1]
        x, q, k, v = (F.embedding(index, t) + p[:length] for t, p in zip(self.tokens, self.positions))
        return layer.finish(x, layer.attn.mix(q, k, v, keep))
