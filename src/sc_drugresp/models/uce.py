"""UCE :cite:p:`Rosen2023`: a cell is a sentence of genes drawn by expression; gene tokens are protein embeddings."""

from __future__ import annotations

import math
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.device import resolve_device
from .._data import GeneVocab, Tokens
from .._data.sentence_kernels import assemble_sentences, draw_genes, shuffle_chromosomes
from .._nn import PostNormLayer, run_layers
from ._encoder import Batch, CellEncoder, _aligned
from ._uce_genes import GenomeTable, read_genome
from ._weights import flat_state, read_json, read_state, rename, split_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from anndata import AnnData

    from .._data import CountBlock, CountSource
    from .._data.counts import AlignedCounts
    from .._data.vocab import GeneMode

_ROWS_AT_ONCE = 2_048
_PAD_BIAS = 1.0
"""What upstream adds to the attention logits of padding."""


@dataclass(frozen=True)
class UCEConfig:
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

    token_dim: int = 5120
    width: int = 1280
    heads: int = 20
    layers: int = 4
    ffn_dim: int = 5120
    decoder_dim: int = 1024
    dim: int = 1280
    positions: int = 1536
    n_tokens: int = 145_469
    dropout: float = 0.05
    pad: int = 0
    closing: int = 2
    cls: int = 3
    species: str = "human"
    sample_size: int = 1024
    max_length: int = 1536
    sampler: Literal["stream", "legacy"] = "stream"
    padding: Literal["none", "upstream"] = "none"
    batch_size: int = 25

    def __post_init__(self) -> None:
        for name, allowed in (("sampler", ("stream", "legacy")), ("padding", ("none", "upstream"))):
            if getattr(self, name) not in allowed:
                msg = f"UCE: `{name}` must be one of {allowed}, found {getattr(self, name)!r}."
                raise ValueError(msg)
        if self.heads < 1 or self.width % self.heads:
            msg = (
                f"UCE: {self.width} channels cannot be split into {self.heads} heads. The checkpoint does not hold the "
                "number of heads: give it as `heads=`, or as 'nhead' in a config.json beside the weights."
            )
            raise ValueError(msg)
        if min(self.sample_size, self.max_length, self.batch_size) < 1:
            msg = "UCE: `sample_size`, `max_length` and `batch_size` must be positive."
            raise ValueError(msg)


class UCE(CellEncoder):
    """Universal cell embeddings :cite:p:`Rosen2023`.

    Token ids are rows of the published token table: 0 padding, 2 the closing token, 3 `[CLS]`, then the genes of all
    species, then the chromosomes. The table stays on disk; only rows that occur are read and projected.
    """

    Config: ClassVar[type] = UCEConfig
    max_waste: ClassVar[float] = 0.0  # few lengths occur, and attention without a mask is faster

    def __init__(self, config: UCEConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
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
        self.decoder = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), nn.GELU(), nn.Dropout(config.dropout))
                for before, after in pairwise(widths)
            ),
            nn.Linear(config.dim, config.dim),
        )
        self._table: Tensor | None = None  # not a buffer: 3 GB that stay mapped from the file
        self._genome: GenomeTable | None = None
        self._projected: _Projected | None = None

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> UCE:
        """Build from the weights, `species_offsets.pkl`, `species_chrom.csv` and the protein file of the species."""
        weights = files["weights"]
        state = flat_state(read_state(weights), source=weights)
        table = state.get("pe_embedding.weight")
        if table is None and "tokens" in files:
            table = read_state(files["tokens"])
        if not isinstance(table, Tensor) or table.ndim != 2:
            msg = f"{weights} has no token table 'pe_embedding.weight', and there is no all_tokens.torch beside it."
            raise ValueError(msg)
        config = cls.configure(_sizes(state, table, weights, heads=options.get("heads")), options)
        genome = read_genome(files, config.species, config.n_tokens)
        model = cast("UCE", cls.build(config, genome.vocab, state, source=weights))
        model._table, model._genome = table, genome
        return model

    @classmethod
    def random(cls, config: Any = None, vocab: GeneVocab | None = None, *, seed: int = 0) -> UCE:
        """Build with random parameters, a made-up genome and the token rows of its genes alone."""
        config = cls.Config() if config is None else config
        vocab = cls.example_vocab(config) if vocab is None else vocab
        n_chromosomes, first = 24, 4
        config = replace(config, n_tokens=first + len(vocab) + n_chromosomes)
        vocab = replace(vocab, ids=first + np.arange(len(vocab)))
        model = cast("UCE", super().random(config, vocab, seed=seed))
        genes = np.arange(len(vocab), dtype=np.int32)
        model._genome = GenomeTable(vocab, first, genes % n_chromosomes, genes, first + len(vocab))
        generator = torch.Generator().manual_seed(seed)
        model._table = torch.randn(config.n_tokens, config.token_dim, generator=generator)
        return model

    @staticmethod
    def remap(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published names to ours; the token table is read where it lies, training heads are dropped."""
        state = rename(state, RENAMES, drop=DROPPED)
        state = split_rows(state, r"attn\.(qkv)\.", ("q", "k", "v"))
        if "positions" in state:
            state["positions"] = state["positions"].flatten(0, -2)
        return state

    # Tokens -------------------------------------------------------------------------------------------------------

    @property
    def genome(self) -> GenomeTable:
        """Chromosome and position of each gene of the species."""
        if self._genome is None:
            msg = "This UCE was built without its gene tables; use `from_files`."
            raise RuntimeError(msg)
        return self._genome

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Sentences drawn from each cell's own random stream."""
        if self.config.sampler == "legacy":
            return self._legacy_block(block, np.random.RandomState(seed))
        streams = block.streams(seed)
        drawn = draw_genes(block.indptr, block.gene_ids, block.counts, streams, self.config.sample_size)
        return self.assemble(drawn, shuffle_chromosomes(drawn, self.genome.first, self.genome.chromosome, streams))

    def assemble(self, drawn: np.ndarray, chromosomes: np.ndarray) -> Tokens:
        """Sentences from recorded draws.

        Parameters
        ----------
        drawn
            Tokens of the drawn genes, shape `(n_cells, sample_size)`; -1 throughout for a cell without genes.
        chromosomes
            Chromosome codes in the order of the sentence, shape `(n_cells, most)`, filled up with -1.

        Raises
        ------
        ValueError
            A drawn token is no gene of the species, or its chromosome is missing.
        """
        drawn = np.ascontiguousarray(drawn, dtype=np.int32)
        chromosomes = np.ascontiguousarray(chromosomes, dtype=np.int32)
        genome = self.genome
        last = genome.first + len(genome.chromosome)
        outside = (drawn != -1) & ((drawn < genome.first) | (drawn >= last))
        if outside.any() or np.any((drawn == -1).any(1) != (drawn == -1).all(1)):
            msg = (
                f"Drawn tokens of {self.config.species} must lie in [{genome.first}, {last}), with -1 throughout for a "
                "cell without genes."
            )
            raise ValueError(msg)
        special = (self.config.cls, self.config.closing, genome.chromosome_offset)
        longest = min(self.config.max_length, self.config.positions)
        indptr, ids = assemble_sentences(
            drawn, chromosomes, genome.first, genome.chromosome, genome.place, special, longest
        )
        if (indptr < 0).any():
            msg = f"Cell {int(np.argmax(indptr < 0)) - 1} has a drawn gene whose chromosome is not in `chromosomes`."
            raise ValueError(msg)
        return Tokens(indptr, ids)

    def token_blocks(
        self, source: AlignedCounts, seed: int, rows: np.ndarray | None = None
    ) -> Iterator[tuple[int, Tokens]]:
        """Yield `(start, tokens)` of blocks; the legacy generator runs on from one to the next."""
        if self.config.sampler == "stream":
            yield from super().token_blocks(source, seed, rows)
            return
        state = np.random.RandomState(seed)
        for block in source.blocks(rows=rows):
            yield block.start, self._legacy_block(block, state)

    def _legacy_block(self, block: CountBlock, state: np.random.RandomState) -> Tokens:
        size, genome = self.config.sample_size, self.genome
        weights = torch.log1p(torch.from_numpy(np.trunc(block.counts))).numpy()
        drawn = np.full((len(block), size), -1, dtype=np.int32)
        order = np.full((len(block), min(size, int(genome.chromosome.max()) + 1)), -1, dtype=np.int32)
        for cell in range(len(block)):
            entries = slice(block.indptr[cell], block.indptr[cell + 1])
            edges = np.cumsum(weights[entries], dtype=np.float64)
            if len(edges) == 0:
                continue
            places = np.searchsorted(edges / edges[-1], state.random_sample(size), side="right")
            drawn[cell] = block.gene_ids[entries][places]
            codes = np.unique(genome.chromosome[drawn[cell] - genome.first])
            state.shuffle(codes)
            order[cell, : len(codes)] = codes
        return self.assemble(drawn, order)

    def collate(self, tokens: Tokens) -> Batch:
        """`ids`, shape `(n_cells, longest)`, and where lengths differ `keep` (or upstream's attention bias)."""
        if len(tokens.ids) and not 0 <= tokens.ids.min() <= tokens.ids.max() < self.config.n_tokens:
            msg = f"Token ids must lie in [0, {self.config.n_tokens}), the rows of the token table; found {tokens.ids.max()}."
            raise ValueError(msg)
        lengths = tokens.lengths
        ids = tokens.padded(tokens.ids, self.config.pad)
        if ids.shape[1] > self.config.positions:
            msg = f"Sentences may have {self.config.positions} tokens, found {ids.shape[1]}."
            raise ValueError(msg)
        batch = {"ids": torch.from_numpy(ids.astype(np.int64))}
        real = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])
        if self.config.padding == "upstream":
            batch["keep"] = torch.where(real, 0.0, _PAD_BIAS)
        elif not real.all():
            batch["keep"] = real
        return batch

    # Network ------------------------------------------------------------------------------------------------------

    def token_rows(self, rows: Tensor) -> Tensor:
        """Protein embeddings of these tokens, L2-normalized, shape `(n_rows, token_dim)`; read from the mapped table."""
        if self._table is None:
            msg = "This UCE was built without its token table; use `from_files`."
            raise RuntimeError(msg)
        weight = self.project.weight
        return F.normalize(self._table[rows.to(self._table.device)].to(weight.device, torch.float32), dim=-1, eps=1e-12)

    def encode(self, features: Tensor) -> Tensor:
        """Project normalized protein embeddings to the width of the network, before scaling."""
        return self.project_norm(F.gelu(self.project(features.to(self.project.weight.dtype))))

    def inputs(self, batch: Batch) -> Tensor:
        """Input of the first layer; each distinct token is projected once."""
        ids = batch["ids"]
        rows, index = torch.unique(ids, return_inverse=True)
        x = F.embedding(index, self.encode(self.token_rows(rows))) * math.sqrt(self.config.width)
        return self.drop(x + self.positions[: ids.shape[1]])

    def hidden(self, batch: Batch) -> Tensor:
        """Output of the last layer for every token, shape `(cells, length, width)`."""
        return self._run(batch, None)

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Decoded and L2-normalized `[CLS]`, shape `(cells, dim)`."""
        return F.normalize(self.decoder(hidden[:, 0]), dim=-1, eps=1e-12)

    def forward(self, batch: Batch) -> Tensor:
        """Cell embedding; the last layer and the decoder are computed for `[CLS]` only."""
        return self.pool(self._run(batch, 1), batch)

    def _run(self, batch: Batch, last_queries: int | None) -> Tensor:
        layers = list(self.layers)
        if self._projected is not None and len(layers) > 1:
            x = self._first_layer(batch, self._projected)
            layers = layers[1:]
        else:
            x = self.inputs(batch)
        return run_layers(
            layers,
            x,
            batch.get("keep"),
            last_queries=last_queries,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    def _first_layer(self, batch: Batch, projected: _Projected) -> Tensor:
        """The first layer for tokens whose part in its input, queries, keys and values is known.

        These are sums of a part of the token and one of the position, and linear maps of such sums are sums again.
        """
        layer = cast("PostNormLayer", self.layers[0])
        index, length = torch.searchsorted(projected.rows, batch["ids"]), batch["ids"].shape[1]
        x, q, k, v = (
            F.embedding(index, tokens) + positions[:length]
            for tokens, positions in zip(projected.tokens, projected.positions)
        )
        return layer.finish(x, layer.attn.mix(q, k, v, batch.get("keep")))

    def embed(
        self,
        data: AnnData | CountSource | AlignedCounts,
        *,
        layer: str | None = None,
        genes: GeneMode = "auto",
        rng: int = 0,
        groups: np.ndarray | None = None,
        batch_tokens: int | None = None,
        mask_obs: np.ndarray | None = None,
    ) -> np.ndarray:
        """Embed all cells, in their order; see :meth:`CellEncoder.embed`."""
        if self.config.padding == "none":
            return super().embed(
                data,
                layer=layer,
                genes=genes,
                rng=rng,
                groups=groups,
                batch_tokens=batch_tokens,
                mask_obs=mask_obs,
            )
        self.to(resolve_device())  # upstream's batches run over the borders of blocks
        source = _aligned(self, data, layer, genes)
        return self.embed_tokens(Tokens.concatenate([tokens for _, tokens in self.token_blocks(source, rng)]))

    def embed_tokens(self, tokens: Tokens, *, batch_tokens: int | None = None, advance: Any = None) -> np.ndarray:
        """Embed tokens; see :meth:`CellEncoder.embed_tokens`. Every distinct token is projected once for all batches."""
        with self._projection(tokens):
            if self.config.padding == "none":
                return super().embed_tokens(tokens, batch_tokens=batch_tokens, advance=advance)
            out = np.full((len(tokens), self.dim), np.nan, dtype=np.float32)
            usable = np.flatnonzero(self.embeddable(tokens))
            for start in range(0, len(usable), self.config.batch_size):
                cells = usable[start : start + self.config.batch_size]
                out[cells] = self._embed_batch(tokens, cells)
            if advance is not None:
                advance(len(tokens))
            return out

    def _project(self, rows: Tensor) -> _Projected:
        scale, attn = math.sqrt(self.config.width), cast("PostNormLayer", self.layers[0]).attn
        parts = [self.encode(self.token_rows(piece)) * scale for piece in rows.split(_ROWS_AT_ONCE)]
        tokens = torch.cat(parts)
        bias = [linear(torch.zeros_like(tokens[:1])) for linear in (attn.q, attn.k, attn.v)]
        return _Projected(
            rows.to(self.device),
            (tokens, *(linear(tokens) for linear in (attn.q, attn.k, attn.v))),
            (self.positions, *(linear(self.positions) - b for linear, b in zip((attn.q, attn.k, attn.v), bias))),
        )

    @contextmanager
    def _projection(self, tokens: Tokens) -> Iterator[None]:
        """Project the distinct tokens; forgotten afterwards, so that it never outlives the weights."""
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                rows = torch.from_numpy(np.union1d(tokens.ids, [self.config.pad]).astype(np.int64))
                if len(rows) and (rows[0] < 0 or rows[-1] >= self.config.n_tokens):
                    self.collate(tokens)  # says what is wrong
                self._projected = self._project(rows)
            yield
        finally:
            self._projected = None
            self.train(was_training)


class _Projected(NamedTuple):
    """Distinct tokens: their ids, and their and the positions' part in the input, queries, keys and values."""

    rows: Tensor
    tokens: tuple[Tensor, Tensor, Tensor, Tensor]
    positions: tuple[Tensor, Tensor, Tensor, Tensor]


def _sizes(state: Mapping[str, Tensor], table: Tensor, weights: Path, *, heads: int | None) -> UCEConfig:
    """Sizes from the shapes of the tensors; heads and lengths from a `config.json` where there is one."""
    try:
        first = "transformer_encoder.layers.0."
        sizes = {
            "token_dim": state["encoder.0.weight"].shape[1],
            "width": state["encoder.0.weight"].shape[0],
            "ffn_dim": state[first + "linear1.weight"].shape[0],
            "decoder_dim": state["decoder.0.0.weight"].shape[0],
            "dim": state["decoder.3.weight"].shape[0],
            "positions": state["pos_encoder.pe"].shape[0],
            "n_tokens": table.shape[0],
        }
    except (KeyError, IndexError) as error:
        msg = f"{weights} is not a UCE checkpoint: {error} is missing."
        raise ValueError(msg) from error
    if table.shape[1] != sizes["token_dim"]:
        msg = f"The token table of {weights} has {table.shape[1]} columns, the network expects {sizes['token_dim']}."
        raise ValueError(msg)
    numbers = {int(found[1]) for name in state if (found := re.match(r"transformer_encoder\.layers\.(\d+)\.", name))}
    sizes["layers"] = max(numbers) + 1
    told = _published_options(sizes, weights)
    if heads is not None:
        told["heads"] = heads
    return UCEConfig(**{**sizes, **told})


def _published_options(sizes: Mapping[str, int], weights: Path) -> dict[str, Any]:
    for folder in (weights.parent, weights.parent.parent):
        path = folder / "config.json"
        if not path.is_file():
            continue
        published = read_json(path)
        if "nhead" not in published:
            continue  # another program's
        for ours, theirs in (("width", "d_model"), ("layers", "nlayers"), ("n_tokens", "n_tokens")):
            if published.get(theirs, sizes[ours]) != sizes[ours]:
                msg = f"{path} says {theirs}={published[theirs]}, but {weights} has {sizes[ours]}. Take both from one checkpoint."
                raise ValueError(msg)
        return {ours: published[theirs] for theirs, ours in CONFIG_KEYS.items() if theirs in published}
    return {}


CONFIG_KEYS = {
    "nhead": "heads",
    "sample_size": "sample_size",
    "pad_length": "max_length",
    "pad_token_idx": "pad",
    "chrom_token_right_idx": "closing",
    "cls_token_idx": "cls",
    "species": "species",
    "dropout": "dropout",
}
RENAMES = {
    r"^pos_encoder\.pe$": "positions",
    r"^encoder\.0": "project",
    r"^encoder\.2": "project_norm",
    r"^transformer_encoder\.": "",
    r"self_attn\.in_proj_": "attn.qkv.",
    r"self_attn\.out_proj": "attn.o",
    r"(layers\.\d+)\.linear1": r"\1.up",
    r"(layers\.\d+)\.linear2": r"\1.down",
    r"(layers\.\d+)\.norm1": r"\1.attn_norm",
    r"(layers\.\d+)\.norm2": r"\1.ffn_norm",
}
DROPPED = (r"pe_embedding\.", r"binary_decoder\.", r"gene_embedding_layer\.")
