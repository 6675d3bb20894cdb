"""CellLM :cite:p:`Zhao2023`: the Performer of scBERT, larger, over the expressed genes of a cell behind a CLS token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch

from .._core.log import logger
from .._data import GeneVocab, Tokens
from .._data.logbins import bin_tokens, check_range, first_tokens, log2_cp10k
from .._nn.performer import streams
from ._config import size
from ._files import read_json
from ._network import check_tokens
from ._performer import PerformerConfig, PerformerEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from .._data import CountBlock
    from ._encoder import Batch

_PUBLISHED = {"num_tokens": "n_tokens", "dim": "dim", "depth": "layers", "heads": "heads", "gene_num": "genes"}
"""Names in the published JSON file of sizes that the tensors tell as well."""


@dataclass(frozen=True)
class CellLMConfig(PerformerConfig):
    """Sizes and options of CellLM.

    Attributes
    ----------
    max_length
        Positions with CLS and padding. It is part of the model: padding enters the denominator of the attention.
    pooling
        Cell embedding: the CLS token (the default; upstream publishes none), or the mean over CLS and genes, over the
        genes, or over all positions with padding as zero.
    normalize
        Whether counts are brought to `log2(1 + counts per 10,000)` first. Upstream publishes no such step; this is
        that of its sister data set. Without it the values are taken as they are.
    """

    dim: int = size(512)
    layers: int = size(10)
    heads: int = size(16)
    ffn_dim: int = size(2048)
    n_tokens: int = size(8)
    genes: int = size(19_379)
    max_length: int = size(6_000, least=2)
    pooling: Literal["cls", "mean_tokens", "mean_genes", "mean_positions"] = "cls"
    normalize: bool = True


class CellLM(PerformerEncoder):
    """CellLM :cite:p:`Zhao2023`.

    A token is an expressed gene: `ids` are gene indices in increasing order behind CLS (whose index is the number of
    genes), `values` the class of each (0 to 5; 6 for CLS). Upstream fills each cell up to `max_length` positions, and
    this padding acts on the real tokens. All padding of a cell is alike in every layer, so it is one row here that
    counts as many times: the same numbers at the cost of the expressed genes.
    """

    Config = CellLMConfig
    specials: ClassVar[int] = 2
    last_rows: ClassVar[tuple[float, ...]] = (1.0, 0.0)
    gene_lists: ClassVar[str] = (
        "gene_list.txt (one symbol a line), or zheng68k_hgnc.h5ad with the genes in its var_names"
    )
    reads_values: ClassVar[bool] = True

    def __init__(self, config: CellLMConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.cls_id, self.pad_id = config.genes, config.genes + 1
        self.n_ids, self.longest = config.genes + 1, config.max_length

    @classmethod
    def with_published(cls, config: CellLMConfig, path: Path) -> CellLMConfig:
        """Take `max_length` from the published file of sizes, which must agree with the tensors in all else."""
        values = read_json(path)
        for key in ("network", "structure"):
            values = values[key] if isinstance(values.get(key), dict) else values
        differing = [
            f"{name} is {values[name]}, the tensors say {getattr(config, field)}"
            for name, field in _PUBLISHED.items()
            if values.get(name, getattr(config, field)) != getattr(config, field)
        ]
        if differing:
            msg = f"{path} does not belong to this checkpoint: {'; '.join(differing)}."
            raise ValueError(msg)
        try:
            return config.replace(max_length=values.get("max_seq_len", config.max_length))
        except ValueError as error:
            msg = f"{path} is damaged: {error}"
            raise ValueError(msg) from error

    @classmethod
    def vocabulary(cls, names: list[str]) -> GeneVocab:
        """The vocabulary for the rows of the gene table, the last two of which are special."""
        special = {"<cls>": len(names), "<pad>": len(names) + 1}
        return GeneVocab(names, duplicates="first", special=special)

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """CLS and the expressed genes by index, at most `max_length` in all."""
        config = self.config
        values = log2_cp10k(block) if config.normalize else block.counts
        genes = bin_tokens(block, values, values > 0, top=config.n_tokens - 3)
        if cut := int((genes.lengths >= config.max_length).sum()):
            cells, most = f"{cut} of {len(block)} cells", config.max_length - 1
            logger.info("%s express more than %d genes; the last were cut", cells, most)
        return first_tokens(genes, config.max_length - 1).framed(self.cls_id, value=config.n_tokens - 2)

    def sizes(self, tokens: Tokens) -> np.ndarray:
        """Tokens and one row of padding."""
        return tokens.lengths + 1

    def collate(self, tokens: Tokens) -> Batch:
        """Real tokens, then padding; one column more than the longest cell has tokens.

        `ids` and `values`, int64; `keep`, True for real tokens; `weight`, float32, how many positions a column stands
        for: 1, the number of padded positions in the first column of padding, 0 behind it.

        Raises
        ------
        ValueError
            The tokens are not those of this model.
        """
        config = self.config
        check_tokens(self, tokens)
        check_range("expression class", np.asarray(tokens.values), config.n_tokens)
        if (tokens.lengths < 1).any() or (tokens.ids[tokens.indptr[:-1]] != self.cls_id).any():
            msg = f"The first token of each cell must be CLS with gene index {self.cls_id}, before gene indices."
            raise ValueError(msg)
        lengths, width = tokens.lengths, int(tokens.lengths.max(initial=0)) + 1
        ids = tokens.padded(tokens.ids, self.pad_id, width=width)
        values = tokens.padded(np.asarray(tokens.values), config.n_tokens - 1, width=width)
        keep = np.arange(width) < lengths[:, None]
        weight = keep.astype(np.float32)
        weight[np.arange(len(tokens)), lengths] = config.max_length - lengths
        return {
            "ids": torch.from_numpy(ids.astype(np.int64)),
            "values": torch.from_numpy(values.astype(np.int64)),
            "keep": torch.from_numpy(keep),
            "weight": torch.from_numpy(weight),
        }

    def inputs(self, batch: Batch) -> Tensor:
        """Sum of class and gene vectors, shape `(cells, length, dim)`."""
        return self.gene(self.value(batch["values"]), batch["ids"])

    def hidden(self, batch: Batch, leading: int | None = None) -> Tensor:
        """Output of the final norm, shape `(cells, longest, dim)`: CLS, genes, and zeros at padding."""
        queries, longest = None if leading is None else slice(leading), batch["ids"].shape[1] - 1
        if not streams(self, batch["ids"]):
            x = self.encode(self.inputs(batch), batch["weight"], batch["keep"], queries=queries)
            return x if leading else x[:, :longest] * batch["keep"][:, :longest, None]
        # On a CPU each cell is computed by itself: no padding but the one row, and never a rounding error of neighbors.
        out = self.final_norm.weight.new_zeros(len(batch["ids"]), leading or longest, self.dim)  # type: ignore[operator]
        for cell, n in enumerate(batch["keep"].sum(1).tolist()):
            columns = slice(n + int(batch["weight"][cell, n] > 0))
            alone = {name: x[cell : cell + 1, columns] for name, x in batch.items()}
            x = self.encode(self.inputs(alone), alone["weight"], alone["keep"], queries=queries)
            out[cell, : leading or n] = x[0, :n]
        return out

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Cell embedding that `config.pooling` asks for, shape `(cells, dim)`."""
        config = self.config
        if config.pooling == "cls":
            return hidden[:, 0]
        keep = batch["keep"][:, : hidden.shape[1]]
        first = 1 if config.pooling == "mean_genes" else 0
        total = (hidden * keep[..., None])[:, first:].sum(1)
        if config.pooling == "mean_positions":
            return total / config.max_length
        return total / (keep.sum(1) - first).clamp(min=1)[:, None]

    @property
    def leading(self) -> int | None:
        """Only CLS is read with `pooling='cls'`."""
        return 1 if self.config.pooling == "cls" else None
