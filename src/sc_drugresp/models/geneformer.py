"""Geneformer :cite:p:`Theodoris2023`: a cell is its genes in order of scaled expression, read by a BERT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._data import GeneVocab, Tokens
from .._data.rank_kernels import rank_by_value
from .._nn import PostNormLayer, run_layers
from ._encoder import Batch, CellEncoder
from ._weights import flat_state, read_json, read_pickled_dict, read_state, rename

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .._data import CountBlock

Pooling = Literal["cls", "cell", "padded"]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


@dataclass(frozen=True)
class GeneformerConfig:
    """Sizes (those of V2-104M unless files say otherwise) and options of :class:`Geneformer`.

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

    dim: int = 768
    heads: int = 12
    layers: int = 12
    ffn_dim: int = 3072
    positions: int = 4096
    vocab_size: int = 20275
    type_vocab_size: int = 2
    eps: float = 1e-12
    activation: str = "relu"
    dropout: float = 0.1
    attn_dropout: float = 0.1
    pad_id: int = 0
    cls_id: int | None = 2
    eos_id: int | None = 3
    pooling: Pooling = "cls"
    emb_layer: int = -1
    max_length: int | None = None
    totals: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        if self.activation not in _ACTIVATIONS:
            msg = f"The activation of Geneformer must be one of {sorted(_ACTIVATIONS)}, found {self.activation!r}."
            raise ValueError(msg)
        if self.pooling not in get_args(Pooling):
            msg = f"`pooling` must be one of {get_args(Pooling)}, found {self.pooling!r}."
            raise ValueError(msg)
        if self.pooling == "cls" and self.cls_id is None:
            msg = "pooling='cls' needs a checkpoint with a <cls> token (V2), this one has none. Use pooling='cell'."
            raise ValueError(msg)
        if not -self.layers <= self.emb_layer <= 0:
            msg = f"`emb_layer` must lie between {-self.layers} (the input) and 0 (the last layer), found {self.emb_layer}."
            raise ValueError(msg)
        if not self.n_special < self.length_limit <= self.positions:
            msg = f"`max_length` must lie between {self.n_special + 1} and {self.positions}, found {self.max_length}."
            raise ValueError(msg)
        if self.totals not in {"float32", "float64"}:
            msg = f"`totals` must be 'float32' or 'float64', found {self.totals!r}."
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

    Config: ClassVar[type] = GeneformerConfig
    config: GeneformerConfig

    def __init__(self, config: GeneformerConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.word = nn.Embedding(config.vocab_size, config.dim)
        self.position = nn.Embedding(config.positions, config.dim)
        self.token_type = nn.Embedding(config.type_vocab_size, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            PostNormLayer(
                config.dim,
                config.heads,
                config.ffn_dim,
                dropout=config.dropout,
                attn_dropout=config.attn_dropout,
                inner_dropout=0.0,
                eps=config.eps,
                activation=_ACTIVATIONS[config.activation],
            )
            for _ in range(config.depth)
        )
        self.medians = np.ones(config.vocab_size)

    # Files --------------------------------------------------------------------------------------------------------

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> Geneformer:
        """Build from `config`, `weights`, `tokens`, `medians` and, if there is one, `mapping`.

        Raises
        ------
        ValueError
            A file is damaged or of another model, or the files do not belong together.
        TypeError
            There is no such option.
        """
        ids = {str(name): int(token) for name, token in read_pickled_dict(files["tokens"]).items()}
        config = cls.configure(_config(files, ids), options)
        medians = np.ones(config.vocab_size)
        published = read_pickled_dict(files["medians"])
        missing = [name for name in ids if not name.startswith("<") and name not in published]
        if missing:
            msg = (
                f"{files['medians']} has no median for {len(missing)} of the genes in {files['tokens']} "
                f"(such as {missing[0]}). Take both files from the same release."
            )
            raise ValueError(msg)
        for name, token in ids.items():
            if not name.startswith("<"):
                medians[token] = published[name]
        state = flat_state(read_state(files["weights"]), source=files["weights"])
        model = cls.build(config, _vocabulary(files, ids), state, source=files["weights"])
        model.medians = medians
        return model

    @classmethod
    def build(cls, config: Any, vocab: GeneVocab, state: Mapping[str, Tensor], *, source: object) -> Geneformer:
        """Build on the `meta` device and load strictly; layers above the one that is read are left in the file."""
        unused = tuple(f"encoder.layer.{i}." for i in range(config.depth, config.layers))
        state = {name: tensor for name, tensor in state.items() if not name.removeprefix("bert.").startswith(unused)}
        model = super().build(config, vocab, state, source=source)
        assert isinstance(model, cls)
        return model

    @classmethod
    def example_vocab(cls, config: GeneformerConfig) -> GeneVocab:
        """Made-up Ensembl ids in the place of the published ones."""
        special = {"<pad>": config.pad_id, "<mask>": 1}
        special |= {} if config.cls_id is None else {"<cls>": config.cls_id}
        special |= {} if config.eos_id is None else {"<eos>": config.eos_id}
        ids = np.setdiff1d(np.arange(config.vocab_size), list(special.values()))
        names = [f"ENSG{i:011d}" for i in ids]
        return GeneVocab(names, ids, kind="ensembl", duplicates="collapse", fold_case=True, special=special)

    @staticmethod
    def remap(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Hugging Face's names to ours; the masked-LM head, pooler, classifier and index buffers are dropped."""
        return rename(state, RENAMES, drop=DROPPED)

    # Tokens -------------------------------------------------------------------------------------------------------

    def rank(self, block: CountBlock, *, limit: int | None = None) -> Tokens:
        """Genes of each cell by decreasing scaled expression, without special tokens.

        Parameters
        ----------
        block
            Counts.
        limit
            Most genes of a cell; `None` keeps all.

        Returns
        -------
        Token ids, with the values (float64) that they were ranked by. Equal values keep the order of the columns with
        `genes="exact"`, and follow the token id with `genes="auto"`.
        """
        indptr, ids, values = rank_by_value(
            block.indptr,
            block.gene_ids,
            block.counts,
            block.totals,
            1.0 / self.medians,
            self.config.vocab_size if limit is None else limit,
            self.config.totals == "float32",
        )
        return Tokens(indptr, ids, values)

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """The highest-ranked genes between `<cls>` and `<eos>` where the checkpoint has them."""
        config = self.config
        ranked = self.rank(block, limit=config.length_limit - config.n_special)
        if config.n_special == 0:
            return Tokens(ranked.indptr, ranked.ids)
        indptr = ranked.indptr + config.n_special * np.arange(len(ranked.indptr))
        ids = np.empty(indptr[-1], dtype=np.int32)
        gene = np.ones(len(ids), dtype=bool)
        for token, place in ((config.cls_id, indptr[:-1]), (config.eos_id, indptr[1:] - 1)):
            if token is not None:
                ids[place], gene[place] = token, False
        ids[gene] = ranked.ids
        return Tokens(indptr, ids)

    def embeddable(self, tokens: Tokens) -> np.ndarray:
        """Cells with at least one gene."""
        return tokens.lengths > self.config.n_special

    def sizes(self, tokens: Tokens) -> np.ndarray:
        """Length of each sequence; all positions with `pooling='padded'`."""
        return np.full(len(tokens), self.config.positions) if self.config.pooling == "padded" else tokens.lengths

    def collate(self, tokens: Tokens) -> Batch:
        """`ids` `(cells, length)`, `length` `(cells,)`, and the mask `keep` where there is padding to hide."""
        config, lengths = self.config, tokens.lengths
        if lengths.max(initial=0) > config.positions:
            msg = f"A sequence has {lengths.max()} tokens; this checkpoint has {config.positions} positions."
            raise ValueError(msg)
        if len(tokens.ids) and not 0 <= tokens.ids.min() <= tokens.ids.max() < config.vocab_size:
            msg = f"Token ids must lie between 0 and {config.vocab_size - 1}, found up to {tokens.ids.max()}."
            raise ValueError(msg)
        padded = config.pooling == "padded"
        ids = tokens.padded(tokens.ids, config.pad_id, width=config.positions if padded else None)
        batch = {"ids": torch.from_numpy(ids).long(), "length": torch.from_numpy(lengths)}
        if not padded and len(lengths) and lengths.min() < ids.shape[1]:
            batch["keep"] = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])
        return batch

    # Network ------------------------------------------------------------------------------------------------------

    def inputs(self, batch: Batch) -> Tensor:
        """What enters the first layer, shape `(cells, length, dim)`."""
        ids = batch["ids"]
        x = self.word(ids) + (self.position.weight[: ids.shape[1]] + self.token_type.weight[0])
        return self.drop(self.norm(x))

    def hidden(self, batch: Batch) -> Tensor:
        """Output of layer `layers + emb_layer` for every position, shape `(cells, length, dim)`."""
        return self._run(batch, None)

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """First position, or mean over the genes (special tokens and padding excluded), shape `(cells, dim)`."""
        if self.config.pooling == "cls":
            return hidden[:, 0]
        if self.config.pooling == "padded":
            return hidden.mean(dim=1)
        start, stop = int(self.config.cls_id is not None), batch["length"] - int(self.config.eos_id is not None)
        place = torch.arange(hidden.shape[1], device=hidden.device)
        gene = (place >= start) & (place < stop[:, None])
        weight = gene.to(hidden.dtype) / (stop - start).clamp(min=1)[:, None].to(hidden.dtype)
        return (weight[:, None] @ hidden)[:, 0]

    def forward(self, batch: Batch) -> Tensor:
        """Cell embedding, shape `(cells, dim)`; with `pooling='cls'` the last layer computes one position."""
        return self.pool(self._run(batch, 1 if self.config.pooling == "cls" else None), batch)

    def _run(self, batch: Batch, last_queries: int | None) -> Tensor:
        return run_layers(
            self.layers,
            self.inputs(batch),
            batch.get("keep"),
            last_queries=last_queries,
            gradient_checkpointing=self.gradient_checkpointing,
        )


RENAMES = {
    r"^bert\.": "",
    r"\.gamma$": ".weight",  # names of early transformers releases
    r"\.beta$": ".bias",
    r"^embeddings\.word_embeddings\.": "word.",
    r"^embeddings\.position_embeddings\.": "position.",
    r"^embeddings\.token_type_embeddings\.": "token_type.",
    r"^embeddings\.LayerNorm\.": "norm.",
    r"^encoder\.layer\.": "layers.",
    r"\.attention\.self\.query\.": ".attn.q.",
    r"\.attention\.self\.key\.": ".attn.k.",
    r"\.attention\.self\.value\.": ".attn.v.",
    r"\.attention\.output\.dense\.": ".attn.o.",
    r"\.attention\.output\.LayerNorm\.": ".attn_norm.",
    r"\.intermediate\.dense\.": ".up.",
    r"\.output\.dense\.": ".down.",
    r"\.output\.LayerNorm\.": ".ffn_norm.",
}
DROPPED = (
    r"cls\.predictions\.|cls\.seq_relationship\.",
    r"(bert\.)?pooler\.",
    r"classifier\.",
    r"(bert\.)?embeddings\.(position_ids|token_type_ids)$",
)


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
    try:
        sizes = {ours: published[theirs] for ours, theirs in _FIELDS.items()}
    except KeyError as error:
        msg = f"{path} does not say {error.args[0]!r}; it is not the configuration of a Geneformer checkpoint."
        raise ValueError(msg) from error
    size = sizes["vocab_size"]
    if len(ids) != size or sorted(ids.values()) != list(range(size)):
        msg = (
            f"{files['tokens']} has {len(ids)} tokens, but the network in {path.parent} was made for {size}. V1 networks "
            "need the dictionaries `gc30M` (model names 'geneformer.v1-...'), V2 networks those named `gc104M`."
        )
        raise ValueError(msg)
    return GeneformerConfig(
        **sizes,
        type_vocab_size=published.get("type_vocab_size", 2),
        eps=published.get("layer_norm_eps", 1e-12),
        activation=published.get("hidden_act", "relu"),
        dropout=published.get("hidden_dropout_prob", 0.0),
        attn_dropout=published.get("attention_probs_dropout_prob", 0.0),
        pad_id=ids.get("<pad>", 0),
        cls_id=ids.get("<cls>"),
        eos_id=ids.get("<eos>"),
        pooling="cls" if "<cls>" in ids else "cell",
    )


_FIELDS = {
    "dim": "hidden_size",
    "heads": "num_attention_heads",
    "layers": "num_hidden_layers",
    "ffn_dim": "intermediate_size",
    "positions": "max_position_embeddings",
    "vocab_size": "vocab_size",
}


def _vocabulary(files: Mapping[str, Path], ids: Mapping[str, int]) -> GeneVocab:
    """Genes that can be reached through the published mapping, and the retired ids that lead to them."""
    special = {name: token for name, token in ids.items() if name.startswith("<")}
    genes = [name for name in ids if name not in special]
    mapping = {name: name for name in genes}
    if "mapping" in files:
        mapping = {str(name): str(target) for name, target in read_pickled_dict(files["mapping"]).items()}
    names = [name for name in genes if mapping.get(name) == name]
    synonyms = {name: target for name, target in mapping.items() if name != target and target in ids}
    if unreachable := set(synonyms.values()) - set(names):
        names += sorted(unreachable)  # current ids that only retired ones lead to
    return GeneVocab(
        names,
        np.array([ids[name] for name in names]),
        kind="ensembl",
        duplicates="collapse",
        fold_case=True,
        synonyms=synonyms,
        special=special,
    )
