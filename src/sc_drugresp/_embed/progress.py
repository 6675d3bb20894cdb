"""How far a run into a store is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._core.arguments import check_fields
from .store.layout import Blocks, stretches

if TYPE_CHECKING:
    from .store.store import BlockStore


@dataclass(frozen=True)
class EmbeddingRun:
    """What lies in the store that :func:`~sc_drugresp.tl.embed` writes with `out=`, and what the call added to it.

    Parameters
    ----------
    path
        Folder of the store.
    n_cells, dim
        Shape of the embedding.
    block_cells, blocks
        Cells in a block, and blocks in all.
    fingerprint
        SHA-256 of everything that the embedding depends on apart from the counts.
    missing
        First and last block of each stretch that is not there yet, of all shards.
    shard
        Which part of the blocks the call was for; `None` for all.
    resumed, computed
        Blocks of this part that were there before, and that were computed now.
    not_embedded
        Cells in finished blocks that the model cannot embed.
    seconds
        What computing took.
    cells_per_second
        Cells computed in a second; 0 if there were none.
    """

    path: str
    n_cells: int
    dim: int
    block_cells: int
    blocks: int
    fingerprint: str
    missing: tuple[tuple[int, int], ...] = ()
    shard: tuple[int, int] | None = None
    resumed: int = 0
    computed: int = 0
    not_embedded: int = 0
    seconds: float = 0.0
    cells_per_second: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def blocks_done(self) -> int:
        """Blocks that are there, of all shards."""
        return self.blocks - sum(last - first + 1 for first, last in self.missing)

    @property
    def cells_missing(self) -> int:
        """Cells in blocks that are not there."""
        blocks = Blocks(self.n_cells, self.block_cells)
        return sum(len(blocks.rows(first, last)) for first, last in self.missing)

    @property
    def complete(self) -> bool:
        """Whether every block of every shard is there."""
        return not self.missing

    def note(self) -> dict[str, Any]:
        """What `.uns` says of the store."""
        found = {
            "path": self.path,
            "block_cells": self.block_cells,
            "blocks": self.blocks,
            "blocks_done": self.blocks_done,
        }
        return found | {"fingerprint": self.fingerprint}

    def __str__(self) -> str:
        part = "" if self.shard is None else f" of shard {self.shard[0]} of {self.shard[1]}"
        speed = f" in {self.seconds:.0f} s ({self.cells_per_second:,.0f} cells/s)" if self.computed else ""
        shown = [str(first) if first == last else f"{first} to {last}" for first, last in self.missing[:4]]
        more = " and others" if len(self.missing) > len(shown) else ""
        rest = f"missing: blocks {', '.join(shown)}{more}" if self.missing else "complete"
        return (
            f"{self.path}: {self.blocks_done} of {self.blocks} blocks ({self.n_cells:,} x {self.dim}); {self.computed} computed"
            f"{part}{speed}, {self.resumed} there before; {rest}"
        )


def run_of(store: BlockStore, done: set[int], **now: Any) -> EmbeddingRun:
    """The state of a store in which the blocks `done` are finished."""
    blocks, (n_cells, dim) = store.blocks, store.array.shape
    missing = tuple(stretches(set(range(blocks.count)) - done))
    text = json.dumps(store.info["fingerprint"], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return EmbeddingRun(str(store.layout.root), n_cells, dim, blocks.size, blocks.count, digest, missing, **now)
