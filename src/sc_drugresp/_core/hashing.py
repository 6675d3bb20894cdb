"""SHA-256 of files, remembered for as long as a file does not change, and of data."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np

from .log import logger
from .settings import settings

_SMALL = 16_000_000  # bytes below which hashing is as quick as remembering
_MOST = 500


def sha256(path: Path) -> str:
    """SHA-256 of a file; of a large one, from the cache if path, size and time of change are the same."""
    status = path.stat()
    if status.st_size < _SMALL:
        return _compute(path)
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    store = settings.cache_dir / "sha256.json"
    known = _read(store)
    if key not in known:
        known[key] = _compute(path)
        _write(store, dict(list(known.items())[-_MOST:]))
    return known[key]


def _compute(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(store: Path) -> dict[str, str]:
    try:
        return dict(json.loads(store.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}  # no store yet, or a damaged one: hashes are computed anew


def _write(store: Path, known: dict[str, str]) -> None:
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=store.parent, delete=False, encoding="utf-8") as draft:
            json.dump(known, draft)
        Path(draft.name).replace(store)
    except OSError as error:
        logger.debug("hashes are not remembered: %s", error)


def data_hash(values: np.ndarray, y: np.ndarray, groups: np.ndarray) -> str:
    """SHA-256 of what a result rests on: a value or row of values per cell, its label and its sample, in order."""
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes())
    digest.update(np.ascontiguousarray(y, dtype=np.int8).tobytes())
    digest.update("\n".join(np.asarray(groups).astype(str)).encode())
    return digest.hexdigest()
