"""tGPT :cite:p:`Shen2023`: the names of a cell's most expressed genes are a sentence, read by a GPT-2."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from .._data import Tokens
from .._data.rank_kernels import top_counts
from .._nn import SelfAttention, mean_between
from ._config import Config, setting, size
from ._encoder import Batch, CellEncoder
from ._files import read_json
from ._symbols import SymbolVocab, read_tokenizer
from ._weights import check_token_ids, read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .._data import CountBlock

_VARIANT = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
}
"""Values that the configuration must have where it states them."""


@dataclass(frozen=True)
class TGPTConfig(Config):
    """Sizes (by default the published ones) and options of :class:`TGPT`.

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

    dim: int = size(1024, "n_embd")
    heads: int = size(16, "n_head", divides="dim")
    layers: int = size(8, "n_layer")
    ffn_dim: int = size(4096, "n_inner", required=False)
    positions: int = size(1024, "n_positions", least=3)
    vocab_size: int = size(21150, "vocab_size")
    eps: float = setting(1e-5, "layer_norm_epsilon")
    embd_dropout: float = setting(0.1, "embd_pdrop")
    attn_dropout: float = setting(0.1, "attn_pdrop")
    dropout: float = setting(0.1, "resid_pdrop")
    begin_id: int = 1
    end_id: int = 2
    pad_id: int = setting(0, "pad_token_id")
    unknown_id: int = 3
    max_length: int = size(64, least=3)
    pooling: Literal["genes", "all"] = "genes"
    token_type: bool = True
    gene_filter: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length > self.positions:
            msg = f"`max_length` is {self.max_length}, but the network has {self.positions} positions."
            raise ValueError(msg)


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

    With `genes="auto"` the genes in :data:`~sc_drugresp.models._symbols.NOT_RANKED` are left out and only genes of the
    vocabulary are ranked. With `genes="exact"` every column is ranked and a name outside of the vocabulary takes a
    place as `<unk>`, as in the published procedure.
    """

    Config = TGPTConfig
    renames: ClassVar[Mapping[str, str]] = {
        r"^transformer\.": "",
        r"^wte\.": "word.",
        r"^wpe\.": "position.",
        r"^ln_f\.": "final_norm.",
        r"^h\.": "layers.",
        r"\.ln_1\.": ".attn_norm.",
        r"\.ln_2\.": ".ffn_norm.",
        r"\.attn\.c_attn\.": ".attn.qkv.",
        r"\.attn\.c_proj\.": ".attn.o.",
        r"\.mlp\.c_fc\.": ".up.",
        r"\.mlp\.c_proj\.": ".down.",
    }
    # The language-model head is tied to the word embedding; old releases hold the causal masks.
    dropped: ClassVar[tuple[str, ...]] = (r"lm_head\.weight$", r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)$")
    min_tokens: int = 3  # begin, a gene, end
    vocab: SymbolVocab

    def __init__(self, config: TGPTConfig, vocab: SymbolVocab) -> None:
        super().__init__(config, vocab)
        self.pad_id, self.n_ids, self.longest = config.pad_id, config.vocab_size, config.positions
        self.word = nn.Embedding(config.vocab_size, config.dim)
        self.position = nn.Embedding(config.positions, config.dim)
        self.drop = nn.Dropout(config.embd_dropout)
        self.layers = nn.ModuleList(PreNormLayer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.dim, eps=config.eps)

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> Self:
        """Build from `config`, `weights` and `vocab` (`tokenizer.json`).

        Raises
        ------
        ValueError
            A file is damaged or of another model, or the files do not belong together.
        TypeError
            There is no such option.
        """
        ids, special = read_tokenizer(files["vocab"])
        config = _config(files, ids, special).replace(**options)
        state = read_tensors(files["weights"])
        return cls.build(config, SymbolVocab.of(ids, config), state, source=files["weights"])

    @classmethod
    def example_vocab(cls, config: TGPTConfig) -> SymbolVocab:
        """Made-up symbols in the place of the published ones."""
        special = {"<pad>": config.pad_id, "</b>": config.begin_id, "</s>": config.end_id, "<unk>": config.unknown_id}
        ids = np.setdiff1d(np.arange(config.vocab_size), list(special.values())).tolist()
        return SymbolVocab.of({**special, **{f"GENE{i}": i for i in ids}}, config)

    @classmethod
    def remap(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename Hugging Face's parameters to ours; `[in, out]` weights become views `[out, in]`."""
        turned = {
            name: tensor.t() if re.search(r"\.(c_attn|c_proj|c_fc)\.weight$", name) else tensor
            for name, tensor in state.items()
        }
        return super().remap(turned)

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Begin, the most expressed genes, end.

        Equal counts keep the order of the columns with `genes="exact"`; with `genes="auto"` they follow the token id,
        which is the gene's frequency in the pretraining corpus.
        """
        config = self.config
        counts = (block.indptr, block.gene_ids, block.counts, *self.vocab.words())
        ends = (config.begin_id, config.end_id, config.max_length - 2)
        return Tokens(*top_counts(*counts, config.vocab_size, *ends))

    def inputs(self, batch: Batch) -> Tensor:
        """Sum of token and position embeddings, shape `(cells, length, dim)`."""
        ids = batch["ids"]
        shared = self.position.weight[: ids.shape[1]]
        if self.config.token_type:
            shared = shared + self.word.weight[0]
        return self.drop(self.word(ids) + shared)

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Mean over the genes, shape `(cells, dim)`; `hidden` may lack trailing positions that are not pooled."""
        if self.config.pooling == "genes":
            return mean_between(hidden, 1, batch["length"] - 1)
        return mean_between(hidden, 0, batch["length"])

    def stem(self, batch: Batch) -> Tensor:
        """Input of the first layer without the last position, unless that is pooled."""
        return self.inputs({"ids": batch["ids"][:, :-1]} if self.config.pooling == "genes" else batch)

    def forward(self, batch: Batch) -> Tensor:
        """Cell embedding, shape `(cells, dim)`; the last position is computed only if it is pooled."""
        needed = {**batch, "ids": batch["ids"][:, :-1]} if self.config.pooling == "genes" else batch
        return self.pool(self.hidden(needed), batch)


def _config(files: Mapping[str, Path], ids: Mapping[str, int], special: Mapping[str, Any]) -> TGPTConfig:
    """Sizes from `config.json`."""
    path = files["config"]
    published = read_json(path)
    different = {
        name: published[name] for name, known in _VARIANT.items() if published.get(name, known[0]) not in known
    }
    if different:
        msg = f"{path} describes another network than tGPT's GPT-2: {different}."
        raise ValueError(msg)
    sizes = TGPTConfig.read_published(published, source=path)
    hint = "Take both files from the same checkpoint."
    if not 0 <= sizes.get("pad_id", 0) < len(ids):
        msg = f"{path}: pad_token_id must lie between 0 and {len(ids) - 1}, found {sizes['pad_id']}. Download it again."
        raise ValueError(msg)
    check_token_ids(ids, sizes["vocab_size"], source=files["vocab"], network=path, hint=hint)
    defaults = {"ffn_dim": 4 * sizes["dim"], "max_length": min(64, sizes["positions"])}
    return TGPTConfig.stated(path, **{**defaults, **sizes, **special})
