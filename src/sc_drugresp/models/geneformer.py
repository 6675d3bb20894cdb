"""Geneformer :cite:p:`Theodoris2023`: a cell is its genes in order of scaled expression, read by a BERT."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._data import GeneVocab, Tokens
from .._data.rank_kernels import rank_by_value
from .._nn import PostNormLayer, mean_between
from ._config import Config, setting, size
from ._encoder import Batch, CellEncoder
from ._files import read_json
from ._layouts import BERT, BERT_DROPPED
from ._network import check_tokens
from ._pickles import read_pickled_dict
from ._weights import check_token_ids, read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .._data import CountBlock

_LAYER = re.compile(r"(?:bert\.)?encoder\.layer\.(\d+)\.")


@dataclass(frozen=True)
class GeneformerConfig(Config):
    """Sizes (by default those of V2-104M) and options of :class:`Geneformer`.

    Parameters
    ----------
    dim, heads, layers, ffn_dim, positions, vocab_size, type_vocab_size, eps, activation
        Sizes of the published network.
    dropout, attn_dropout
        Rates while training.
    pad_id, cls_id, eos_id
        Special tokens; V1 has neither `<cls>` nor `<eos>`.
    pooling
        `'cls'`: the first position, only with a `<cls>` token. `'cell'`: the mean over the genes of the cell.
        `'padded'`: the mean over all positions of a sequence padded without a mask, as scDrugMap computes it.
    emb_layer
        Layer to read, counted from the last one: 0 is the last, -1 the second to last (upstream's default).
    max_length
        Longest sequence, special tokens included; `None` is the number of positions.
    totals
        Precision of the total counts that upstream finds in `.obs["n_counts"]`; decides near-ties only.
    """

    dim: int = size(768, "hidden_size")
    heads: int = size(12, "num_attention_heads", divides="dim")
    layers: int = size(12, "num_hidden_layers")
    ffn_dim: int = size(3072, "intermediate_size")
    positions: int = size(4096, "max_position_embeddings")
    vocab_size: int = size(20275, "vocab_size")
    type_vocab_size: int = size(2, "type_vocab_size", required=False)
    eps: float = setting(1e-12, "layer_norm_eps")
    activation: Literal["relu", "gelu"] = setting("relu", "hidden_act")
    dropout: float = setting(0.1, "hidden_dropout_prob")
    attn_dropout: float = setting(0.1, "attention_probs_dropout_prob")
    pad_id: int = 0
    cls_id: int | None = 2
    eos_id: int | None = 3
    pooling: Literal["cls", "cell", "padded"] = "cls"
    emb_layer: int = -1
    max_length: int | None = None
    totals: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling == "cls" and self.cls_id is None:
            msg = "pooling='cls' needs a checkpoint with a <cls> token (V2), this one has none. Use pooling='cell'."
            raise ValueError(msg)
        if not -self.layers <= self.emb_layer <= 0:
            msg = f"`emb_layer` must lie between {-self.layers} (the input) and 0 (the last layer), found {self.emb_layer}."
            raise ValueError(msg)
        if not self.n_special < self.length_limit <= self.positions:
            msg = f"`max_length` must lie between {self.n_special + 1} and {self.positions}, found {self.max_length}."
            raise ValueError(msg)

    @property
    def depth(self) -> int:
        """Layers that the embedding needs."""
        return self.layers + self.emb_layer

    @property
    def length_limit(self) -> int:
        """Longest sequence, special tokens included."""
        return self.positions if self.max_length is None else self.max_length

    @property
    def n_special(self) -> int:
        """Special tokens of each sequence."""
        return (self.cls_id is not None) + (self.eos_id is not None)


class Geneformer(CellEncoder):
    """Geneformer V1 and V2: BERT over the genes of a cell, ordered by expression relative to the gene's usual one.

    Counts are scaled by the total of the cell and the median of the gene over the pretraining corpus; the network sees
    the order alone. Only the layers below the one that is read are built, and with `pooling='cls'` the last of them
    computes its first position only. A cell without a known gene has no embedding (NaN).

    Attributes
    ----------
    medians
        Non-zero median of each token's gene over the pretraining corpus, shape `(vocab_size,)`, float64.
    """

    Config = GeneformerConfig
    renames: ClassVar[Mapping[str, str]] = BERT
    dropped: ClassVar[tuple[str, ...]] = BERT_DROPPED

    def __init__(self, config: GeneformerConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.pad_id, self.n_ids, self.longest = config.pad_id, config.vocab_size, config.positions
        self.min_tokens = config.n_special + 1
        self.word = nn.Embedding(config.vocab_size, config.dim)
        self.position = nn.Embedding(config.positions, config.dim)
        self.token_type = nn.Embedding(config.type_vocab_size, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.drop = nn.Dropout(config.dropout)
        rates = {"dropout": config.dropout, "attn_dropout": config.attn_dropout, "inner_dropout": 0.0}
        activation: Any = {"relu": torch.relu_, "gelu": F.gelu}[config.activation]
        self.layers = nn.ModuleList(
            PostNormLayer(config.dim, config.heads, config.ffn_dim, **rates, eps=config.eps, activation=activation)
            for _ in range(config.depth)
        )
        self.medians = np.ones(config.vocab_size)

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> Self:
        """Build from `config`, `weights`, `tokens`, `medians` and, if there is one, `mapping`.

        Raises
        ------
        ValueError
            A file is damaged or of another model, or the files do not belong together.
        TypeError
            There is no such option.
        """
        ids = read_pickled_dict(files["tokens"], int)
        config = _config(files, ids).replace(**options)
        state = read_tensors(files["weights"])
        model = cls.build(config, _vocabulary(files, ids), state, source=files["weights"])
        published = read_pickled_dict(files["medians"], float)
        genes = {name: token for name, token in ids.items() if not name.startswith("<")}
        if missing := sorted(genes.keys() - published.keys()):
            msg = (
                f"{files['medians']} has no median for {len(missing)} of the genes in {files['tokens']} "
                f"(such as {missing[0]}). Take both files from the same release."
            )
            raise ValueError(msg)
        model.medians[list(genes.values())] = [published[name] for name in genes]
        return model

    @classmethod
    def build(cls, config: Any, vocab: GeneVocab, state: Mapping[str, Tensor], *, source: object) -> Self:
        """Build on the `meta` device and load strictly; layers above the one that is read are left in the file."""
        found = 1 + max((int(match[1]) for match in map(_LAYER.match, state) if match), default=-1)
        if 0 < found < config.layers:
            msg = f"{source} has {found} layers, expected {config.layers}: tensors are missing. Download it again."
            raise ValueError(msg)
        unused = tuple(f"encoder.layer.{i}." for i in range(config.depth, config.layers))
        state = {name: tensor for name, tensor in state.items() if not name.removeprefix("bert.").startswith(unused)}
        return super().build(config, vocab, state, source=source)

    @classmethod
    def example_vocab(cls, config: GeneformerConfig) -> GeneVocab:
        """Made-up Ensembl ids in the place of the published ones."""
        special = {"<pad>": config.pad_id, "<mask>": 1, "<cls>": config.cls_id, "<eos>": config.eos_id}
        taken = {name: token for name, token in special.items() if token is not None}
        ids = np.setdiff1d(np.arange(config.vocab_size), list(taken.values()))
        names = [f"ENSG{i:011d}" for i in ids]
        return GeneVocab(names, ids, kind="ensembl", duplicates="collapse", fold_case=True, special=taken)

    @property
    def leading(self) -> int | None:
        """Only `<cls>` is read with `pooling='cls'`."""
        return 1 if self.config.pooling == "cls" else None

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """The highest-ranked genes between `<cls>` and `<eos>` where the checkpoint has them.

        Equal values keep the order of the columns with `genes="exact"`, and follow the token id with `genes="auto"`.
        """
        config = self.config
        limit, narrow = config.length_limit - config.n_special, config.totals == "float32"
        counts = (block.indptr, block.gene_ids, block.counts, block.totals)
        indptr, ids, _ = rank_by_value(*counts, 1.0 / self.medians, limit, narrow)
        return Tokens(indptr, ids).framed(config.cls_id, config.eos_id)

    def sizes(self, tokens: Tokens) -> np.ndarray:
        """Length of each sequence; all positions with `pooling='padded'`."""
        return np.full(len(tokens), self.config.positions) if self.config.pooling == "padded" else tokens.lengths

    def collate(self, tokens: Tokens) -> Batch:
        """As for all models; with `pooling='padded'` as many positions as the network has, without a mask."""
        if self.config.pooling != "padded":
            return super().collate(tokens)
        check_tokens(self, tokens)
        ids = tokens.padded(tokens.ids, self.pad_id, width=self.config.positions)
        return {"ids": torch.from_numpy(ids).long(), "length": torch.from_numpy(tokens.lengths)}

    def inputs(self, batch: Batch) -> Tensor:
        """Sum of token, position and type embeddings, normalized, shape `(cells, length, dim)`."""
        ids = batch["ids"]
        x = self.word(ids) + (self.position.weight[: ids.shape[1]] + self.token_type.weight[0])
        return self.drop(self.norm(x))

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """First position, or mean over the genes (special tokens and padding excluded), shape `(cells, dim)`."""
        if self.config.pooling == "cls":
            return hidden[:, 0]
        if self.config.pooling == "padded":
            return hidden.mean(dim=1)
        first, after = int(self.config.cls_id is not None), int(self.config.eos_id is not None)
        return mean_between(hidden, first, batch["length"] - after)


def _config(files: Mapping[str, Path], ids: Mapping[str, int]) -> GeneformerConfig:
    """Sizes from `config.json`, special tokens from the token dictionary."""
    path = files["config"]
    published = read_json(path)
    kind = (published.get("model_type", "bert"), published.get("position_embedding_type", "absolute"))
    if kind != ("bert", "absolute"):
        msg = (
            f"{path} describes a {kind[0]!r} model with {kind[1]!r} positions; Geneformer is a BERT with absolute ones."
        )
        raise ValueError(msg)
    sizes = GeneformerConfig.read_published(published, source=path)
    hint = (
        "V1 networks need the dictionaries `gc30M` (model names 'geneformer.v1-...'), V2 networks those named `gc104M`."
    )
    check_token_ids(ids, sizes["vocab_size"], source=files["tokens"], network=path, hint=hint)
    return GeneformerConfig.stated(
        path,
        **sizes,
        pad_id=ids.get("<pad>", 0),
        cls_id=ids.get("<cls>"),
        eos_id=ids.get("<eos>"),
        pooling="cls" if "<cls>" in ids else "cell",
    )


def _vocabulary(files: Mapping[str, Path], ids: Mapping[str, int]) -> GeneVocab:
    """Genes that can be reached through the published mapping, and the retired ids that lead to them."""
    special = {name: token for name, token in ids.items() if name.startswith("<")}
    genes = [name for name in ids if name not in special]
    mapping = {name: name for name in genes}
    if "mapping" in files:
        mapping = read_pickled_dict(files["mapping"], str)
    names = [name for name in genes if mapping.get(name) == name]
    synonyms = {name: target for name, target in mapping.items() if name != target and target in ids}
    names += sorted(set(synonyms.values()) - set(names))  # current ids that only retired ones lead to
    tokens = np.array([ids[name] for name in names])
    return GeneVocab(names, tokens, "ensembl", "collapse", fold_case=True, synonyms=synonyms, special=special)
