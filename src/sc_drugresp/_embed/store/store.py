"""The array of a run and its finished blocks: written so that no kill loses one, and read so that no damage goes unseen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from ..._core.files import sync, write_text
from .errors import FULL, RunStoppedError, stopped
from .layout import Blocks, Layout
from .records import Record, hash_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FORMAT = 1
"""Of the files of ours beside the array."""
_SHARE = 0.01
"""Of the finished blocks, those that are read again to see whether they are whole."""


@dataclass(frozen=True)
class BlockStore:
    """A zarr array of shape `(n_cells, dim)`, one chunk and one file for each block, and a record for each finished one.

    Parameters
    ----------
    layout
        Where it lies.
    blocks
        Its division.
    array
        The zarr array.
    info
        Content of `run.json`: `format`, `fingerprint`, and `run` (`block_cells`, `batch_tokens`, `dim`, `fit`).
    """

    layout: Layout
    blocks: Blocks
    array: Any
    info: Mapping[str, Any]

    @classmethod
    def create(cls, layout: Layout, fingerprint: Mapping[str, Any], run: Mapping[str, Any]) -> Self:
        """An empty store; what an earlier attempt left is replaced."""
        import zarr

        layout.done.mkdir(parents=True, exist_ok=True)
        (layout.root / "zarr.json").unlink(missing_ok=True)
        zarr.create_array(
            layout.root,
            shape=(fingerprint["cells"], run["dim"]),
            chunks=(run["block_cells"], run["dim"]),
            dtype="<f4",
            compressors=None,
            fill_value=np.nan,
            zarr_format=3,
            config={"write_empty_chunks": True},  # a block without any embedding is a file like the others
        )
        for place in (layout.root / "zarr.json", layout.root, layout.root.parent):
            sync(place)
        write_text(layout.run, json.dumps({"format": FORMAT, "fingerprint": fingerprint, "run": run}, indent=1))
        return cls.open(layout)

    @classmethod
    def open(cls, layout: Layout) -> Self:
        """A store that is there.

        Raises
        ------
        ValueError
            It is damaged, or of another version.
        """
        import zarr

        try:
            info = json.loads(layout.run.read_text(encoding="utf-8"))
            found, blocks = info["format"], Blocks(info["fingerprint"]["cells"], info["run"]["block_cells"])
            array = zarr.open_array(layout.root, mode="r+", config={"write_empty_chunks": True})
            whole = array.shape == (blocks.n_cells, info["run"]["dim"]) and array.chunks[0] == blocks.size
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            msg = f"{layout.root} is damaged ({type(error).__name__}: {error}). Remove it and start again."
            raise ValueError(msg) from error
        if found != FORMAT or not whole:
            what = f"format {found!r}" if found != FORMAT else f"an array of {array.shape}"
            msg = f"{layout.root} has {what}, which this version does not read. Remove it, or take the version that wrote it."
            raise ValueError(msg)
        return cls(layout, blocks, array, info)

    def read(self, block: int) -> np.ndarray:
        """Values of a block, shape `(n_cells, dim)`, float32; NaN where it was not finished."""
        rows = self.blocks.rows(block)
        return np.asarray(self.array[rows.start : rows.stop])

    def write(self, block: int, values: np.ndarray, record: Record) -> None:
        """Put a block on the disk, then its record.

        Raises
        ------
        OSError
            The disk is full or failed; nothing of the block is left then.
        """
        chunk, whole = self.layout.chunk(block), False
        try:
            self.array[record.start : record.stop] = values
            for place in (chunk, chunk.parent, chunk.parent.parent):
                sync(place)
            record.write(self.layout.record(block))
            whole = True
        finally:
            if not whole:
                self.drop(block)

    def drop(self, block: int) -> None:
        """Remove a block, its record first, and what a killed process left of it."""
        record = self.layout.record(block)
        record.unlink(missing_ok=True)
        self.layout.chunk(block).unlink(missing_ok=True)
        self.sweep([block])

    def sweep(self, blocks: Iterable[int]) -> None:
        """Remove what killed processes left beside the files of these blocks, which nobody else may be writing."""
        mine = set(blocks)
        for place in self.layout.done.glob(".*.json.*"):
            number = place.name.split(".")[1]
            if number.isdigit() and int(number) in mine:
                place.unlink(missing_ok=True)
        for block in mine:
            for place in self.layout.chunk(block).parent.glob("*.partial"):
                place.unlink(missing_ok=True)

    def records(self) -> dict[int, Record]:
        """Records of the finished blocks; damaged records are left out."""
        found = {}
        for block in range(self.blocks.count):
            path = self.layout.record(block)
            record = Record.read(path) if path.exists() else None
            rows = self.blocks.rows(block)
            if record is not None and (record.start, record.stop) == (rows.start, rows.stop):
                found[block] = record
        return found

    def damaged(self, records: Mapping[int, Record], check: Literal["sample", "all"]) -> list[int]:
        """Finished blocks whose values are not those that were written.

        A file that is gone or has another length is always noticed. With `'sample'`, the last block of every writer, which a crash of the machine is most likely to have met, and one in a
        hundred of the others, drawn anew each time, are read; with `'all'`, all of them.
        """
        chosen = set(records)
        length = self.array.chunks[0] * self.array.chunks[1] * self.array.dtype.itemsize
        wrong = {block for block in records if _length(self.layout.chunk(block)) != length}
        if check == "sample":
            last = {record.writer: block for block, record in sorted(records.items())}
            drawn = np.random.default_rng().random(len(records)) < _SHARE
            chosen = {*last.values(), *(block for block, taken in zip(sorted(records), drawn) if taken)}
        return sorted(wrong | {block for block in chosen - wrong if not self._is_whole(block, records[block])})

    def _is_whole(self, block: int, record: Record) -> bool:
        try:
            return hash_values(self.read(block)) == record.sha256
        except OSError:  # the disk cannot read it any more
            return False

    def stopped(self, error: OSError) -> RunStoppedError:
        """What to raise where a block could not be written."""
        if error.errno in FULL:
            missing = self.blocks.count - len(self.records())
            megabytes = missing * self.blocks.size * self.array.shape[1] * self.array.dtype.itemsize / 1e6
            todo = (
                f"the disk is full: free {max(megabytes, 0.1):,.1f} MB, which the other {missing} need, and call again"
            )
        else:
            todo = (
                f"the disk fails ({error.strerror or error}): repair it, or copy the folder to another, and call again"
            )
        return stopped(error, self.told(todo))

    def told(self, todo: str) -> str:
        """How much is safe, and what to do."""
        return f"{len(self.records())} of {self.blocks.count} blocks are safe in {self.layout.root}; {todo}."


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
