"""scBERT :cite:p:`Yang2022`: a Performer over all 16,906 genes of a cell, each with its expression class."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch

from .._core.log import logger, warn
from .._data.logbins import bin_tokens, check_range, log2_cp10k
from ._network import check_tokens
from ._performer import PerformerConfig, PerformerEncoder

if TYPE_CHECKING:
    from torch import Tensor

    from .._data import CountBlock, GeneVocab, Tokens
    from ._encoder import Batch

_GENE_ORDER = "4c09ba1912e184682fe5e7f32e2b443bdfb7883d0d0191551b38c6c2f155600f"


@dataclass(frozen=True)
class ScBERTConfig(PerformerConfig):
    """Sizes and options of scBERT.

    Attributes
    ----------
    pooling
        Cell embedding: mean over the genes (the default; upstream publishes none), over all positions, or the appended
        last position.
    """

    pooling: Literal["mean_genes", "mean_all", "last"] = "mean_genes"


class ScBERT(PerformerEncoder):
    """scBERT :cite:p:`Yang2022`.

    A token is the class of one gene: `ids` are gene indices, `values` classes above 0 (0: below 1 count per 10,000,
    1: up to 3, 2: up to 7, 3: up to 15, 4: up to 31, 5: more). All other genes are class 0, and a position of class 0
    is appended, so every cell has one length. The published code's result for one cell at a time is computed in any
    batch.
    """

    Config = ScBERTConfig
    gene_lists: ClassVar[str] = "gene_order.txt, or panglao_10000.h5ad with the genes in its var_names"
    reads_values: ClassVar[bool] = True
    min_tokens: int = 0  # a cell without counts is a sequence of zeros

    def __init__(self, config: ScBERTConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.n_ids = config.genes + 1

    @classmethod
    def vocabulary(cls, names: list[str]) -> GeneVocab:
        """The vocabulary for the rows of the gene table; warns if a full list is not in the published order."""
        if len(names) == 16_906 and hashlib.sha256("\n".join(names).encode()).hexdigest() != _GENE_ORDER:
            warn("The list of genes is not the published one; if its order differs, the embedding means nothing.")
        return super().vocabulary(names)

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Classes of the genes that reach one count per 10,000."""
        if few := int((np.diff(block.indptr) < 200).sum()):
            cells = f"{few} of {len(block)} cells"
            logger.info("%s express fewer than 200 known genes, which scBERT was not trained on", cells)
        values = log2_cp10k(block)
        return bin_tokens(block, values, values >= 1, top=self.config.n_tokens - 2)

    def dense(self, tokens: Tokens) -> np.ndarray:
        """Class of every position, shape `(cells, genes + 1)`: the sequence that the network reads.

        Raises
        ------
        ValueError
            Ids or classes are out of range.
        """
        check_tokens(self, tokens)
        classes = np.asarray(tokens.values)
        check_range("expression class", classes, self.config.n_tokens)
        out = np.zeros((len(tokens), self.config.genes + 1), dtype=np.int8)
        out[np.repeat(np.arange(len(tokens)), tokens.lengths), tokens.ids] = classes
        return out

    def sizes(self, tokens: Tokens) -> np.ndarray:
        """One length for all: every gene is a position, expressed or not."""
        return np.full(len(tokens), self.config.genes + 1, dtype=np.int64)

    def collate(self, tokens: Tokens) -> Batch:
        """`values`: class of every position, shape `(cells, genes + 1)`, int64."""
        return {"values": torch.from_numpy(self.dense(tokens).astype(np.int64))}

    def inputs(self, batch: Batch) -> Tensor:
        """Sum of class and gene vectors: the genes in order, then the appended position."""
        return self.gene(self.value(batch["values"]))

    def hidden(self, batch: Batch, leading: int | None = None) -> Tensor:
        """Output of the final norm, shape `(cells, genes + 1, dim)`."""
        return self.encode(self.inputs(batch))

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Cell embedding that `config.pooling` asks for, shape `(cells, dim)`."""
        if self.config.pooling == "last":
            return hidden[:, -1]
        return (hidden[:, :-1] if self.config.pooling == "mean_genes" else hidden).mean(1)

    def forward(self, batch: Batch) -> Tensor:
        """As `pool(hidden(batch), batch)`; the last layer answers one query where one position is pooled."""
        last = self.config.genes
        queries = slice(last, last + 1) if self.config.pooling == "last" else None
        return self.pool(self.encode(self.inputs(batch), queries=queries), batch)
