"""tGPT :cite:p:`Shen2023`: the names of a cell's most expressed genes are a sentence, read by a GPT-2."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._data import GeneAlignment, GeneVocab, Tokens
from .._data.rank_kernels import top_counts
from .._nn import SelfAttention, run_layers
from ._encoder import Batch, CellEncoder
from ._weights import flat_state, read_json, read_state, rename

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .._data import CountBlock
    from .._data.vocab import GeneMode

Pooling = Literal["genes", "all"]
NOT_RANKED = re.compile(r"MT-|RP[LS]\d|RPLP\d|(RPSA|MALAT1|NEAT1|XIST)$")
"""Genes that the authors took out before ranking, judged from their published rankings and vocabulary."""
_PIECES = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class TGPTConfig:
    """Sizes (as published, unless files say otherwise) and options of :class:`TGPT`.

    Parameters
    ----------
    dim, heads, layers, ffn_dim, positions, vocab_size, eps
        Sizes of the published network.
    embd_dropout, attn_dropout, dropout
        Rates while training.
    begin_id, end_id, pad_id, unknown_id
        Special tokens.
    max_length
        Longest sequence, begin and end included: 64 or 128, depending on the checkpoint.
    pooling
        `'genes'`: the mean over the genes, as published. `'all'`: with begin and end, as scDrugMap computes it.
    token_type
        Add the embedding of token 0 to every position, as the published procedure did through `token_type_ids`.
    gene_filter
        Leave out mitochondrial and ribosomal genes, MALAT1, NEAT1 and XIST, as the authors must have done. `None` does
        so with `genes="auto"` and not with `genes="exact"`, which takes the names as they come.
    """

    dim: int = 1024
    heads: int = 16
    layers: int = 8
    ffn_dim: int = 4096
    positions: int = 1024
    vocab_size: int = 21150
    eps: float = 1e-5
    embd_dropout: float = 0.1
    attn_dropout: float = 0.1
    dropout: float = 0.1
    begin_id: int = 1
    end_id: int = 2
    pad_id: int = 0
    unknown_id: int = 3
    max_length: int = 64
    pooling: Pooling = "genes"
    token_type: bool = True
    gene_filter: bool | None = None

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            msg = f"`pooling` must be one of {get_args(Pooling)}, found {self.pooling!r}."
            raise ValueError(msg)
        if not 3 <= self.max_length <= self.positions:
            msg = f"`max_length` must lie between 3 and the {self.positions} positions of the network, found {self.max_length}."
            raise ValueError(msg)


@dataclass(frozen=True)
class SymbolVocab(GeneVocab):
    """Symbols with `-` and `.` written as `_`; with `genes="exact"` any text is cut into words as upstream does.

    Parameters
    ----------
    unknown_id
        Token of a word that is not in the vocabulary; it keeps its place in the ranking.
    n_tokens
        Size of the vocabulary with special tokens. Ids from here on stand for several tokens, or for none.
    gene_filter
        See :class:`TGPTConfig`.
    """

    unknown_id: int = 3
    n_tokens: int = 0
    gene_filter: bool | None = None
    _words: dict[tuple[int, ...], int] = field(default_factory=dict, repr=False, compare=False)

    def _fold(self, name: str) -> str:
        return name.replace("-", "_").replace(".", "_")

    @property
    def symbols(self) -> list[str]:
        """Names to look up in the tables of genes: the dash is by far the most frequent of what became `_`."""
        return [name.replace("_", "-") for name in self.names]

    @cached_property
    def _name_of(self) -> dict[int, str]:
        return dict(zip(self.ids.tolist(), self.names))  # type: ignore[union-attr]

    def align(
        self, names: Sequence[str], other: Sequence[str] | None = None, *, mode: GeneMode = "auto"
    ) -> GeneAlignment:
        """Map the columns of a data set to token ids, or to ids beyond the vocabulary for several tokens or none."""
        alignment = super().align(names, other, mode=mode)
        ids, texts = alignment.ids.copy(), [str(name) for name in names]
        if mode == "exact":
            if other is not None and (ids >= 0).any() and not any(self._fold(text) in self._lookup for text in texts):
                texts = [str(text) for text in other]
            ids[:] = [self._id_of(self._fold(text)) for text in texts]
        if self.gene_filter or (self.gene_filter is None and mode == "auto"):
            left_out = self._words.setdefault((), self.n_tokens + len(self._words))
            seconds = texts if other is None else [str(text) for text in other]
            for i, (text, second) in enumerate(zip(texts, seconds)):
                known = self._name_of.get(int(ids[i]), "")
                if NOT_RANKED.match(text) or NOT_RANKED.match(second) or NOT_RANKED.match(known):
                    ids[i] = left_out
        duplicates = alignment.duplicates
        return GeneAlignment(ids, mode, duplicates, len(self), unknown_id=self.unknown_id if mode == "exact" else None)

    def _id_of(self, text: str) -> int:
        pieces = tuple(self._lookup.get(piece, self.unknown_id) for piece in _PIECES.findall(text))
        if len(pieces) == 1:
            return pieces[0]
        return self._words.setdefault(pieces, self.n_tokens + len(self._words)) if pieces else -1

    def words(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that ids beyond the vocabulary stand for, as CSR arrays `indptr`, `ids`."""
        words = list(self._words)
        indptr = np.cumsum([0, *map(len, words)]).astype(np.int64)
        return indptr, np.array([piece for word in words for piece in word], dtype=np.int32)


class PreNormLayer(nn.Module):
    """Causal attention and feed-forward of GPT-2, each on a normalized copy that is added to its input."""

    def __init__(self, config: TGPTConfig) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.attn = SelfAttention(config.dim, config.heads, dropout=config.attn_dropout, causal=True)
        self.ffn_norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.up, self.down = nn.Linear(config.dim, config.ffn_dim), nn.Linear(config.ffn_dim, config.dim)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, keep: Tensor | None = None, *, queries: int | None = None) -> Tensor:
        """`keep` and `queries` are those of :func:`~sc_drugresp._nn.run_layers`; padding comes last and is never seen."""
        x = x + self.drop(self.attn(self.attn_norm(x)))
        return x + self.drop(self.down(F.gelu(self.up(self.ffn_norm(x)), approximate="tanh")))


class TGPT(CellEncoder):
    """tGPT: a GPT-2 over the names of the 62 (or 126) most expressed genes of a cell, highest first.

    The network sees the order of the genes, never their values. Nothing attends to the end of a sequence and the end is
    not pooled, so that it is not computed. A cell without expressed genes has no embedding (NaN).

    With `genes="auto"` the genes in :data:`NOT_RANKED` are left out and only genes of the vocabulary are ranked. With
    `genes="exact"` every column is ranked and a name outside of the vocabulary takes a place as `<unk>`, as in the
    published procedure.
    """

    Config: ClassVar[type] = TGPTConfig
    config: TGPTConfig
    vocab: SymbolVocab

    def __init__(self, config: TGPTConfig, vocab: SymbolVocab) -> None:
        super().__init__(config, vocab)
        self.word = nn.Embedding(config.vocab_size, config.dim)
        self.position = nn.Embedding(config.positions, config.dim)
        self.drop = nn.Dropout(config.embd_dropout)
        self.layers = nn.ModuleList(PreNormLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)

    # Files --------------------------------------------------------------------------------------------------------

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> TGPT:
        """Build from `config`, `weights` and `vocab` (`tokenizer.json`).

        Raises
        ------
        ValueError
            A file is damaged or of another model, or the files do not belong together.
        TypeError
            There is no such option.
        """
        ids, special = _tokenizer(files["vocab"])
        config = cls.configure(_config(files, ids, special), options)
        vocab = _vocabulary(ids, config)
        state = flat_state(read_state(files["weights"]), source=files["weights"])
        model = cls.build(config, vocab, state, source=files["weights"])
        assert isinstance(model, cls)
        return model

    @classmethod
    def example_vocab(cls, config: TGPTConfig) -> SymbolVocab:
        """Made-up symbols in the place of the published ones."""
        special = {"<pad>": config.pad_id, "</b>": config.begin_id, "</s>": config.end_id, "<unk>": config.unknown_id}
        ids = np.setdiff1d(np.arange(config.vocab_size), list(special.values())).tolist()
        return _vocabulary({**special, **{f"GENE{i}": i for i in ids}}, config)

    @staticmethod
    def remap(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Hugging Face's names to ours: `[in, out]` weights become views `[out, in]`, the fused one is cut into q, k, v.

        The language-model head (tied to the word embedding) and the causal masks of old releases are dropped.
        """
        out: dict[str, Tensor] = {}
        for name, tensor in rename(state, RENAMES, drop=DROPPED).items():
            turned = (
                tensor.t()
                if tensor.ndim == 2 and re.search(r"\.(attn\.qkv|attn\.o|up|down)\.weight$", name)
                else tensor
            )
            if ".attn.qkv." in name:
                size = turned.shape[0] // 3
                for i, part in enumerate("qkv"):
                    out[name.replace(".qkv.", f".{part}.")] = turned[i * size : (i + 1) * size]
            else:
                out[name] = turned
        return out

    # Tokens -------------------------------------------------------------------------------------------------------

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Begin, the most expressed genes, end.

        Equal counts keep the order of the columns with `genes="exact"`; with `genes="auto"` they follow the token id,
        which is the gene's frequency in the pretraining corpus.
        """
        config = self.config
        indptr, ids = top_counts(
            block.indptr,
            block.gene_ids,
            block.counts,
            *self.vocab.words(),
            config.vocab_size,
            config.begin_id,
            config.end_id,
            config.max_length - 2,
        )
        return Tokens(indptr, ids)

    def embeddable(self, tokens: Tokens) -> np.ndarray:
        """Cells with at least one gene."""
        return tokens.lengths > 2

    def collate(self, tokens: Tokens) -> Batch:
        """`ids` `(cells, length)` and `length` `(cells,)`."""
        config, lengths = self.config, tokens.lengths
        if lengths.max(initial=0) > config.positions:
            msg = f"A sequence has {lengths.max()} tokens; this checkpoint has {config.positions} positions."
            raise ValueError(msg)
        if len(tokens.ids) and not 0 <= tokens.ids.min() <= tokens.ids.max() < config.vocab_size:
            msg = f"Token ids must lie between 0 and {config.vocab_size - 1}, found up to {tokens.ids.max()}."
            raise ValueError(msg)
        ids = tokens.padded(tokens.ids, config.pad_id)
        return {"ids": torch.from_numpy(ids).long(), "length": torch.from_numpy(lengths)}

    # Network ------------------------------------------------------------------------------------------------------

    def inputs(self, batch: Batch) -> Tensor:
        """What enters the first layer, shape `(cells, length, dim)`."""
        ids = batch["ids"]
        shared = self.position.weight[: ids.shape[1]]
        if self.config.token_type:
            shared = shared + self.word.weight[0]
        return self.drop(self.word(ids) + shared)

    def hidden(self, batch: Batch) -> Tensor:
        """Output of the last layer, normalized, for every position, shape `(cells, length, dim)`."""
        x = run_layers(self.layers, self.inputs(batch), gradient_checkpointing=self.gradient_checkpointing)
        return self.norm(x)

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Mean over the genes, shape `(cells, dim)`; `hidden` may lack trailing positions that are not pooled."""
        first, stop = (1, batch["length"] - 1) if self.config.pooling == "genes" else (0, batch["length"])
        place = torch.arange(hidden.shape[1], device=hidden.device)
        pooled = (place >= first) & (place < stop[:, None])
        weight = pooled.to(hidden.dtype) / (stop - first)[:, None].to(hidden.dtype)
        return (weight[:, None] @ hidden)[:, 0]

    def forward(self, batch: Batch) -> Tensor:
        """Cell embedding, shape `(cells, dim)`; the last position is computed only if it is pooled."""
        needed = {**batch, "ids": batch["ids"][:, :-1]} if self.config.pooling == "genes" else batch
        return self.pool(self.hidden(needed), batch)


RENAMES = {
    r"^transformer\.": "",
    r"^wte\.": "word.",
    r"^wpe\.": "position.",
    r"^ln_f\.": "norm.",
    r"^h\.": "layers.",
    r"\.ln_1\.": ".attn_norm.",
    r"\.ln_2\.": ".ffn_norm.",
    r"\.attn\.c_attn\.": ".attn.qkv.",
    r"\.attn\.c_proj\.": ".attn.o.",
    r"\.mlp\.c_fc\.": ".up.",
    r"\.mlp\.c_proj\.": ".down.",
}
DROPPED = (r"lm_head\.weight$", r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)$")


def _tokenizer(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Token ids of a `tokenizer.json`, and the ids of its begin, end and unknown tokens."""
    published = read_json(path)
    model = published.get("model") or {}
    cutter = (published.get("pre_tokenizer") or {}).get("type")
    found = (model.get("type", "WordLevel"), cutter, published.get("normalizer"))
    if found != ("WordLevel", "Whitespace", None) or not isinstance(model.get("vocab"), dict):
        msg = (
            f"{path} is not the tokenizer of tGPT: expected a WordLevel model that cuts at white space, found a "
            f"{found[0]} model, {found[1]} cutting and the normalizer {found[2]}."
        )
        raise ValueError(msg)
    ids = {str(name): int(token) for name, token in model["vocab"].items()}
    template = [next(iter(step.items())) for step in (published.get("post_processor") or {}).get("single", [])]
    ends = [value["id"] for kind, value in template if kind == "SpecialToken"]
    if [kind for kind, _ in template] != ["SpecialToken", "Sequence", "SpecialToken"] or not {*ends} <= ids.keys():
        msg = f"{path} does not put one token before and one behind a sequence; it is not the tokenizer of tGPT."
        raise ValueError(msg)
    unknown = model.get("unk_token", "<unk>")
    if unknown not in ids:
        msg = f"{path} names {unknown!r} as its unknown token, which is not in its vocabulary."
        raise ValueError(msg)
    return ids, {"begin_id": ids[ends[0]], "end_id": ids[ends[1]], "unknown_id": ids[unknown]}


def _config(files: Mapping[str, Path], ids: Mapping[str, int], special: Mapping[str, Any]) -> TGPTConfig:
    """Sizes from `config.json`."""
    path = files["config"]
    published = read_json(path)
    variant = {name: published.get(name, value) for name, value in _VARIANT.items()}
    if different := {name: value for name, value in variant.items() if value not in (_VARIANT[name], _SAME.get(name))}:
        msg = f"{path} describes another network than tGPT's GPT-2: {different}."
        raise ValueError(msg)
    try:
        sizes: dict[str, Any] = {ours: int(published[theirs]) for ours, theirs in _FIELDS.items()}
    except KeyError as error:
        msg = f"{path} does not say {error.args[0]!r}; it is not the configuration of a tGPT checkpoint."
        raise ValueError(msg) from error
    if sorted(ids.values()) != list(range(sizes["vocab_size"])):
        msg = (
            f"{files['vocab']} has {len(ids)} tokens, but the network in {path.parent} was made for "
            f"{sizes['vocab_size']}. Take both files from the same checkpoint."
        )
        raise ValueError(msg)
    return TGPTConfig(
        **sizes,
        ffn_dim=published.get("n_inner") or 4 * sizes["dim"],
        eps=published.get("layer_norm_epsilon", 1e-5),
        embd_dropout=published.get("embd_pdrop", 0.1),
        attn_dropout=published.get("attn_pdrop", 0.1),
        dropout=published.get("resid_pdrop", 0.1),
        pad_id=published.get("pad_token_id", 0),
        max_length=min(64, sizes["positions"]),
        **special,
    )


_FIELDS = {
    "dim": "n_embd",
    "heads": "n_head",
    "layers": "n_layer",
    "positions": "n_positions",
    "vocab_size": "vocab_size",
}
_VARIANT = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
}
_SAME = {"activation_function": "gelu_pytorch_tanh"}


def _vocabulary(ids: Mapping[str, int], config: TGPTConfig) -> SymbolVocab:
    reserved = {config.begin_id, config.end_id, config.pad_id, config.unknown_id}
    genes = {name: token for name, token in ids.items() if token not in reserved}
    return SymbolVocab(
        list(genes),
        np.array(list(genes.values())),
        kind="symbol",
        duplicates="keep",
        special={name: token for name, token in ids.items() if token in reserved},
        unknown_id=config.unknown_id,
        n_tokens=config.vocab_size,
        gene_filter=config.gene_filter,
    )
