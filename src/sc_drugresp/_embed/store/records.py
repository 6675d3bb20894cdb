"""What is known of a finished block."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np

from ..._core.files import write_text

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Record:
    """A block counts as finished with its record alone.

    Parameters
    ----------
    start, stop
        Its cells.
    sha256
        Of its values, as little-endian float32.
    not_embedded
        Cells without an embedding.
    inputs
        SHA-256 of its counts, see :func:`~.fingerprint.hash_block`.
    stamp
        State of the file that the counts were read from; `None` for cells in memory.
    counts_seen, counts_matched
        Counts in all genes, and in those that the model knows.
    seconds
        What it took.
    writer
        Host, process and time of its start.
    environment
        What may move the last digit: versions, threads, device.
    """

    start: int
    stop: int
    sha256: str
    not_embedded: int
    inputs: str
    stamp: str | None
    counts_seen: float
    counts_matched: float
    seconds: float
    writer: str
    environment: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record in a file; `None` if it is damaged."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{field.name: found[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write it; it is there complete, and on the disk, or not at all."""
        write_text(path, json.dumps(asdict(self), indent=1))


def hash_values(values: np.ndarray) -> str:
    """SHA-256 of values as they lie on the disk."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").data).hexdigest()
