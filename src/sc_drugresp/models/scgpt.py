"""scGPT :cite:p:`Cui2024`: genes are tokens, expression bins within the cell their values, `<cls>` is the cell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.log import logger
from .._data import CountBlock, GeneVocab, Tokens, entry_uniforms
from .._data.bin_kernels import keep_smallest, prepend_token, quantile_bins
from .._nn import PostNormLayer, run_layers
from ._encoder import Batch, CellEncoder, _aligned
from ._weights import flat_state, read_json, read_state, rename, split_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

    from .._data import CountSource
    from .._data.vocab import GeneMode

PAD, CLS, EOC = "<pad>", "<cls>", "<eoc>"
_LARGEST_VALUE = 512.0
_BINS, _SAMPLE = 0, 1  # purposes of the random numbers of an entry


@dataclass(frozen=True)
class ScGPTConfig:
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

    dim: int = 512
    heads: int = 8
    layers: int = 12
    ffn_dim: int = 512
    dropout: float = 0.2
    cls_value: float = -2.0
    n_bins: int = 51
    max_length: int = 1200
    overflow: Literal["sample", "first"] = "sample"
    ties: Literal["random", "upper"] = "random"
    normalize: bool = True

    def __post_init__(self) -> None:
        for name, allowed in (("overflow", ("sample", "first")), ("ties", ("random", "upper"))):
            if getattr(self, name) not in allowed:
                msg = f"`{name}` must be one of {allowed}, found {getattr(self, name)!r}."
                raise ValueError(msg)
        if self.max_length < 2 or self.n_bins < 3:
            msg = f"scGPT needs max_length >= 2 and n_bins >= 3, found {self.max_length} and {self.n_bins}."
            raise ValueError(msg)

    @classmethod
    def from_json(cls, args: Mapping[str, Any], *, source: object = "args.json") -> ScGPTConfig:
        """Read the sizes from a published `args.json`.

        Raises
        ------
        ValueError
            A size is missing, or the file describes another kind of network.
        """
        names = {"dim": "embsize", "heads": "nheads", "layers": "nlayers", "ffn_dim": "d_hid"}
        missing = sorted(name for name in names.values() if not isinstance(args.get(name), int))
        if missing:
            msg = f"{source} does not state {', '.join(missing)}; it is no scGPT `args.json`."
            raise ValueError(msg)
        style = args.get("input_emb_style", "continuous")
        if style != "continuous":
            msg = f"{source} describes values embedded as {style!r}; only the published style 'continuous' is known."
            raise ValueError(msg)
        sizes = {ours: args[theirs] for ours, theirs in names.items()}
        return cls(**sizes, dropout=float(args.get("dropout", 0.2)), cls_value=float(args.get("pad_value", -2)))


class ValueEncoder(nn.Module):
    """A number to a vector: two linear layers and LayerNorm."""

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
    lora_targets: ClassVar[str] = r"layers\.\d+\.(attn\.[qkvo]|up|down)"

    def __init__(self, config: ScGPTConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.pad_id, self.cls_id = vocab[PAD], vocab[CLS]
        n_tokens = 1 + max(*np.asarray(vocab.ids).tolist(), *vocab.special.values())
        self.gene = nn.Embedding(n_tokens, config.dim)
        self.gene_norm = nn.LayerNorm(config.dim)
        self.value = ValueEncoder(config.dim, config.dropout)
        self.layers = nn.ModuleList(
            PostNormLayer(config.dim, config.heads, config.ffn_dim, dropout=config.dropout)
            for _ in range(config.layers)
        )

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> ScGPT:
        """Build the model from `weights`, `config` (`args.json`) and `vocab` (`vocab.json`)."""
        config = cls.configure(ScGPTConfig.from_json(read_json(files["config"]), source=files["config"]), options)
        vocab = read_vocab(files["vocab"])
        state = flat_state(read_state(files["weights"]), source=files["weights"])
        return cls.build(config, vocab, state, source=files["weights"])  # type: ignore[return-value]

    @classmethod
    def example_vocab(cls, config: ScGPTConfig) -> GeneVocab:
        """60,694 made-up symbols and the special tokens."""
        return make_vocab({f"GENE{i}": i for i in range(60_694)})

    @staticmethod
    def remap(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published names to ours; accepts the attention names with and without flash-attention.

        Everything outside the gene, value and transformer encoders is dropped, except batch normalization, which
        would change the embedding and is therefore left to be refused.
        """
        state = rename(state, {r"^(module\.|model\.)+": ""})
        dropped = sorted({name.split(".")[0] for name in state if not _NEEDED.match(name)})
        if dropped:
            logger.debug("not needed for an embedding and dropped: %s", ", ".join(dropped))
        state = rename({name: tensor for name, tensor in state.items() if _NEEDED.match(name)}, _RENAMES)
        return split_rows(state, r"attn\.(qkv)\.(?:weight|bias)$", ("q", "k", "v"))

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """`<cls>`, then at most `max_length - 1` expressed genes with their bins, in the order of the block."""
        config: ScGPTConfig = self.config
        streams = block.streams(seed)
        if config.ties == "random":
            uniforms = entry_uniforms(block.indptr, block.gene_ids, streams, _BINS)
        else:
            uniforms = np.zeros(len(block.counts))
        bins = quantile_bins(block.indptr, block.counts, uniforms, config.n_bins)
        limit, lengths = config.max_length - 1, np.diff(block.indptr)
        if np.any(lengths == 0):
            logger.warning("%d cells express no gene that scGPT knows: `<cls>` alone", int(np.sum(lengths == 0)))
        if config.overflow == "sample" and lengths.max(initial=0) > limit:
            keys = entry_uniforms(block.indptr, block.gene_ids, streams, _SAMPLE)
        else:
            keys = np.arange(len(bins), dtype=np.float64)
        return self._with_cls(block.indptr, block.gene_ids, bins, keep_smallest(block.indptr, keys, limit))

    def tokens_from_draws(
        self,
        data: AnnData | CountSource,
        uniforms: np.ndarray,
        sampled: np.ndarray | None = None,
        *,
        layer: str | None = None,
        genes: GeneMode = "exact",
    ) -> Tokens:
        """Tokens made from random numbers that were drawn elsewhere, to compare with other implementations.

        Parameters
        ----------
        data
            Annotated data, or a reader made from it.
        uniforms
            A number on [0, 1) for each expressed known gene of the first cell, of the second, and so on, in the order
            of the columns; shape `(n_entries,)`.
        sampled
            Positions among the expressed genes of each cell that a long cell keeps, in their order, shape
            `(n_cells, max_length - 1)`; a row of -1 keeps everything. `None` follows the option `overflow='first'`.
        layer, genes
            As in :meth:`tokenize`.

        Raises
        ------
        ValueError
            The draws do not fit the data.
        """
        blocks = list(_aligned(self, data, layer, genes).blocks())
        lengths = np.concatenate([np.diff(block.indptr) for block in blocks])
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.concatenate([block.gene_ids for block in blocks])
        if np.shape(uniforms) != ids.shape:
            msg = f"`uniforms` must have one number for each of {len(ids)} entries, found shape {np.shape(uniforms)}."
            raise ValueError(msg)
        counts = np.concatenate([block.counts for block in blocks])
        bins = quantile_bins(indptr, counts, np.asarray(uniforms, dtype=np.float64), self.config.n_bins)
        limit = self.config.max_length - 1
        if sampled is None:
            return self._with_cls(
                indptr, ids, bins, keep_smallest(indptr, np.arange(len(bins), dtype=np.float64), limit)
            )
        sampled = np.asarray(sampled)
        sampled = sampled if sampled.ndim == 2 else sampled.reshape(0, limit)
        chosen = np.all(sampled >= 0, axis=1, keepdims=True).ravel()
        if len(chosen) != len(lengths) or np.any(sampled.max(axis=1) >= lengths) or np.any(lengths[~chosen] > limit):
            msg = f"`sampled` must name {limit} positions in each of {len(lengths)} cells (-1: a cell that fits)."
            raise ValueError(msg)
        index = [
            start + positions if take else np.arange(start, stop)
            for start, stop, positions, take in zip(indptr[:-1], indptr[1:], sampled, chosen)
        ]
        order, kept = np.concatenate(index), np.cumsum([0, *(len(part) for part in index)])
        return self._with_cls(kept, ids[order], bins[order], np.ones(len(order), dtype=bool))

    def _with_cls(self, indptr: np.ndarray, ids: np.ndarray, bins: np.ndarray, keep: np.ndarray) -> Tokens:
        """Put `<cls>` before the kept entries of each cell."""
        return Tokens(*prepend_token(indptr, ids, bins, keep, self.cls_id, self.config.cls_value))

    def collate(self, tokens: Tokens) -> Batch:
        """`ids`, `values` and, when lengths differ, `keep`, each of shape `(cells, length)`."""
        if tokens.values is None:
            msg = "scGPT needs a value (an expression bin) for each token; these tokens have none."
            raise ValueError(msg)
        values = tokens.values.astype(np.float32, copy=False)
        batch = {
            "ids": torch.from_numpy(tokens.padded(tokens.ids, self.pad_id)).long(),
            "values": torch.from_numpy(tokens.padded(values, self.config.cls_value)),
        }
        lengths = tokens.lengths
        if len(lengths) and lengths.min() < lengths.max():
            batch["keep"] = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None])
        return batch

    def inputs(self, batch: Batch) -> Tensor:
        """Sum of gene and value embeddings: what enters the first layer, shape `(cells, length, dim)`."""
        return self.gene_norm(self.gene(batch["ids"])) + self.value(batch["values"])

    def hidden(self, batch: Batch) -> Tensor:
        """Output of the last layer for every token, shape `(cells, length, dim)`."""
        return self._layers(batch)

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Output of `<cls>`, divided by its L2 norm unless `normalize=False`; shape `(cells, dim)`."""
        return F.normalize(hidden[:, 0], dim=-1) if self.config.normalize else hidden[:, 0]

    def forward(self, batch: Batch) -> Tensor:
        """Cell embedding; the last layer is computed for `<cls>` only, which is exact."""
        return self.pool(self._layers(batch, last_queries=1), batch)

    def _layers(self, batch: Batch, last_queries: int | None = None) -> Tensor:
        return run_layers(
            self.layers,
            self.inputs(batch),
            batch.get("keep"),
            last_queries=last_queries,
            gradient_checkpointing=self.gradient_checkpointing,
        )


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
    return make_vocab(table)


def make_vocab(table: Mapping[str, int]) -> GeneVocab:
    """A vocabulary from symbols and ids; special tokens that are missing are appended in upstream's order."""
    table = dict(table)
    for token in (PAD, CLS, EOC):
        table.setdefault(token, 1 + max(table.values(), default=-1))
    special = {token: table.pop(token) for token in (PAD, CLS, EOC)}
    ids = np.fromiter(table.values(), dtype=np.int32, count=len(table))
    return GeneVocab(list(table), ids, kind="symbol", duplicates="keep", special=special)


_NEEDED = re.compile(r"(encoder|value_encoder|transformer_encoder|bn|dsbn|batch_encoder)\.")
_RENAMES = {
    r"^encoder\.embedding\.": "gene.",
    r"^encoder\.enc_norm\.": "gene_norm.",
    r"^value_encoder\.linear1\.": "value.first.",
    r"^value_encoder\.linear2\.": "value.second.",
    r"^value_encoder\.norm\.": "value.norm.",
    r"^transformer_encoder\.layers\.": "layers.",
    r"^(layers\.\d+)\.self_attn\.(?:_impl\.)?(?:Wqkv\.|in_proj_)": r"\1.attn.qkv.",
    r"^(layers\.\d+)\.self_attn\.(?:_impl\.)?out_proj\.": r"\1.attn.o.",
    r"^(layers\.\d+)\.self_attn\.([qkv])_proj\.": r"\1.attn.\2.",
    r"^(layers\.\d+)\.linear1\.": r"\1.up.",
    r"^(layers\.\d+)\.linear2\.": r"\1.down.",
    r"^(layers\.\d+)\.norm1\.": r"\1.attn_norm.",
    r"^(layers\.\d+)\.norm2\.": r"\1.ffn_norm.",
}
