"""Language models: a cell is a sentence of its genes, read by any causal or encoder model of Hugging Face."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence  # noqa: TC003 (`Config` evaluates its annotations)
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from .. import genes as gene_tools
from .._core.device import resolve_device
from .._data import GeneVocab, Tokens
from .._design.told import check_told, told_texts
from ._config import Config, size
from ._encoder import Batch, CellEncoder
from ._language_open import made_up_network, made_up_tokenizer, open_config, open_network, open_tokenizer
from ._network import random_state
from ._sentences import Sentences, check_template, packaged_template
from ._weights import load_strict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

    from .._data import CountBlock, CountSource

ABOUT = "about"
"""Name of the array of a reader that holds what is told of each cell beside its genes."""
_SIZES = {
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn_dim": "intermediate_size",
    "positions": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
"""Our names of sizes and those of transformers."""


@dataclass(frozen=True)
class LanguageModelConfig(Config):
    """Sizes (by default those of Llama-3-8B) and options of :class:`LanguageModel`.

    Parameters
    ----------
    dim, layers, heads, ffn_dim, positions, vocab_size
        Sizes of the network. They come from its files.
    n_genes
        Most genes in the sentence of a cell.
    values
        Write a value after each gene: log1p of its counts per 10,000, with one digit.
    metadata
        Columns of `.obs` that the sentence tells, such as `tissue`. Columns that name samples or data sets, or that give
        response away, are refused.
    template
        The sentence, with `{genes}` and perhaps `{metadata}`; empty for the one of this package.
    max_tokens
        Most tokens of a cell, special ones included; `None` is what the network can read. What does not fit is cut after a
        whole gene, and counted.
    pooling
        `'mean'` of the last layer over all tokens of the cell, or the `'last'` of them. Padding is never read.
    padding
        Side on which shorter sentences of a batch are filled up; the embedding is the same.
    weights
        Numbers of the weights in memory; `'auto'` is bfloat16 on GPUs that have it, else float32.
    quantize
        `'8bit'` or `'4bit'` weights by bitsandbytes, on devices that it supports.
    """

    dim: int = size(4096)
    layers: int = size(32)
    heads: int = size(32, divides="dim")
    ffn_dim: int = size(14336)
    positions: int = size(8192)
    vocab_size: int = size(128256)
    n_genes: int = size(100)
    values: bool = False
    metadata: Sequence[str] = ()
    template: str = ""
    max_tokens: int | None = size(None)
    pooling: Literal["mean", "last"] = "mean"
    padding: Literal["right", "left"] = "right"
    weights: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantize: Literal["no", "8bit", "4bit"] = "no"

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", tuple(map(str, self.metadata)))
        super().__post_init__()
        if self.template:
            check_template(self.template)
        if self.metadata and self.template and "{metadata}" not in self.template:
            msg = f"`template` has no place for {list(self.metadata)} (`metadata`): add {{metadata}} to it."
            raise ValueError(msg)
        if self.max_tokens is not None and self.max_tokens > self.positions:
            msg = f"`max_tokens` is {self.max_tokens}, but the network has {self.positions} positions."
            raise ValueError(msg)

    @property
    def dtype(self) -> str:
        """Numbers of the weights on the device at hand."""
        if self.weights != "auto":
            return self.weights
        return "bfloat16" if resolve_device().type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


class LanguageModel(CellEncoder):
    """A language model that reads the names of a cell's genes, the most expressed first.

    Names are the current symbols of the gene table, whatever the data call them, so that a cell is the same sentence in
    every data set; equal counts follow the name. The network is opened by transformers from safetensors alone, and code
    that comes with a model is never run. A cell without expressed genes has no embedding (NaN).

    Attributes
    ----------
    network, tokenizer
        The model and tokenizer of transformers.
    sentences
        How cells are written; `sentences.told` counts what was told and what was cut.
    """

    Config = LanguageModelConfig
    engines: ClassVar[tuple[str, ...]] = ("torch",)
    network: Any

    def __init__(self, config: LanguageModelConfig, vocab: GeneVocab, network: Any, tokenizer: Any) -> None:
        super().__init__(config, vocab)
        self.network, self.tokenizer = network, tokenizer
        network.config.use_cache = False
        self.lora_targets = linear_layers(network)
        self.offset = _position_offset(network)
        self.longest = min(config.max_tokens or config.positions, config.positions - self.offset)
        self.n_ids = config.vocab_size
        special = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad_id = next(token for token in special if token is not None)
        self._recomputing = False
        self._takes_positions = "position_ids" in inspect.signature(network.forward).parameters
        self.sentences = Sentences(
            self._encode,
            vocab.names,
            template=config.template or packaged_template(),
            n_genes=config.n_genes,
            values=config.values,
            limit=self.longest,
        )

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> Self:
        """Build from `config`, `tokenizer`, `weights` and further files of weights, all in one folder.

        Raises
        ------
        ValueError
            A file is damaged, the files do not belong together, the network is of a kind that cannot be used, or an option
            contradicts it.
        TypeError
            There is no such option.
        """
        path = files["config"]
        if len(folders := {file.parent for file in files.values()}) > 1:
            msg = f"The files of a language model must lie in one folder, found {len(folders)}: {sorted(map(str, folders))}."
            raise ValueError(msg)
        stated = open_config(path)
        found = {ours: getattr(stated, theirs, None) for ours, theirs in _SIZES.items()}
        sizes = {name: value for name, value in found.items() if value is not None}
        sizes.setdefault("positions", _SIZES_UNLIMITED)
        if wrong := {name: value for name, value in options.items() if sizes.get(name, value) != value}:
            name, value = next(iter(wrong.items()))
            msg = f"`{name}` is {sizes[name]} in {path}, found {value}. Sizes come from the files: leave it out."
            raise ValueError(msg)
        config = cls.Config.stated(path, **sizes).replace(**options)
        tokenizer = open_tokenizer(files["tokenizer"])
        if len(tokenizer) > config.vocab_size:
            msg = f"{files['tokenizer']} has {len(tokenizer)} tokens, but the network was made for {config.vocab_size}. Take both from one model."
            raise ValueError(msg)
        network = open_network(files["weights"], causal=False, dtype=config.dtype, quantize=config.quantize)
        return cls(config, cls.example_vocab(config), network, tokenizer).eval()

    @classmethod
    def example_vocab(cls, config: LanguageModelConfig) -> GeneVocab:
        """The symbols of the human gene table, which are those of every language model."""
        return human_symbols()

    @classmethod
    def random(cls, config: Any = None, vocab: GeneVocab | None = None, *, seed: int = 0) -> Self:
        """Build a Llama with random parameters whose tokens are characters, see :meth:`CellEncoder.random`."""
        config = cls.Config() if config is None else config
        model = cls(config, vocab or cls.example_vocab(config), made_up_network(config), made_up_tokenizer())
        load_strict(model, random_state(model, seed), source="random parameters")
        return model.eval()

    def redraw(self, seed: int = 0) -> Self:
        """As for all models; quantized weights cannot be drawn anew.

        Raises
        ------
        ValueError
            The weights are quantized.
        """
        if self.config.quantize != "no":
            msg = f"Random weights need quantize='no', found {self.config.quantize!r}."
            raise ValueError(msg)
        return super().redraw(seed)

    def read(self, data: AnnData, layer: str | None) -> CountSource:
        """Find the matrix to read, and the columns of `.obs` that the sentences tell.

        Raises
        ------
        KeyError
            There is no such column.
        ValueError
            There are no raw counts, or a column names samples or gives response away.
        """
        if self.config.metadata:
            check_told(data.obs, self.config.metadata)
        source = super().read(data, layer)
        if self.config.metadata:
            source.cells[ABOUT] = told_texts(data.obs, self.config.metadata)
        return source

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Tokens of the sentence of each cell."""
        if self.config.metadata and ABOUT not in block.cells:
            msg = f"The sentences tell {list(self.config.metadata)} (`metadata`): give an AnnData with these columns, or a reader from `read`."
            raise ValueError(msg)
        about = block.cells[ABOUT].tolist() if self.config.metadata else [""] * len(block)
        return self.sentences.tokenize(block, about)

    def report(self) -> dict[str, Any]:
        """What `.uns` notes of the sentences written so far."""
        return {
            "sentences": self.sentences.told.summary()
            | {"template": self.sentences.template, "max_tokens": self.longest}
        }

    def collate(self, tokens: Tokens) -> Batch:
        """As for all models; with `padding='left'` shorter sentences are filled up in front, and `positions` count from there."""
        batch = super().collate(tokens)
        if self.config.padding == "left" and "keep" in batch:
            width = batch["ids"].shape[1]
            shift = width - batch["length"][:, None]
            place = torch.arange(width)
            batch["ids"] = batch["ids"].gather(1, (place - shift) % width)
            batch["keep"] = place >= shift
            batch["positions"] = (batch["keep"].cumsum(1) - 1).clamp(min=0)
        return batch

    def inputs(self, batch: Batch) -> Tensor:
        """Embeddings of the tokens alone, shape `(cells, length, width)`."""
        return self.network.get_input_embeddings()(batch["ids"])

    def hidden(self, batch: Batch, leading: int | None = None) -> Tensor:
        """Output of the last layer with its final norm, shape `(cells, length, dim)`, or that of the first `leading` tokens."""
        self._recompute()
        mask = batch["keep"] if "keep" in batch else torch.ones_like(batch["ids"], dtype=torch.bool)
        given = {"input_ids": batch["ids"], "attention_mask": mask.long()}
        if "positions" in batch and self._takes_positions:
            given["position_ids"] = batch["positions"] + self.offset
        return self.network(**given).last_hidden_state[:, :leading]

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Mean over the tokens of the cell, or the last of them, shape `(cells, dim)`, float32."""
        hidden, left = hidden.float(), self.config.padding == "left"
        if self.config.pooling == "last":
            rows = torch.arange(len(hidden), device=hidden.device)
            return hidden[:, -1] if left else hidden[rows, batch["length"] - 1]
        if "keep" in batch:
            hidden = hidden * batch["keep"][:, :, None]
        return hidden.sum(1) / batch["length"][:, None]

    @property
    def body(self) -> nn.Module:
        """The network of transformers."""
        return self.network

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=False, padding=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]

    def _recompute(self) -> None:
        """Hand the switch of our training on to transformers."""
        network = self.network
        if self.gradient_checkpointing == self._recomputing:
            return
        kind = "activation" if hasattr(network, "activation_checkpointing_enable") else "gradient"  # before 5.24
        if self.gradient_checkpointing:
            getattr(network, f"{kind}_checkpointing_enable")({"use_reentrant": False})
        else:
            getattr(network, f"{kind}_checkpointing_disable")()
        self._recomputing = self.gradient_checkpointing


_SIZES_UNLIMITED = 131_072
"""Positions of networks that state none."""


@cache
def human_symbols() -> GeneVocab:
    """The symbols of the human gene table in alphabetical order."""
    return GeneVocab(sorted(set(gene_tools.gene_table("human").symbol.tolist())))


def linear_layers(network: nn.Module) -> str:
    """A regular expression that names the linear layers inside the numbered blocks: projections of attention and of the MLP."""
    inside = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and re.search(r"\.\d+\.", f".{name}.")
    ]
    leaves = sorted({re.escape(name.rpartition(".")[2]) for name in inside})
    return rf".*\.\d+\.(.*\.)?({'|'.join(leaves)})"


def _position_offset(network: nn.Module) -> int:
    """How many rows of the table of positions come before the first one: those that RoBERTa keeps for padding."""
    tables = [module for name, module in network.named_modules() if name.endswith("position_embeddings")]
    paddings = [
        table.padding_idx for table in tables if isinstance(table, nn.Embedding) and table.padding_idx is not None
    ]
    return 1 + paddings[0] if paddings else 0
