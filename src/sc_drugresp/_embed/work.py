"""Blocks of cells, each embedded by itself: read and tokenized in one thread, computed in another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from .store.fingerprint import hash_block
from .store.layout import Blocks, stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

    from .._data.counts import AlignedCounts, CountBlock
    from .job import Job

T = TypeVar("T")
_END = object()


@dataclass(frozen=True)
class Piece:
    """A block that has been read.

    Parameters
    ----------
    block
        Its number.
    inputs
        SHA-256 of its counts.
    seen, matched
        Its counts in all genes, and in those that the model knows.
    prepared
        What is computed from.
    """

    block: int
    inputs: str
    seen: float
    matched: float
    prepared: Any


@dataclass(frozen=True)
class Work:
    """How a block is embedded.

    Parameters
    ----------
    aligned
        The matrix, seen through the genes of the model.
    prepare
        What is done in the other thread: tokens of a block.
    compute
        Embedding of what was prepared, shape `(n_cells, dim)`, float32; told how many cells are done.
    dim
        Width of the embedding.
    """

    aligned: AlignedCounts
    prepare: Callable[[CountBlock], Any]
    compute: Callable[[Any, Callable[[int], Any]], np.ndarray]
    dim: int

    @classmethod
    def of_encoder(cls, job: Job, batch_tokens: int) -> Self:
        """Work of a pretrained network, which is moved to the device of the settings."""
        from ..models._driver import evaluating
        from ..models._engines import device_of
        from ..models._memory import Limit

        encoder: Any = job.embedder
        encoder.to(device_of(job.engine))

        def compute(tokens: Any, advance: Callable[[int], Any]) -> np.ndarray:
            with evaluating(encoder):
                # A limit for each block: how its cells are batched must not depend on the blocks before it.
                return encoder.embed_block(tokens, Limit(batch_tokens, encoder.device), advance)

        aligned = cast("AlignedCounts", job.aligned)
        return cls(aligned, lambda block: encoder.tokenize_block(block, job.seed), compute, encoder.dim)

    @classmethod
    def of_counts(cls, aligned: AlignedCounts, embedder: Any) -> Self:
        """Work of what embeds counts as they are: a baseline that has learned, or a student."""

        def compute(block: CountBlock, advance: Callable[[int], Any]) -> np.ndarray:
            advance(len(block))
            return embedder.embed_block(block)

        return cls(aligned, lambda block: block, compute, embedder.dim)

    def pieces(self, blocks: Blocks, wanted: Iterable[int], *, prepare: bool = True) -> Iterator[Piece]:
        """Read blocks, and prepare them unless it is enough to know what they hold."""
        aligned = self.aligned
        for first, last in stretches(wanted):
            seen, matched = aligned.counts_seen, aligned.counts_matched
            for number, block in enumerate(aligned.blocks(blocks.size, blocks.rows(first, last)), start=first):
                prepared = self.prepare(block) if prepare else None
                yield Piece(
                    number, hash_block(block), aligned.counts_seen - seen, aligned.counts_matched - matched, prepared
                )
                seen, matched = aligned.counts_seen, aligned.counts_matched


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, each of them made in another thread while the one before it is in use."""
    with ThreadPoolExecutor(1, "ahead") as pool:
        source = iter(items)
        following = pool.submit(next, source, _END)
        while (item := following.result()) is not _END:
            following = pool.submit(next, source, _END)
            yield cast("T", item)
            del item
