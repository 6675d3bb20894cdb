"""SHA-256 of files, remembered for as long as a file does not change, and of data."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from .files import write_text
from .log import logger
from .settings import settings

if TYPE_CHECKING:
    from pathlib import Path

_SMALL = 16_000_000  # bytes below which hashing is as quick as remembering
_MOST = 500


def sha256(path: Path) -> str:
    """SHA-256 of a file; of a large one, from the cache if path, size and time of change are the same."""
    status = path.stat()
    if status.st_size < _SMALL:
        return _compute(path)
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    store = settings.cache_dir / "sha256.json"
    try:
        known = dict(json.loads(store.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        known = {}  # no store yet, or a damaged one: hashes are computed anew
    if key not in known:
        known[key] = _compute(path)
        try:
            write_text(store, json.dumps(dict(list(known.items())[-_MOST:])))
        except OSError as error:
            logger.debug("hashes are not remembered: %s", error)
    return str(known[key])


def _compute(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_hash(values: np.ndarray, y: np.ndarray, groups: np.ndarray) -> str:
    """SHA-256 of what a result rests on: a value or row of values per cell, its label and its sample, in order."""
    digest = hashlib.sha256(np.ascontiguousarray(values).data)  # read where it is, not copied
    digest.update(np.ascontiguousarray(y, dtype=np.int8).tobytes())
    digest.update("\n".join(np.asarray(groups).astype(str)).encode())
    return digest.hexdigest()
