"""CellLM :cite:p:`Zhao2023`: the Performer of scBERT, larger, over the expressed genes of a cell behind a CLS token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch

from .._core.log import logger
from .._data import GeneVocab, Tokens
from .._data.logbins import bin_tokens, first_tokens, log2_cp10k, prepend
from .._nn.performer import streams
from ._weights import read_json
from .scbert import PerformerConfig, PerformerEncoder, check_choice, check_genes, check_range, read_genes, read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from .._data import CountBlock
    from ._encoder import Batch

Pooling = Literal["cls", "mean_tokens", "mean_genes", "mean_positions"]
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

    dim: int = 512
    layers: int = 10
    heads: int = 16
    ffn_dim: int = 2048
    n_tokens: int = 8
    genes: int = 19_379
    max_length: int = 6_000
    pooling: Pooling = "cls"
    normalize: bool = True

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, get_args(Pooling))
        if self.max_length < 2:
            msg = f"`max_length` must be at least 2 (CLS and one gene), found {self.max_length}."
            raise ValueError(msg)


class CellLM(PerformerEncoder):
    """CellLM :cite:p:`Zhao2023`.

    A token is an expressed gene: `ids` are gene indices in increasing order behind CLS (whose index is the number of
    genes), `values` the class of each (0 to 5; 6 for CLS). Upstream fills each cell up to `max_length` positions, and
    this padding acts on the real tokens. All padding of a cell is alike in every layer, so it is one row here that
    counts as many times: the same numbers at the cost of the expressed genes.
    """

    Config = CellLMConfig
    specials: ClassVar[int] = 2

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> CellLM:
        """Read sizes from the checkpoint, `max_length` from `cellLM.json` if it is there, gene names from a list.

        Raises
        ------
        FileNotFoundError
            There is no gene list.
        ValueError
            The files are damaged, of another model, or do not belong together.
        """
        names = read_genes(
            files, "gene_list.txt (one symbol a line), or zheng68k_hgnc.h5ad with the genes in its var_names"
        )
        state = read_tensors(files["weights"])
        config = CellLMConfig.from_state(cls.remap(state), specials=cls.specials, source=files["weights"])
        if "config" in files:
            config = _with_published(config, files["config"])
        check_genes(names, config.genes, files["weights"])
        vocab = GeneVocab(names, duplicates="first", special={"<cls>": config.genes, "<pad>": config.genes + 1})
        return cls.build(cls.configure(config, options), vocab, state, source=files["weights"])  # type: ignore[return-value]

    @property
    def cls_id(self) -> int:
        """Gene index of the CLS token; that of padding is one more."""
        return int(self.config.genes)

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """CLS and the expressed genes by index, at most `max_length` in all."""
        config = self.config
        values = log2_cp10k(block) if config.normalize else block.counts
        genes = bin_tokens(block, values, values > 0, top=config.n_tokens - 3)
        cut = int((genes.lengths >= config.max_length).sum())
        if cut:
            logger.info(
                "%d of %d cells express more than %d genes; the last were cut", cut, len(block), config.max_length - 1
            )
        return prepend(first_tokens(genes, config.max_length - 1), self.cls_id, config.n_tokens - 2)

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
            These are no tokens of this model.
        """
        config, pad = self.config, self.cls_id + 1
        tokens, classes = self._checked(tokens)
        lengths, width = tokens.lengths, int(tokens.lengths.max(initial=0)) + 1
        ids, values = (
            tokens.padded(tokens.ids, pad, width=width),
            tokens.padded(classes, config.n_tokens - 1, width=width),
        )
        keep = np.arange(width) < lengths[:, None]
        weight = keep.astype(np.float32)
        weight[np.arange(len(tokens)), lengths] = config.max_length - lengths
        return {
            "ids": torch.from_numpy(ids.astype(np.int64)),
            "values": torch.from_numpy(values.astype(np.int64)),
            "keep": torch.from_numpy(keep),
            "weight": torch.from_numpy(weight),
        }

    def hidden(self, batch: Batch) -> Tensor:
        """Output of the final norm, shape `(cells, longest, dim)`: CLS, genes, and zeros at padding."""
        return self._run(batch, None)

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

    def forward(self, batch: Batch) -> Tensor:
        """As `pool(hidden(batch), batch)`; with CLS pooling the last layer answers the query of CLS only."""
        if self.config.pooling != "cls":
            return self.pool(self.hidden(batch), batch)
        return self._run(batch, slice(0, 1))[:, 0]

    def _run(self, batch: Batch, queries: slice | None) -> Tensor:
        ids, values, keep, weight = (batch[name] for name in ("ids", "values", "keep", "weight"))
        longest = ids.shape[1] - 1
        if not streams(self, ids):
            x = self.encode(self.gene(self.value(values), ids), weight, keep, queries=queries)
            return x if queries is not None else x[:, :longest] * keep[:, :longest, None]
        # On a CPU each cell is computed by itself: no padding but the one row, and never a rounding error of neighbors.
        out = self.norm.weight.new_zeros(len(ids), longest if queries is None else 1, self.dim)
        for cell, n in enumerate(keep.sum(1).tolist()):
            part = (slice(cell, cell + 1), slice(n + int(weight[cell, n] > 0)))
            x = self.gene(self.value(values[part]), ids[part])
            x = self.encode(x, weight[part], keep[part], queries=queries)
            out[cell, : n if queries is None else 1] = x[0, :n]
        return out

    def _checked(self, tokens: Tokens) -> tuple[Tokens, np.ndarray]:
        """Tokens and their classes after a check; recorded padding is taken off."""
        config, cls_id = self.config, self.cls_id
        if tokens.values is None:
            msg = "CellLM needs `ids` (gene indices) and `values` (expression classes), found tokens without values."
            raise ValueError(msg)
        check_range("gene index", tokens.ids, cls_id + 2)
        check_range("expression class", tokens.values, config.n_tokens)
        classes, real = tokens.values, tokens.ids != cls_id + 1
        if not real.all():
            classes = classes[real]
            tokens = Tokens(np.concatenate([[0], np.cumsum(real)])[tokens.indptr], tokens.ids[real], classes)
        if (tokens.lengths < 1).any() or (tokens.ids[tokens.indptr[:-1]] != cls_id).any():
            msg = f"The first token of each cell must be CLS with gene index {cls_id}; `ids` are gene indices, `values` classes."
            raise ValueError(msg)
        if tokens.lengths.max(initial=0) > config.max_length:
            msg = f"A cell has {tokens.lengths.max()} tokens, but `max_length` is {config.max_length}."
            raise ValueError(msg)
        return tokens, classes


def _with_published(config: CellLMConfig, path: Path) -> CellLMConfig:
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
    return replace(config, max_length=int(values.get("max_seq_len", config.max_length)))
