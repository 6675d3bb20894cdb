"""scGPT :cite:p:`Cui2024`: genes are tokens, expression bins within the cell their values, `<cls>` is the cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.log import logger
from .._data import CountBlock, GeneVocab, Tokens, entry_uniforms
from .._data.bin_kernels import keep_smallest, quantile_bins
from .._nn import PostNormLayer
from ._config import Config, setting, size
from ._encoder import Batch, CellEncoder
from ._files import read_json
from ._layouts import TORCH_ENCODER
from ._weights import read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PAD, CLS, EOC = "<pad>", "<cls>", "<eoc>"
_LARGEST_VALUE = 512.0
_BINS, _SAMPLE = 0, 1  # purposes of the random numbers of an entry


@dataclass(frozen=True)
class ScGPTConfig(Config):
    """Sizes of the published networks, and options.

    Parameters
    ----------
    dim, heads, layers, ffn_dim, dropout
        Sizes of the network; `dropout` acts in training only.
    cls_value
        Value of the `<cls>` token and of padding.
    n_bins
        Bins of the values; upstream uses 51 whatever the checkpoint says.
    max_length
        Most tokens of a cell, `<cls>` included.
    overflow
        What a cell with more genes keeps: a random `'sample'` of them, or the `'first'` ones in the order of the data.
    ties
        The bin of a value that lies on several edges: `'random'` among them (most counts of 1), or the `'upper'` one.
    normalize
        Divide the embedding by its L2 norm.
    """

    dim: int = size(512, "embsize")
    heads: int = size(8, "nheads", divides="dim")
    layers: int = size(12, "nlayers")
    ffn_dim: int = size(512, "d_hid")
    dropout: float = setting(0.2, "dropout")
    cls_value: float = setting(-2.0, "pad_value")
    n_bins: int = size(51, least=3)
    max_length: int = size(1200, least=2)
    overflow: Literal["sample", "first"] = "sample"
    ties: Literal["random", "upper"] = "random"
    normalize: bool = True

    @classmethod
    def from_json(cls, args: Mapping[str, Any], *, source: object = "args.json") -> Self:
        """Read the sizes from a published `args.json`.

        Raises
        ------
        ValueError
            A size is missing, or the file describes another kind of network.
        """
        sizes = cls.read_published(args, source=source)
        style = args.get("input_emb_style", "continuous")
        if style != "continuous":
            msg = f"{source} describes values embedded as {style!r}; only the published style 'continuous' is known."
            raise ValueError(msg)
        return cls.stated(source, **sizes)


class ValueEncoder(nn.Module):
    """Maps a number to a vector by two linear layers and LayerNorm."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, dim), nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """`values` has any shape; the output has one more dimension."""
        if self.training:
            return self.drop(self._encode(values))
        distinct, place = torch.unique(values, return_inverse=True)  # at most 52 bins: each is computed once
        return F.embedding(place, self._encode(distinct))

    def _encode(self, values: Tensor) -> Tensor:
        x = F.relu(self.first(values.clamp(max=_LARGEST_VALUE).unsqueeze(-1)))
        return self.norm(self.second(x))


class ScGPT(CellEncoder):
    """The scGPT encoder :cite:p:`Cui2024`.

    Tokens are `<cls>` and the expressed genes; a token's value is the gene's expression bin within its cell. The
    embedding is the output of `<cls>`, divided by its norm. Upstream draws the bins of tied counts and the genes of long
    cells from unseeded global generators; here each cell has its own stream, made from the seed and its counts.
    A cell without any known gene is embedded as `<cls>` alone.
    """

    Config = ScGPTConfig
    reads_values: ClassVar[bool] = True
    renames: ClassVar[Mapping[str, str]] = {
        r"^(module\.|model\.)+": "",
        r"^encoder\.embedding\.": "gene.",
        r"^encoder\.enc_norm\.": "gene_norm.",
        r"^value_encoder\.linear1\.": "value.first.",
        r"^value_encoder\.linear2\.": "value.second.",
        r"^value_encoder\.norm\.": "value.norm.",
        r"^transformer_encoder\.layers\.": "layers.",
        **TORCH_ENCODER,
    }
    # Batch normalization would change the embedding; it is not dropped but refused.
    dropped: ClassVar[tuple[str, ...]] = (
        r"(module\.|model\.)*(?!(encoder|value_encoder|transformer_encoder|bn|dsbn|batch_encoder|module|model)\.)",
    )

    def __init__(self, config: ScGPTConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.pad_id, self.cls_id, self.pad_value = vocab[PAD], vocab[CLS], config.cls_value
        self.n_ids = 1 + max(*np.asarray(vocab.ids).tolist(), *vocab.special.values())
        self.gene = nn.Embedding(self.n_ids, config.dim)
        self.gene_norm = nn.LayerNorm(config.dim)
        self.value = ValueEncoder(config.dim, config.dropout)
        self.layers = nn.ModuleList(
            PostNormLayer(config.dim, config.heads, config.ffn_dim, dropout=config.dropout)
            for _ in range(config.layers)
        )

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> Self:
        """Build the model from `weights`, `config` (`args.json`) and `vocab` (`vocab.json`)."""
        config = ScGPTConfig.from_json(read_json(files["config"]), source=files["config"]).replace(**options)
        state = read_tensors(files["weights"])
        return cls.build(config, read_vocab(files["vocab"]), state, source=files["weights"])

    @classmethod
    def example_vocab(cls, config: ScGPTConfig) -> GeneVocab:
        """60,694 made-up symbols and the special tokens."""
        return make_vocab({f"GENE{i}": i for i in range(60_694)})

    @property
    def leading(self) -> int:
        """Only `<cls>` is read."""
        return 1

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """`<cls>`, then at most `max_length - 1` expressed genes with their bins, in the order of the block."""
        config, streams, lengths = self.config, block.streams(seed), np.diff(block.indptr)
        uniforms = np.zeros(len(block.counts))
        if config.ties == "random":
            uniforms = entry_uniforms(block.indptr, block.gene_ids, streams, _BINS)
        bins = quantile_bins(block.indptr, block.counts, uniforms, config.n_bins)
        if empty := int(np.sum(lengths == 0)):
            logger.warning("%d cells express no gene that scGPT knows: `<cls>` alone", empty)
        keys = np.arange(len(bins), dtype=np.float64)
        if config.overflow == "sample" and lengths.max(initial=0) >= config.max_length:
            keys = entry_uniforms(block.indptr, block.gene_ids, streams, _SAMPLE)
        keep = keep_smallest(block.indptr, keys, config.max_length - 1)
        return Tokens(block.indptr, block.gene_ids, bins).only(keep).framed(self.cls_id, value=config.cls_value)

    def inputs(self, batch: Batch) -> Tensor:
        """Sum of gene and value embeddings, shape `(cells, length, dim)`."""
        return self.gene_norm(self.gene(batch["ids"])) + self.value(batch["values"])

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Output of `<cls>`, divided by its L2 norm unless `normalize=False`; shape `(cells, dim)`."""
        return F.normalize(hidden[:, 0], dim=-1) if self.config.normalize else hidden[:, 0]


def read_vocab(path: Path) -> GeneVocab:
    """The genes of a published `vocab.json` (symbol to id).

    Raises
    ------
    ValueError
        The file is no table of distinct ids.
    """
    table = read_json(path)
    ids = list(table.values())
    if not ids or not all(type(i) is int and i >= 0 for i in ids) or len(set(ids)) < len(ids):
        msg = f"{path} should map gene symbols to distinct ids; it is no scGPT vocabulary."
        raise ValueError(msg)
    if max(ids) != len(ids) - 1:
        missing = min(set(range(len(ids))) - set(ids))
        msg = (
            f"{path} has {len(ids)} ids up to {max(ids)}, but none for row {missing} of the gene table; expected each row "
            "once. Genes are missing: take the published file."
        )
        raise ValueError(msg)
    return make_vocab(table)


def make_vocab(table: Mapping[str, int]) -> GeneVocab:
    """A vocabulary from symbols and ids; special tokens that are missing are appended in upstream's order."""
    table = dict(table)
    for token in (PAD, CLS, EOC):
        table.setdefault(token, 1 + max(table.values(), default=-1))
    special = {token: table.pop(token) for token in (PAD, CLS, EOC)}
    ids = np.fromiter(table.values(), dtype=np.int32, count=len(table))
    return GeneVocab(list(table), ids, kind="symbol", duplicates="keep", special=special)
