"""The base class of all foundation models: a network and the loop that applies it to a data set."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from .._core.arguments import checked
from .._core.progress import progress_bar
from .._core.rng import seed_of
from .._data import CountSource, Tokens, read_counts, token_batches
from .._data.counts import AlignedCounts
from ._driver import batch_budget, embed_batch, evaluating
from ._engines import check_engine, device_of, running
from ._memory import Limit
from ._network import Batch as Batch
from ._network import CellNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anndata import AnnData

    from .._core.kinds import BatchTokens, Engine, Precision
    from .._core.rng import Rng
    from .._data import CountBlock
    from .._data.vocab import GeneMode


class CellEncoder(CellNetwork):
    """A pretrained network that turns the counts of a cell into a vector.

    A model defines four methods: :meth:`from_files`, :meth:`tokenize_block`, :meth:`inputs` and :meth:`pool`, and puts
    its layers into `layers`. Genes, blocks, batches, device and progress are shared. Options of a model (pooling,
    length limit, ...) are the fields of its `Config`.

    Attributes
    ----------
    expects, aligns_genes, needs_fit, tunable, set_based
        What the model can do, as for every embedder, see :class:`~sc_drugresp.models._embedder.Embedder`.
    max_waste
        Largest share of padding in a batch.
    min_tokens
        Fewest tokens of a cell that has an embedding.
    """

    expects: Literal["counts", "any"] = "counts"
    aligns_genes: ClassVar[bool] = True
    needs_fit: ClassVar[bool] = False
    tunable: ClassVar[bool] = True
    set_based: ClassVar[bool] = False
    max_waste: ClassVar[float] = 0.05
    min_tokens: int = 1

    @property
    def blockwise(self) -> bool:
        """Whether a block of cells can be embedded by itself, as it is among the others."""
        return not self.set_based

    @abstractmethod
    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Tokenize a block of cells; the tokens of a cell depend on nothing but its counts and the seed."""

    def sizes(self, tokens: Tokens) -> np.ndarray:
        """Length of each cell in a batch, shape `(n_cells,)`, from which the size of a batch is computed."""
        return tokens.lengths

    def embeddable(self, tokens: Tokens) -> np.ndarray:
        """Which cells have an embedding, shape `(n_cells,)`, bool; the rows of the others become NaN."""
        return tokens.lengths >= self.min_tokens

    def token_blocks(
        self, source: AlignedCounts, seed: int, rows: np.ndarray | None = None
    ) -> Iterator[tuple[int, Tokens]]:
        """Yield `(start, tokens)` for each block of cells."""
        for block in source.blocks(rows=rows):
            yield block.start, self.tokenize_block(block, seed)

    def batches(self, tokens: Tokens, cells: np.ndarray, budget: int) -> Iterator[np.ndarray]:
        """Split `cells` so that each batch has at most `budget` padded tokens and little padding."""
        for chosen in token_batches(self.sizes(tokens)[cells], budget, max_waste=self.max_waste):
            yield cells[chosen]

    def embed_batches(self, tokens: Tokens, cells: np.ndarray, limit: Limit) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield batches of `cells` and their embeddings; where memory runs out, this batch and those after it are smaller."""
        sizes, left = self.sizes(tokens), cells
        while len(left):
            batches = list(self.batches(tokens, left, limit.now))
            left = left[:0]
            for done, batch in enumerate(batches):
                values = limit.attempt(lambda rows: embed_batch(self, tokens, rows), batch)
                if values is None:
                    left = np.sort(np.concatenate(batches[done:]))
                    if 1 < len(batch) <= len(next(iter(self.batches(tokens, left, 1)))):
                        limit.give_up(f"{len(batch)} cells")
                    limit.shrink(len(batch), int(sizes[batch].max(initial=1)))
                    break
                yield batch, values

    @contextmanager
    def shared(self, tokens: Tokens) -> Iterator[None]:
        """Hold what all batches of a block of tokens share, for as long as they are computed."""
        yield

    def embed_block(self, tokens: Tokens, limit: Limit, advance: Callable[[int], Any]) -> np.ndarray:
        """Embed the cells of one block, shape `(n_cells, dim)`."""
        out = np.full((len(tokens), self.dim), np.nan, dtype=np.float32)
        usable = np.flatnonzero(self.embeddable(tokens))
        with self.shared(tokens):
            for cells, values in self.embed_batches(tokens, usable, limit):
                out[cells] = values
                advance(len(cells))
        advance(len(tokens) - len(usable))
        return out

    def embed_blocks(
        self,
        blocks: Iterable[tuple[int, Tokens]],
        n_cells: int,
        groups: np.ndarray | None,
        batch_tokens: BatchTokens,
        advance: Callable[[int], Any],
    ) -> np.ndarray:
        """Embed blocks as :meth:`token_blocks` yields them, in evaluation mode."""
        out = np.empty((n_cells, self.dim), dtype=np.float32)
        limit = Limit(batch_budget(self.device, batch_tokens), self.device)
        with evaluating(self):
            for start, tokens in blocks:
                out[start : start + len(tokens)] = self.embed_block(tokens, limit, advance)
        return out

    @checked
    def tokenize(
        self,
        data: AnnData | CountSource,
        *,
        layer: str | None = None,
        genes: GeneMode = "auto",
        rng: Rng = 0,
        rows: np.ndarray | None = None,
    ) -> Tokens:
        """Tokenize all cells, or the cells in `rows`.

        Parameters
        ----------
        data
            Annotated data, or a reader made from it.
        layer
            Matrix with raw counts; `None` finds it.
        genes
            `'exact'` matches genes as upstream does, `'auto'` also through Ensembl ids and aliases.
        rng
            Seed of the per-cell random streams of models that sample, or a generator to draw it from.
        rows
            Row numbers of the cells to tokenize, in this order.

        Returns
        -------
        One ragged sequence per cell, see :class:`~sc_drugresp.models.Tokens`.
        """
        source = self._aligned(data, layer, genes)
        return Tokens.concatenate([tokens for _, tokens in self.token_blocks(source, seed_of(rng), rows)])

    def read(self, data: AnnData, layer: str | None) -> CountSource:
        """Find the matrix to read."""
        return read_counts(data, layer=layer, expect=self.expects)

    @checked
    def embed(
        self,
        data: AnnData | CountSource | AlignedCounts,
        *,
        layer: str | None = None,
        genes: GeneMode = "auto",
        rng: Rng = 0,
        groups: np.ndarray | None = None,
        batch_tokens: BatchTokens = "auto",
        engine: Engine = "torch",
        precision: Precision = "float32",
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
            Most padded tokens in a batch. `'auto'` starts with `settings.batch_tokens`, on a CPU with what its caches hold.
            Where memory runs out, the batch is halved, and those after it stay as small; the result is the same.
        engine, precision
            As in :func:`~sc_drugresp.tl.embed`.

        Returns
        -------
        Array of shape `(n_cells, dim)`, float32; NaN rows for cells without anything to embed.

        Raises
        ------
        MemoryError
            There is not enough memory for a single cell.
        """
        check_engine(type(self), self.name or type(self).__name__, engine, precision)
        source = self._aligned(data, layer, genes)
        self.to(device_of(engine))
        bar = progress_bar(total=source.n_obs, desc=self.name or type(self).__name__)
        with bar, running(self, engine, precision):
            return self.embed_blocks(
                self.token_blocks(source, seed_of(rng)), source.n_obs, groups, batch_tokens, bar.update
            )

    def report(self) -> dict[str, Any]:
        """What `.uns` notes beside genes and cells; nothing for most models."""
        return {}

    @checked
    def embed_tokens(
        self,
        tokens: Tokens,
        *,
        groups: np.ndarray | None = None,
        batch_tokens: BatchTokens = "auto",
        engine: Engine = "torch",
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Embed tokens made by :meth:`tokenize` or recorded elsewhere (build them with :class:`Tokens`).

        Parameters
        ----------
        tokens
            Ragged sequences.
        groups, batch_tokens, engine, precision
            As in :meth:`embed`.

        Returns
        -------
        Array of shape `(n_cells, dim)`, float32.
        """
        check_engine(type(self), self.name or type(self).__name__, engine, precision)
        with running(self, engine, precision):
            return self.embed_blocks([(0, tokens)], len(tokens), groups, batch_tokens, lambda _: None)

    def _aligned(
        self, data: AnnData | CountSource | AlignedCounts, layer: str | None, genes: GeneMode
    ) -> AlignedCounts:
        """Match the genes of the data to the vocabulary."""
        if isinstance(data, AlignedCounts):
            return data
        source = data if isinstance(data, CountSource) else self.read(data, layer)
        out = source.align(self.vocab, genes)
        if not out.alignment.matched.any():
            found = ", ".join(map(repr, source.names[:3]))
            msg = (
                f"None of the {source.n_vars} genes is known to {self.name or type(self).__name__}, which expects "
                f"{self.vocab.kind} names such as {self.vocab.names[0]!r}; found {found}. "
                "Run sc_drugresp.pp.harmonize_genes(adata) first."
            )
            raise ValueError(msg)
        return out
