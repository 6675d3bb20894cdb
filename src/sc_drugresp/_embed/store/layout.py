"""Where the parts of a run lie, and which cells each of its blocks holds."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SUFFIX = ".zarr"


@dataclass(frozen=True)
class Layout:
    """Paths of a run: a zarr array, and in its folder one of ours, which zarr does not look into.

    Parameters
    ----------
    root
        Folder of the array.
    """

    root: Path

    @classmethod
    def of(cls, out: str | PathLike[str]) -> Layout:
        """The run that a user named.

        Raises
        ------
        ValueError
            The name does not end in `.zarr`, or something else lies there.
        """
        root = Path(fspath(out)).expanduser().absolute()
        if root.suffix != SUFFIX:
            msg = f"`out` must be the name of a folder that ends in {SUFFIX!r}, found {str(out)!r}."
            raise ValueError(msg)
        if root.exists():
            holds = {path.name for path in root.iterdir()} if root.is_dir() else {"a file"}
            if holds and "sc_drugresp" not in holds:
                msg = f"`out` names {str(out)!r}, which is there and was not written by tl.embed. Choose another name, or remove it."
                raise ValueError(msg)
        return cls(root)

    @property
    def notes(self) -> Path:
        """Folder of everything that is not the array."""
        return self.root / "sc_drugresp"

    @property
    def run(self) -> Path:
        """What the run computes; written last, so that a run with it is whole."""
        return self.notes / "run.json"

    @property
    def fit(self) -> Path:
        """What a baseline has learned."""
        return self.notes / "fit.safetensors"

    @property
    def done(self) -> Path:
        """Folder with one record for each finished block."""
        return self.notes / "done"

    def record(self, block: int) -> Path:
        """What is known of a finished block."""
        return self.done / f"{block:06d}.json"

    def chunk(self, block: int) -> Path:
        """The only file of a block."""
        return self.root / "c" / str(block) / "0"


@dataclass(frozen=True)
class Blocks:
    """Cells in blocks of one size, the last one smaller.

    Parameters
    ----------
    n_cells, size
        Cells in all and in a block.
    """

    n_cells: int
    size: int

    @property
    def count(self) -> int:
        """Number of blocks."""
        return -(-self.n_cells // self.size)

    def rows(self, first: int, last: int | None = None) -> range:
        """Cells of a block, or of all blocks from `first` to `last`."""
        return range(first * self.size, min(((first if last is None else last) + 1) * self.size, self.n_cells))

    def share(self, shard: tuple[int, int] | None) -> range:
        """Blocks of a shard; all of them without one."""
        i, n = shard or (0, 1)
        return range(i * self.count // n, (i + 1) * self.count // n)


def stretches(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each stretch of blocks that follow each other.

    Examples
    --------
    >>> stretches([0, 1, 2, 5])
    [(0, 2), (5, 5)]
    """
    out: list[tuple[int, int]] = []
    for block in sorted(blocks):
        if out and out[-1][1] == block - 1:
            out[-1] = out[-1][0], block
        else:
            out.append((block, block))
    return out
