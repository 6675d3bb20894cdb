"""Flow attention (Wu et al., ICML 2022): linear attention over the cells of a set, exact in one piece or in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Pieces = Callable[[Tensor, Callable[[Tensor], Any]], Iterator[tuple[Tensor, Any]]]

EPS = 1e-6
REMEMBER_BYTES = 2**30
"""Queries and keys of a streamed set are kept up to this size and computed again beyond it."""


class SetLayout(NamedTuple):
    """Where the cells of several sets go in a padded array of shape `(sets, longest)`.

    `slots` has shape `(n_cells,)` and indexes the flattened array, `sizes` has shape `(sets,)`.
    """

    slots: Tensor
    sizes: Tensor
    longest: int

    @classmethod
    def of(cls, sets: Tensor) -> SetLayout:
        """Lay out cells by the code of their set, shape `(n_cells,)`; the order of the cells is kept."""
        _, index, sizes = torch.unique(sets, return_inverse=True, return_counts=True)
        order = torch.argsort(index, stable=True)
        longest = int(sizes.max()) if len(sizes) else 0
        starts = torch.cumsum(sizes, 0) - sizes
        within = torch.empty_like(index)
        within[order] = torch.arange(len(index), device=index.device) - starts[index[order]]
        return cls(index * longest + within, sizes, longest)

    def pad(self, x: Tensor) -> Tensor:
        """`(n_cells, heads, channels)` to `(sets, heads, longest, channels)`, filled up with zeros."""
        if len(self.sizes) == 1:
            return x.transpose(0, 1).unsqueeze(0)
        out = x.new_zeros(len(self.sizes) * self.longest, *x.shape[1:])
        return out.index_copy(0, self.slots, x).unflatten(0, (-1, self.longest)).transpose(1, 2)

    def unpad(self, x: Tensor) -> Tensor:
        """Back to `(n_cells, heads, channels)`."""
        x = x.transpose(1, 2).flatten(0, 1)
        return x if len(self.sizes) == 1 else x.index_select(0, self.slots)

    @property
    def keep(self) -> Tensor | None:
        """1 for cells and 0 for padding, shape `(sets, 1, longest)`; `None` without padding."""
        if len(self.sizes) == 1 or bool((self.sizes == self.longest).all()):
            return None
        places = torch.arange(self.longest, device=self.sizes.device)
        return (places < self.sizes[:, None])[:, None].to(torch.get_default_dtype())


def flow_attention(q: Tensor, k: Tensor, v: Tensor, sizes: Tensor, keep: Tensor | None = None) -> Tensor:
    """Attention whose cost grows linearly with the size of a set.

    Parameters
    ----------
    q, k, v
        Shape `(sets, heads, cells, channels)`; `q` and `k` have passed a sigmoid and are 0 where a set is padded.
    sizes
        Cells in each set, shape `(sets,)`.
    keep
        1 for cells and 0 for padding, shape `(sets, 1, cells)`; `None` without padding.
    """
    incoming = 1 / _dot(q + EPS, k.sum(2, keepdim=True) + EPS)  # (sets, heads, cells)
    outgoing = 1 / _dot(k + EPS, q.sum(2, keepdim=True) + EPS)
    sink = _dot(q + EPS, (k * outgoing[..., None]).sum(2, keepdim=True) + EPS)
    source = _dot(k + EPS, (q * incoming[..., None]).sum(2, keepdim=True) + EPS)
    weight = torch.exp(source.clamp(-1, 1))
    if keep is not None:
        weight = weight * keep.to(weight.dtype)
    weight = weight * (sizes.to(q.dtype)[:, None, None] / weight.sum(2, keepdim=True))
    q, v = q * incoming[..., None], v * weight[..., None]
    if q.shape[2] < q.shape[3]:  # few cells: the (cells, cells) product is smaller than (channels, channels)
        y = (q @ k.transpose(2, 3)) @ v
    else:
        y = q @ (k.transpose(2, 3) @ v)
    return y * torch.sigmoid(sink)[..., None]


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Dot product over channels of every cell with one vector per head."""
    return (x @ y.transpose(2, 3)).squeeze(-1)


def _project(x: Tensor, vector: Tensor) -> Tensor:
    """Dot product of `(cells, heads, channels)` with `(heads, channels)`."""
    return torch.einsum("nhc,hc->nh", x, vector)


def _weigh(x: Tensor, weight: Tensor) -> Tensor:
    """Sum over cells of `(cells, heads, channels)` times `(cells, heads)`."""
    return torch.einsum("nhc,nh->hc", x, weight)


def _added(pieces: Iterator[tuple[Tensor, tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
    """Sums over the pieces."""
    one = two = torch.zeros(())
    for _, (more, other) in pieces:
        one, two = one + more, two + other
    return one, two


class FlowAttention(nn.Module):
    """Multi-head flow attention over sets of cells; `q`, `k`, `v`, `o` are plain linear layers that are really called.

    Parameters
    ----------
    dim
        Width of the input and output.
    heads
        Number of heads of `dim / heads` channels each.
    dropout
        Dropout of the mixed values while training.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, layout: SetLayout) -> Tensor:
        """Attend among the cells of each set; `x` has shape `(n_cells, dim)`."""
        q, k, v = (layout.pad(part) for part in (self._gate(self.q, x), self._gate(self.k, x), self._split(self.v(x))))
        with torch.autocast(x.device.type, enabled=False):  # sums over many cells need single precision
            y = flow_attention(q, k, v, layout.sizes, layout.keep)
        return self.o(self.drop(layout.unpad(y).flatten(1)))

    def stream(self, inputs: Callable[[Tensor], Tensor], rows: Tensor, run: Pieces) -> Callable[[Tensor], Tensor]:
        """Attend among the cells of one set that is too large to be held at once; no gradient is recorded.

        Only sums over the cells connect them: three passes collect the sums, and then the output of any cells can be had.

        Parameters
        ----------
        inputs
            Gives the input of some rows, shape `(cells, dim)`.
        rows
            Cells of the set.
        run
            `run(rows, compute)` yields `(piece, compute(piece))` for consecutive pieces; their size may fall between two.

        Returns
        -------
        A function from rows to their output, shape `(cells, dim)`.
        """
        remembered: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}  # queries and keys of all pieces, where they fit

        def gates(piece: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
            place = int(piece[0]), len(piece)
            if place in remembered:
                return remembered[place]
            if remembered and place[1] < next(iter(remembered))[1] and piece[-1] != rows[-1]:
                remembered.clear()  # memory ran out: pieces are smaller now
            x = inputs(piece) if x is None else x
            q, k = self._gate(self.q, x), self._gate(self.k, x)
            if 2 * len(rows) * q[0].numel() * q.element_size() <= REMEMBER_BYTES:
                remembered[place] = q, k
            return q, k

        def first(piece: Tensor) -> tuple[Tensor, Tensor]:
            q, k = gates(piece)
            return q.sum(0), k.sum(0)

        def second(piece: Tensor) -> tuple[Tensor, Tensor]:
            q, k = gates(piece)
            return _weigh(q, 1 / _project(q + EPS, sum_k + EPS)), _weigh(k, 1 / _project(k + EPS, sum_q + EPS))

        def third(piece: Tensor) -> tuple[Tensor, Tensor]:
            x = inputs(piece)
            _, k = gates(piece, x)
            weight = torch.exp(_project(k + EPS, sum_q_in + EPS).clamp(-1, 1))
            weighted = self._split(self.v(x)) * weight[..., None]
            return weight.sum(0), k.permute(1, 2, 0) @ weighted.transpose(0, 1)  # (heads, channels, channels)

        def output(piece: Tensor) -> Tensor:
            q, _ = gates(piece)
            scale = torch.sigmoid(_project(q + EPS, sum_k_out + EPS)) / _project(q + EPS, sum_k + EPS)
            return self.o(((q.transpose(0, 1) @ values) * scale.T[..., None]).transpose(0, 1).flatten(1))

        sum_q, sum_k = _added(run(rows, first))  # (heads, channels)
        sum_q_in, sum_k_out = _added(run(rows, second))
        normalizer, values = _added(run(rows, third))
        values = values * (len(rows) / normalizer)[:, None, None]
        return output

    def _gate(self, linear: nn.Module, x: Tensor) -> Tensor:
        return torch.sigmoid(self._split(linear(x)))

    def _split(self, x: Tensor) -> Tensor:
        return x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (self.heads, -1))


class FlowLayer(nn.Module):
    """Flow attention and feed-forward, each behind a LayerNorm and added to the residual stream."""

    def __init__(
        self, dim: int, heads: int, ffn_dim: int, *, dropout: float = 0.0, attention_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(dim)
        self.attn = FlowAttention(dim, heads, dropout=attention_dropout)
        self.ffn_norm = nn.LayerNorm(dim)
        self.up, self.down = nn.Linear(dim, ffn_dim), nn.Linear(ffn_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, layout: SetLayout) -> Tensor:
        """`x` has shape `(n_cells, dim)`."""
        return self.feed(x + self.attn(self.attn_norm(x), layout))

    def feed(self, x: Tensor) -> Tensor:
        """Apply the feed-forward half of the layer to each cell on its own."""
        return x + self.drop(self.down(self.drop(nn.functional.gelu(self.up(self.ffn_norm(x))))))

    def stream(self, cells: Tensor, rows: Tensor, run: Pieces, device: torch.device) -> None:
        """Apply the layer in place to one set: the `rows` of `cells`, in pieces, see :meth:`FlowAttention.stream`."""
        attend = self.attn.stream(lambda piece: self.attn_norm(cells[piece].to(device)), rows, run)
        for piece, x in run(rows, lambda piece: self.feed(cells[piece].to(device) + attend(piece)).to(cells.device)):
            cells[piece] = x
