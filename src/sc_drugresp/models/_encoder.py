"""The one interface of all foundation models, and the driver that embeds a data set with it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .._core.device import resolve_device
from .._core.log import warn
from .._core.progress import progress_bar
from .._core.settings import settings
from .._data import CountBlock, CountSource, GeneVocab, Tokens, read_counts, token_batches
from ._weights import load_strict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from anndata import AnnData

    from .._data.counts import AlignedCounts
    from .._data.vocab import GeneMode

Batch = dict[str, Tensor]
CPU_BATCH_TOKENS = 2048
"""Tokens per thread in a batch on a CPU; smaller batches use the matrix units less, larger ones leave the caches."""


class CellEncoder(nn.Module):
    """A pretrained network that turns the counts of a cell into a vector.

    A model writes five methods: :meth:`from_files`, :meth:`tokenize_block`, :meth:`collate`, :meth:`hidden` and
    :meth:`pool`; genes, blocks, buckets, device and progress are shared. Options of a model (pooling, length limit,
    ...) are the fields of its `Config`.

    Attributes
    ----------
    config
        Sizes and options, a frozen dataclass.
    vocab
        The genes that the model knows.
    lora_targets
        Regular expression that names the `nn.Linear` modules for adapters.
    set_based
        Whether the cells of one call see each other.
    max_waste
        Largest share of padding in a batch.
    """

    Config: ClassVar[type]
    lora_targets: ClassVar[str] = r".*\.(attn\.[qkvo]|up|down)"
    set_based: ClassVar[bool] = False
    needs_fit: ClassVar[bool] = False
    aligns_genes: ClassVar[bool] = True
    max_waste: ClassVar[float] = 0.05

    def __init__(self, config: Any, vocab: GeneVocab) -> None:
        super().__init__()
        self.config, self.vocab = config, vocab
        self.name = ""
        self.checkpoint: dict[str, Any] = {}
        self.gradient_checkpointing = False

    # What a model writes ------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Width of the embedding."""
        return int(self.config.dim)

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> CellEncoder:
        """Build the model from its published files, by role; `options` replace fields of `Config`."""
        msg = f"{cls.__name__} does not define `from_files`."
        raise TypeError(msg)

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Tokens of some cells; a cell's tokens depend on its counts and the seed alone."""
        msg = f"{type(self).__name__} does not define `tokenize_block`."
        raise TypeError(msg)

    def collate(self, tokens: Tokens) -> Batch:
        """Padded tensors of all cells in `tokens`, on the CPU."""
        msg = f"{type(self).__name__} does not define `collate`."
        raise TypeError(msg)

    def hidden(self, batch: Batch) -> Tensor:
        """Output of the last layer for every token, shape `(cells, length, width)`."""
        msg = f"{type(self).__name__} does not define `hidden`."
        raise TypeError(msg)

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Cell embedding from the output of the last layer, shape `(cells, dim)`; differentiable."""
        msg = f"{type(self).__name__} does not define `pool`."
        raise TypeError(msg)

    def forward(self, batch: Batch) -> Tensor:
        """Cell embedding, shape `(cells, dim)`. A model may skip work here that `pool` does not read."""
        return self.pool(self.hidden(batch), batch)

    def sizes(self, tokens: Tokens) -> np.ndarray:
        """Length of each cell inside a batch, shape `(n_cells,)`: what the cost of a batch is reckoned from."""
        return tokens.lengths

    def embeddable(self, tokens: Tokens) -> np.ndarray:
        """Which cells have an embedding, shape `(n_cells,)`, bool; the rows of the others become NaN."""
        return tokens.lengths > 0

    # What is shared -----------------------------------------------------------------------------------------------

    @classmethod
    def build(cls, config: Any, vocab: GeneVocab, state: Mapping[str, Tensor], *, source: object) -> CellEncoder:
        """Build on the `meta` device, load strictly, and switch to evaluation."""
        with torch.device("meta"):
            model = cls(config, vocab)
        load_strict(model, cls.remap(dict(state)), source=source)
        return model.eval()

    @classmethod
    def random(cls, config: Any = None, vocab: GeneVocab | None = None, *, seed: int = 0) -> CellEncoder:
        """Build with random parameters, for tests and benchmarks of speed; `None` is the published size.

        Parameters
        ----------
        config
            Sizes and options.
        vocab
            Genes; `None` makes up as many names as the published checkpoint knows, see :meth:`example_vocab`.
        seed
            Seed of the parameters.
        """
        config = cls.Config() if config is None else config
        with torch.device("meta"):
            model = cls(config, cls.example_vocab(config) if vocab is None else vocab)
        generator = torch.Generator().manual_seed(seed)
        state = {name: _random_tensor(name, like, generator) for name, like in model.state_dict().items()}
        load_strict(model, state, source="random parameters")
        return model.eval()

    @classmethod
    def example_vocab(cls, config: Any) -> GeneVocab:
        """A vocabulary of made-up names of the size that a model is published with."""
        return GeneVocab([f"GENE{i}" for i in range(20_000)])

    @staticmethod
    def remap(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published names to ours: pure, drops by name what an embedding does not need."""
        return state

    @classmethod
    def configure(cls, config: Any, options: Mapping[str, Any]) -> Any:
        """Replace fields of a config by the user's options.

        Raises
        ------
        TypeError
            There is no such option.
        """
        known = {field.name for field in dataclasses.fields(config)}
        unknown = sorted(options.keys() - known)
        if unknown:
            msg = f"{cls.__name__} has no option {unknown[0]!r}. Available options: {sorted(known)}."
            raise TypeError(msg)
        return dataclasses.replace(config, **options)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def tokenize(
        self,
        data: AnnData | CountSource,
        *,
        layer: str | None = None,
        genes: GeneMode = "auto",
        rng: int = 0,
        rows: np.ndarray | None = None,
    ) -> Tokens:
        """Tokens of all cells, or of the cells `rows`.

        Parameters
        ----------
        data
            Annotated data, or a reader made from it.
        layer
            Matrix with raw counts; `None` finds it.
        genes
            `'exact'` matches genes as upstream does, `'auto'` also through Ensembl ids and aliases.
        rng
            Seed of the per-cell random streams of models that sample.
        rows
            Row numbers of the cells to tokenize, in this order.

        Returns
        -------
        One ragged sequence per cell, see :class:`~sc_drugresp._data.Tokens`.
        """
        source = _aligned(self, data, layer, genes)
        return Tokens.concatenate([tokens for _, tokens in self.token_blocks(source, rng, rows)])

    def read(self, data: AnnData, layer: str | None) -> CountSource:
        """Find the matrix that this model works on: raw counts, unless a model has an option for something else."""
        return read_counts(data, layer=layer)

    def token_blocks(
        self, source: AlignedCounts, seed: int, rows: np.ndarray | None = None
    ) -> Iterator[tuple[int, Tokens]]:
        """Yield `(start, tokens)` of one block of cells after another."""
        for block in source.blocks(rows=rows):
            yield block.start, self.tokenize_block(block, seed)

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
        """Embed all cells, in their order.

        Parameters
        ----------
        data
            Annotated data, or a reader made from it.
        layer, genes, rng
            As in :meth:`tokenize`.
        groups
            Code of the set that each cell belongs to, shape `(n_cells,)`; read by set-based models only.
        batch_tokens
            Most padded tokens in a batch.
        mask_obs
            Ignored: a pretrained network learns nothing from the data.

        Returns
        -------
        Array of shape `(n_cells, dim)`, float32; NaN rows for cells without anything to embed.
        """
        source = _aligned(self, data, layer, genes)
        out = np.full((source.n_obs, self.dim), np.nan, dtype=np.float32)
        self.to(resolve_device())
        bar = progress_bar(total=source.n_obs, desc=self.name or type(self).__name__)
        with bar:
            for start, tokens in self.token_blocks(source, rng):
                out[start : start + len(tokens)] = self.embed_tokens(
                    tokens, batch_tokens=batch_tokens, advance=bar.update
                )
        return out

    def embed_tokens(self, tokens: Tokens, *, batch_tokens: int | None = None, advance: Any = None) -> np.ndarray:
        """Embed tokens made by :meth:`tokenize` or recorded elsewhere (build them with :class:`Tokens`).

        Parameters
        ----------
        tokens
            Ragged sequences.
        batch_tokens
            Most padded tokens in a batch.
        advance
            Called with the number of cells after each batch.

        Returns
        -------
        Array of shape `(n_cells, dim)`, float32.
        """
        budget = self._batch_tokens() if batch_tokens is None else batch_tokens
        out = np.full((len(tokens), self.dim), np.nan, dtype=np.float32)
        usable = np.flatnonzero(self.embeddable(tokens))
        was_training = self.training
        self.eval()
        try:
            for cells in token_batches(self.sizes(tokens)[usable], budget, max_waste=self.max_waste):
                out[usable[cells]] = self._embed_batch(tokens, usable[cells])
                if advance is not None:
                    advance(len(cells))
        finally:
            self.train(was_training)
        if advance is not None:
            advance(len(tokens) - len(usable))
        return out

    def _batch_tokens(self) -> int:
        """The setting, but on a CPU no more than keeps the activations near its caches (10-25 % faster)."""
        if self.device.type != "cpu":
            return settings.batch_tokens
        return min(settings.batch_tokens, CPU_BATCH_TOKENS * torch.get_num_threads())

    def _embed_batch(self, tokens: Tokens, cells: np.ndarray) -> np.ndarray:
        """One batch; when the device is out of memory, two halves."""
        try:
            with torch.inference_mode():
                batch = {name: tensor.to(self.device) for name, tensor in self.collate(tokens.take(cells)).items()}
                return self(batch).float().cpu().numpy()
        except torch.OutOfMemoryError:
            if len(cells) == 1:
                raise
            torch.cuda.empty_cache()
            warn(
                f"The device ran out of memory with {len(cells)} cells in a batch; trying halves. Lower `batch_tokens`."
            )
            half = len(cells) // 2
            return np.concatenate([self._embed_batch(tokens, cells[:half]), self._embed_batch(tokens, cells[half:])])


def _aligned(encoder: CellEncoder, data: Any, layer: str | None, genes: GeneMode) -> AlignedCounts:
    if hasattr(data, "alignment"):
        return data
    source = data if isinstance(data, CountSource) else encoder.read(data, layer)
    aligned = source.align(encoder.vocab, genes)
    if not aligned.alignment.matched.any():
        found = ", ".join(map(repr, source.names[:3]))
        msg = (
            f"None of the {source.n_vars} genes is known to {encoder.name or type(encoder).__name__}, which expects "
            f"{encoder.vocab.kind} names such as {encoder.vocab.names[0]!r}; found {found}. "
            "Run sc_drugresp.pp.harmonize_genes(adata) first."
        )
        raise ValueError(msg)
    return aligned


def _random_tensor(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Matrices drawn from N(0, 0.02), norms and biases as at the start of training."""
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    if like.ndim > 1:
        return torch.empty(like.shape, dtype=like.dtype).normal_(0.0, 0.02, generator=generator)
    return (torch.ones if name.endswith("weight") else torch.zeros)(like.shape, dtype=like.dtype)
