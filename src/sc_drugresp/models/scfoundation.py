"""scFoundation :cite:p:`Hao2024`: every expressed gene is a token with a continuous value; two more give the depth."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._data import CountBlock, CountSource, GeneVocab, Tokens, read_counts
from .._data.bin_kernels import keep_smallest
from .._data.kernels import restrict_rows
from .._nn import PostNormLayer
from ._config import Config, size
from ._encoder import Batch, CellEncoder
from ._files import read_json, read_text
from ._layouts import TORCH_ENCODER
from ._weights import flat_state, read_sizes, read_state

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


_DEPTH = re.compile(r"([tfa])([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)")


@dataclass(frozen=True)
class ScFoundationConfig(Config):
    """Sizes of the published networks, and options.

    Parameters
    ----------
    width, heads, layers, ffn_dim, dropout
        Sizes of the encoder; `dropout` acts in training only.
    bin_num, bin_alpha
        Learned bins that a value is spread over, and the weight of their first layer.
    seq_len
        Genes plus two: the target depth T and the source depth S.
    mask_value, pad_value
        Values that stand for a masked and a padding entry.
    key
        Which of the three networks of the file: `'cell'`, `'rde'` (read-depth enhancement) or `'gene'`.
    depth
        Target depth: `'t4'` is 10^4 counts, `'f2.5'` is 2.5 times those of the cell, `'a5'` adds 5 to their log10.
    pooling
        `'all'` joins S, T, maximum and mean over genes (4 x width); `'max'` is the maximum over all tokens (width).
    values
        What the matrix holds: raw `'counts'`, or `'log1p'` of counts per 10,000 that are used as they are.
    max_genes
        Keep the most expressed genes of a cell, for fine-tuning with little memory; `None` keeps all, as published.
    """

    width: int = size(768)
    heads: int = size(12, divides="width")
    layers: int = size(12)
    ffn_dim: int = size(3072)
    dropout: float = 0.1
    bin_num: int = size(100)
    bin_alpha: float = 1.0
    seq_len: int = size(19_266, least=3)
    mask_value: float = 102.0
    pad_value: float = 103.0
    key: Literal["cell", "rde", "gene"] = "cell"
    depth: str = "t4"
    pooling: Literal["all", "max"] = "all"
    values: Literal["counts", "log1p"] = "counts"
    max_genes: int | None = size(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        match = _DEPTH.fullmatch(self.depth)
        if match is None or (match[1] != "a" and float(match[2]) <= 0):
            msg = f"`depth` must be 't', 'f' (with a positive number) or 'a' and a number, e.g. 't4'; found {self.depth!r}."
            raise ValueError(msg)

    @property
    def dim(self) -> int:
        """Width of the embedding."""
        return 4 * self.width if self.pooling == "all" else self.width

    @classmethod
    def from_published(cls, config: Mapping[str, Any], *, source: object = "models.ckpt") -> Self:
        """Read the sizes from the nested configuration in the published file.

        Raises
        ------
        ValueError
            A size is missing, or the configuration describes another kind of network.
        """
        try:
            flat = dict(config)
            if "model_config" in flat:
                flat = {**flat["model_config"][flat["model"]], **flat.get("dataset_config", {}).get("rnaseq", {})}
            encoder = dict(flat.get("encoder", {}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            msg = f"{source}: the configuration is not a table with `encoder` and its sizes; found {config!r:.80}."
            raise ValueError(msg) from error
        kind = encoder.get("module_type", "transformer")
        if kind != "transformer" or encoder.get("norm_first", False):
            msg = f"{source} describes another encoder ({kind!r}, norm_first={encoder.get('norm_first')})."
            raise ValueError(msg)
        sizes = read_sizes(encoder, {"width": "hidden_dim", "heads": "heads", "layers": "depth"}, source=source)
        names = {"bin_num": "bin_num", "bin_alpha": "bin_alpha", "seq_len": "seq_len"}
        names |= {"mask_value": "mask_token_id", "pad_value": "pad_token_id"}
        sizes |= read_sizes(flat, names, source=source)
        return cls.stated(source, **sizes, ffn_dim=4 * sizes["width"])


class ValueEncoder(nn.Module):
    """Maps a number to a weighted mean of learned bin vectors; two special numbers have vectors of their own."""

    def __init__(self, config: ScFoundationConfig) -> None:
        super().__init__()
        self.alpha, self.mask_value, self.pad_value = config.bin_alpha, config.mask_value, config.pad_value
        self.first, self.second = nn.Linear(1, config.bin_num), nn.Linear(config.bin_num, config.bin_num)
        self.bins = nn.Embedding(config.bin_num, config.width)
        self.mask: Tensor
        self.pad: Tensor
        self.register_buffer("mask", torch.zeros(1, config.width))  # constants: no gene of a cell has these values
        self.register_buffer("pad", torch.zeros(1, config.width))

    def weights(self, values: Tensor) -> Tensor:
        """Share of each bin in each value; one more dimension than `values`."""
        x = F.leaky_relu(self.first(values.unsqueeze(-1)), 0.1)
        return torch.softmax(self.alpha * x + self.second(x), dim=-1)

    def forward(self, values: Tensor) -> Tensor:
        """Vectors of shape `(*values.shape, width)`."""
        x = self.weights(values) @ self.bins.weight
        special = values.unsqueeze(-1)
        return torch.where(special == self.mask_value, self.mask, torch.where(special == self.pad_value, self.pad, x))


class ScFoundation(CellEncoder):
    """The scFoundation encoder :cite:p:`Hao2024`.

    Tokens are all expressed genes of a fixed list with their log-normalized counts, then the target depth T and the
    source depth S (log10 of the cell's counts in the list). The embedding joins the outputs of S and T with the maximum
    and the mean over the genes. Cells with at most one count in the list have no source depth (log10 of it is not
    positive): upstream fails on them, here their rows are NaN. The decoder for gene-level output is not loaded.
    """

    Config = ScFoundationConfig
    reads_values: ClassVar[bool] = True
    renames: ClassVar[Mapping[str, str]] = {
        r"^(module\.|.*?model\.)+": "",
        r"^encoder\.norm\.": "final_norm.",
        r"^token_emb\.mlp\.": "value.first.",
        r"^token_emb\.mlp2\.": "value.second.",
        r"^token_emb\.emb\.": "value.bins.",
        r"^token_emb\.emb_(mask|pad)\.weight$": r"value.\1",
        r"^pos_emb\.": "gene.",
        r"^encoder\.transformer_encoder\.": "layers.",
        **TORCH_ENCODER,
    }
    dropped: ClassVar[tuple[str, ...]] = (r"(.*?model\.|module\.)*(decoder_embed|decoder|norm|to_final)\.",)

    def __init__(self, config: ScFoundationConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        if len(vocab) != config.seq_len - 2:
            msg = (
                f"The gene list has {len(vocab)} genes, but the network was made for {config.seq_len - 2}. "
                "Use the gene list that was published with the weights."
            )
            raise ValueError(msg)
        self.target_id, self.source_id, self.pad_id = len(vocab), len(vocab) + 1, len(vocab) + 2
        self.pad_value, self.n_ids = config.pad_value, config.seq_len + 1
        self.expects = "counts" if config.values == "counts" else "any"
        self.value = ValueEncoder(config)
        self.gene = nn.Embedding(config.seq_len + 1, config.width)
        self.layers = nn.ModuleList(
            PostNormLayer(config.width, config.heads, config.ffn_dim, dropout=config.dropout)
            for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(config.width)

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> Self:
        """Build one network of `weights` (`models.ckpt`) with the gene list `genes`; `config` only for safetensors."""
        state, published = _network(files, ScFoundationConfig().replace(**options).key)
        config = ScFoundationConfig.from_published(published, source=files["weights"]).replace(**options)
        both = f"{files['weights']} with {files['genes']}"
        return cls.build(config, read_genes(files["genes"]), state, source=both)

    @classmethod
    def example_vocab(cls, config: ScFoundationConfig) -> GeneVocab:
        """As many made-up symbols as the network has genes."""
        return GeneVocab([f"GENE{i}" for i in range(config.seq_len - 2)])

    def read(self, data: AnnData, layer: str | None) -> CountSource:
        """Raw counts, or with `values='log1p'` the matrix as it is."""
        return read_counts(data, layer=layer if self.expects == "counts" else layer or "X", expect=self.expects)

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Values of the expressed genes by increasing id, then T and S; nothing is random."""
        n_genes = len(self.vocab)
        ranks, counts = np.arange(n_genes, dtype=np.int32), block.counts.astype(np.float64)
        indptr, ids, x, totals = restrict_rows(block.indptr, block.gene_ids, counts, ranks, n_genes)
        if self.config.values == "counts":  # the sum runs over the genes of the list only
            x = np.log1p(x / np.repeat(totals, np.diff(indptr)) * 1e4)
        kind, number = self.config.depth[0], float(self.config.depth[1:])
        with np.errstate(divide="ignore"):
            source = np.log10(totals)
            scaled = np.log10(totals * number) if kind == "f" else source + number
        return self.assemble(indptr, ids, x, np.full_like(source, number) if kind == "t" else scaled, source)

    def assemble(
        self, indptr: np.ndarray, ids: np.ndarray, values: np.ndarray, target: np.ndarray, source: np.ndarray
    ) -> Tokens:
        """Tokens from values and depths of your own: bulk profiles, other normalizations, other depths.

        Parameters
        ----------
        indptr, ids, values
            CSR rows: position of each gene in the list, increasing, and its value; values must be positive to count.
        target, source
            T and S of each cell, shape `(n_cells,)`. Upstream's bulk mode gives both the same number.

        Returns
        -------
        Genes by increasing id, T, S. A cell with a T or S that is not positive, or without a gene, has no tokens.
        """
        x = np.asarray(values, dtype=np.float64).astype(np.float32)  # rounded once, as upstream does
        depths = np.column_stack([target, source]).astype(np.float32)
        row = np.repeat(np.arange(len(depths)), np.diff(indptr))
        keep = (x > 0) & (depths.min(axis=1) > 0)[row]
        genes = Tokens(indptr, ids, x).only(keep)
        if self.config.max_genes is not None:
            order = -np.asarray(genes.values, dtype=np.float64)
            genes = genes.only(keep_smallest(genes.indptr, order, self.config.max_genes))
        filled = genes.lengths > 0
        ends = np.repeat(genes.indptr[1:][filled], 2)
        return Tokens(
            genes.indptr + 2 * np.concatenate([[0], np.cumsum(filled)]),
            np.insert(genes.ids, ends, np.tile([self.target_id, self.source_id], filled.sum())),
            np.insert(np.asarray(genes.values), ends, depths[filled].ravel()),
        )

    def embeddable(self, tokens: Tokens) -> np.ndarray:
        """Cells with at least one gene and with T and S at the end."""
        usable = tokens.lengths >= 3
        ends = tokens.indptr[1:][usable]
        usable[usable] = (tokens.ids[ends - 2] == self.target_id) & (tokens.ids[ends - 1] == self.source_id)
        return usable

    def inputs(self, batch: Batch) -> Tensor:
        """Sum of value and gene embeddings, shape `(cells, length, width)`."""
        return self.value(batch["values"]) + self.gene(batch["ids"])

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """S, T, maximum and mean over the genes (`'all'`), or the maximum over all tokens (`'max'`)."""
        length = batch["length"][:, None]
        place = torch.arange(hidden.shape[1], device=hidden.device)
        if self.config.pooling == "max":
            return hidden.masked_fill((place >= length).unsqueeze(-1), -torch.inf).amax(1)
        other = (place >= length - 2).unsqueeze(-1)  # T, S and padding
        mean = hidden.masked_fill(other, 0.0).sum(1) / (length - 2)
        maximum = hidden.masked_fill(other, -torch.inf).amax(1)
        cells, last = torch.arange(hidden.shape[0], device=hidden.device), batch["length"] - 1
        return torch.cat([hidden[cells, last], hidden[cells, last - 1], maximum, mean], dim=-1)


def read_genes(path: Path) -> GeneVocab:
    """The gene list: a table with the columns `gene_name` and `index`, numbered from 0 in the order of the file.

    Raises
    ------
    ValueError
        The file is no such list.
    """
    try:
        table = csv.DictReader(read_text(path).splitlines(), delimiter="\t")
        rows = [(row["gene_name"], int(row["index"])) for row in table]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        msg = f"{path} should be a tab-separated list with the columns gene_name and index ({error!r})."
        raise ValueError(msg) from error
    names, index = [name for name, _ in rows], [i for _, i in rows]
    if not rows or index != list(range(len(rows))) or len(set(names)) < len(names):
        msg = f"{path} should name each gene once and number them from 0; it is not scFoundation's gene list."
        raise ValueError(msg)
    return GeneVocab(names, kind="symbol", duplicates="sum")


def _network(files: Mapping[str, Path], key: str) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Tensors and configuration of one of the three networks."""
    path = files["weights"]
    content = read_state(path)
    content = content if isinstance(content, Mapping) else {}
    if any(isinstance(value, Tensor) for value in content.values()):  # one network alone, converted to plain tensors
        if "config" not in files:
            msg = f"{path} holds tensors without their configuration. Put it beside the file as config.json."
            raise ValueError(msg)
        return flat_state(content, source=path), read_json(files["config"])
    entry = content if "state_dict" in content else content.get(key)
    if not isinstance(entry, Mapping) or not {"state_dict", "config"} <= entry.keys():
        found = sorted(map(str, content))
        msg = f"{path} has no network {key!r} with `config` and `state_dict`; found the keys {found}."
        raise ValueError(msg)
    return flat_state(entry["state_dict"], source=path), entry["config"]
