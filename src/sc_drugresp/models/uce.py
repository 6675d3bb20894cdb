"""UCE :cite:p:`Rosen2023`: a cell is a sentence of genes drawn by expression; gene tokens are protein embeddings."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.rng import short_seed
from .._core.settings import settings
from .._data import GeneVocab, Tokens
from .._data.sentence_kernels import assemble_sentences, draw_genes, draw_like_numpy, shuffle_chromosomes
from .._nn import PostNormLayer, ProjectedTokens, run_layers
from ._config import Config, setting, size
from ._encoder import Batch, CellEncoder
from ._layouts import TORCH_ENCODER
from ._memory import Limit
from ._network import check_tokens
from ._uce_files import read_sizes
from ._uce_genes import GenomeTable, read_genome
from ._weights import check_finite, check_tensor, read_state, read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .._data import CountBlock
    from .._data.counts import AlignedCounts

HEADS = (
    "The checkpoint does not hold the number of heads: give it as `heads=`, or as 'nhead' in a config.json beside the "
    "weights."
)
_ROWS_AT_ONCE = 2_048
_PAD_BIAS = 1.0
"""What upstream adds to the attention logits of padding."""


@dataclass(frozen=True)
class UCEConfig(Config):
    """Sizes and options of UCE.

    Parameters
    ----------
    token_dim, width, heads, layers, ffn_dim, decoder_dim, dim, positions, n_tokens
        Sizes, read from the checkpoint except `heads`, which it does not hold.
    dropout
        Dropout while training.
    pad, closing, cls
        Special tokens.
    species
        Species of the cells.
    sample_size
        Genes drawn for each cell, with replacement.
    max_length
        Longest sentence.
    sampler
        `'stream'` gives each cell its own random stream; `'legacy'` is NumPy's sequential `RandomState`, which runs
        through the cells in their order as upstream does after `numpy.random.seed`.
    padding
        `'none'` keeps padding from changing a cell; `'upstream'` lets it, in consecutive batches of `batch_size` cells.
    batch_size
        Cells in a batch of `padding='upstream'`.
    """

    token_dim: int = size(5120)
    width: int = size(1280)
    heads: int = size(
        20,
        "nhead",
        required=False,
        divides="width",
        hint=HEADS,
    )
    layers: int = size(4)
    ffn_dim: int = size(5120)
    decoder_dim: int = size(1024)
    dim: int = size(1280)
    positions: int = size(1536)
    n_tokens: int = size(145_469)
    dropout: float = setting(0.05, "dropout")
    pad: int = setting(0, "pad_token_idx")
    closing: int = setting(2, "chrom_token_right_idx")
    cls: int = setting(3, "cls_token_idx")
    species: str = setting("human", "species")
    sample_size: int = size(1024, "sample_size", required=False)
    max_length: int = size(1536, "pad_length", required=False)
    sampler: Literal["stream", "legacy"] = "stream"
    padding: Literal["none", "upstream"] = "none"
    batch_size: int = size(25)


class UCE(CellEncoder):
    """Universal cell embeddings :cite:p:`Rosen2023`.

    Token ids are rows of the published token table: 0 padding, 2 the closing token, 3 `[CLS]`, then the genes of all
    species, then the chromosomes. The table stays on disk; only rows that occur are read and projected.
    """

    Config = UCEConfig
    max_waste: ClassVar[float] = 0.0  # few lengths occur, and attention without a mask is faster
    renames: ClassVar[Mapping[str, str]] = {
        r"^pos_encoder\.pe$": "positions",
        r"^encoder\.0": "project",
        r"^encoder\.2": "project_norm",
        r"^transformer_encoder\.": "",
        **TORCH_ENCODER,
    }
    # The token table is read where it lies.
    dropped: ClassVar[tuple[str, ...]] = (r"pe_embedding\.", r"binary_decoder\.", r"gene_embedding_layer\.")

    def __init__(self, config: UCEConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.pad_id, self.n_ids, self.longest = config.pad, config.n_tokens, config.positions
        self.project = nn.Linear(config.token_dim, config.width)
        self.project_norm = nn.LayerNorm(config.width)
        self.positions: Tensor
        self.register_buffer("positions", torch.empty(config.positions, config.width))
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            PostNormLayer(config.width, config.heads, config.ffn_dim, dropout=config.dropout, activation=torch.relu_)
            for _ in range(config.layers)
        )
        widths = (config.width, config.decoder_dim, config.dim, config.dim)
        blocks = (
            nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), nn.GELU(), nn.Dropout(config.dropout))
            for before, after in pairwise(widths)
        )
        self.decoder = nn.Sequential(*blocks, nn.Linear(config.dim, config.dim))
        self.table: Tensor  # not a buffer: 3 GB that stay mapped from the file
        self.genome: GenomeTable
        self._projected: ProjectedTokens | None = None

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> Self:
        """Build from the weights, `species_offsets.pkl`, `species_chrom.csv` and the protein file of the species."""
        weights = files["weights"]
        state = read_tensors(weights)
        table = state.get("pe_embedding.weight")
        origin = weights
        if table is None and "tokens" in files:
            origin = files["tokens"]
            table = read_state(origin)
        if not isinstance(table, Tensor) or table.ndim != 2:
            found = f", found the shape {tuple(table.shape)}" if isinstance(table, Tensor) else ""
            msg = (
                f"{weights} has no token table 'pe_embedding.weight' of two dimensions{found}, and there is no "
                "all_tokens.torch beside it. Take the published file."
            )
            raise ValueError(msg)
        sizes, published = read_sizes(state, table, weights)
        if "nhead" not in published and "heads" not in options and sizes["width"] != UCEConfig.width:
            msg = f"{weights} is {sizes['width']} wide, the published networks {UCEConfig.width}. {HEADS}"
            raise ValueError(msg)
        given = UCEConfig.read_published(published, source=weights) | {
            name: value for name, value in options.items() if name == "heads"
        }
        config = UCEConfig.stated(weights, **sizes, **given).replace(**options)
        if len(special := {config.pad, config.closing, config.cls}) < 3 or not 0 <= min(special) <= max(special) < 4:
            msg = f"{weights}: pad, closing and cls must be three different rows among 0 to 3, found {sorted(special)}."
            raise ValueError(msg)
        genome = read_genome(files, config.species, config.n_tokens, published)
        model = cls.build(config, genome.vocab, state, source=weights)
        model.depth_stated = "nlayers" in published
        check_tensor("pe_embedding.weight", table, torch.float32, source=origin)
        for first, last in ((0, 4), (genome.first, genome.first + len(genome.place)), (genome.chromosome_offset, None)):
            check_finite("pe_embedding.weight", table[first:last], source=origin)
        model.table, model.genome = table, genome
        return model

    @classmethod
    def random(cls, config: Any = None, vocab: GeneVocab | None = None, *, seed: int = 0) -> Self:
        """Build with random parameters, a made-up genome and the token rows of its genes alone."""
        config = UCEConfig() if config is None else config
        genome = GenomeTable.made_up(cls.example_vocab(config) if vocab is None else vocab)
        config = config.replace(n_tokens=genome.chromosome_offset + 24)
        model = super().random(config, genome.vocab, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        model.genome, model.table = genome, torch.randn(config.n_tokens, config.token_dim, generator=generator)
        return model

    @classmethod
    def remap(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename published parameters to ours; the table of positions loses its middle dimension."""
        out = super().remap(state)
        return {name: x.flatten(0, -2) if name == "positions" else x for name, x in out.items()}

    @property
    def leading(self) -> int:
        """Only `[CLS]` is read."""
        return 1

    @property
    def blockwise(self) -> bool:
        """Not with the generator or the batches of upstream, which continue from one block to the next."""
        return self.config.sampler == "stream" and self.config.padding == "none"

    # Tokens -------------------------------------------------------------------------------------------------------

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Sentences drawn from each cell's own random stream."""
        streams = block.streams(seed)
        drawn = draw_genes(block.indptr, block.gene_ids, block.counts, streams, self.config.sample_size)
        return self.assemble(drawn, shuffle_chromosomes(drawn, self.genome.first, self.genome.chromosome, streams))

    def assemble(self, drawn: np.ndarray, chromosomes: np.ndarray) -> Tokens:
        """Sentences of drawn genes, shape `(n_cells, sample_size)`, and the order of their chromosome codes."""
        genome, config = self.genome, self.config
        special = (config.cls, config.closing, genome.chromosome_offset)
        longest = min(config.max_length, config.positions)
        where = (genome.first, genome.chromosome, genome.place)
        return Tokens(*assemble_sentences(drawn, chromosomes, *where, special, longest))

    def token_blocks(
        self, source: AlignedCounts, seed: int, rows: np.ndarray | None = None
    ) -> Iterator[tuple[int, Tokens]]:
        """Yield blocks of tokens; the legacy generator and upstream's batches continue from one block to the next."""
        if self.config.sampler == "stream":
            blocks = super().token_blocks(source, seed, rows)
        else:
            blocks = self._legacy_blocks(source, np.random.RandomState(short_seed(seed)), rows)
        if self.config.padding == "none":
            return blocks
        return iter([(0, Tokens.concatenate([tokens for _, tokens in blocks]))])

    def _legacy_blocks(
        self, source: AlignedCounts, state: np.random.RandomState, rows: np.ndarray | None
    ) -> Iterator[tuple[int, Tokens]]:
        where = (self.genome.first, self.genome.chromosome)
        for block in source.blocks(rows=rows):
            weights = torch.log1p(torch.from_numpy(np.trunc(block.counts))).numpy()
            drawn = draw_like_numpy(block.indptr, block.gene_ids, weights, state, self.config.sample_size, *where)
            yield block.start, self.assemble(*drawn)

    def collate(self, tokens: Tokens) -> Batch:
        """As for all models; with `padding='upstream'` an attention bias takes the place of the mask."""
        batch = super().collate(tokens)
        if self.config.padding == "upstream":
            real = torch.arange(batch["ids"].shape[1]) < batch["length"][:, None]
            batch["keep"] = torch.where(real, 0.0, _PAD_BIAS)
        return batch

    def batches(self, tokens: Tokens, cells: np.ndarray, budget: int) -> Iterator[np.ndarray]:
        """Split cells into batches with little padding, or into upstream's consecutive ones."""
        if self.config.padding == "none":
            return super().batches(tokens, cells, budget)
        step = self.config.batch_size
        return (cells[start : start + step] for start in range(0, len(cells), step))

    # Network ------------------------------------------------------------------------------------------------------

    def token_rows(self, rows: Tensor) -> Tensor:
        """Protein embeddings of these tokens, L2-normalized, shape `(n_rows, token_dim)`; read from the mapped table."""
        found = self.table[rows.to(self.table.device)]
        return F.normalize(found.to(self.project.weight.device, torch.float32), dim=-1, eps=1e-12)

    def encode(self, features: Tensor) -> Tensor:
        """Project normalized protein embeddings to the width of the network, before scaling; always in its own precision."""
        with torch.autocast(features.device.type, enabled=False):
            return self.project_norm(F.gelu(self.project(features.to(self.project.weight.dtype))))

    def inputs(self, batch: Batch) -> Tensor:
        """Input of the first layer; each distinct token is projected once."""
        ids = batch["ids"]
        rows, index = torch.unique(ids, return_inverse=True)
        x = F.embedding(index, self.encode(self.token_rows(rows))) * math.sqrt(self.config.width)
        return self.drop(x + self.positions[: ids.shape[1]])

    def stem(self, batch: Batch) -> Tensor:
        """Input of the first layer; tokens that are projected already are looked up."""
        return self.inputs(batch) if self._projected is None else self._projected.inputs(batch["ids"])

    def hidden(self, batch: Batch, leading: int | None = None) -> Tensor:
        """Output of the last layer, shape `(cells, length, width)`: every token, or the first `leading` ones alone."""
        if self._projected is None or len(self.layers) < 2:
            return super().hidden(batch, leading)
        x = self._projected.first_layer(self.layers[0], batch["ids"], batch.get("keep"))
        return run_layers(list(self.layers)[1:], x, batch.get("keep"), queries=leading)

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Decoded and L2-normalized `[CLS]`, shape `(cells, dim)`."""
        return F.normalize(self.decoder(hidden[:, 0]), dim=-1, eps=1e-12)

    @contextmanager
    def shared(self, tokens: Tokens) -> Iterator[None]:
        """Hold the projection of every distinct token, and what the first layer makes of it."""
        check_tokens(self, tokens)
        try:
            with torch.inference_mode():
                rows = torch.from_numpy(np.union1d(tokens.ids, [self.pad_id]).astype(np.int64))
                limit = Limit(_ROWS_AT_ONCE, self.device)
                parts = [part for _, part in limit.pieces(rows, lambda piece: self.encode(self.token_rows(piece)))]
                x = torch.cat(parts) * math.sqrt(self.config.width)
                if "shared_tokens" in settings.speedups:
                    self._projected = ProjectedTokens.of(self.layers[0], rows.to(self.device), x, self.positions)
            yield
        finally:
            self._projected = None  # it must not outlive the weights
