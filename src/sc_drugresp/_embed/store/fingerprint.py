"""What a run computes, and from what: blocks of two runs that differ in it must not be mixed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._core.json import jsonable
from ..._data.opening import is_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

    from ..._core.kinds import Engine
    from ..._data.counts import CountBlock
    from ..job import Job

_NAMES_AT_ONCE = 65_536


def fingerprint(job: Job, cell_names: Iterable[str]) -> dict[str, Any]:
    """Everything that the embedding of a cell depends on, as plain values by name, apart from the counts.

    Plain fields of the job are taken as they are; so is the whole configuration of the model, not only what was asked for,
    because defaults may change from one version to the next.
    """
    embedder, aligned = job.embedder, job.aligned
    config = getattr(embedder, "config", None)
    options = asdict(config) if is_dataclass(config) and not isinstance(config, type) else dict(job.options)
    if hasattr(embedder, "settings"):
        options = embedder.settings()
    plain = {field.name: getattr(job, field.name) for field in fields(job)}
    found: dict[str, Any] = {name: value for name, value in plain.items() if isinstance(value, str | int | float)}
    found |= {
        "model": embedder.name or job.model,
        "checkpoint": getattr(embedder, "checkpoint", {}).get("sha256"),
        "options": options,
        "matrix": f"{job.source.origin}, {job.source.kind}",
        "cells": job.source.n_obs,
        "cell names": hash_names(cell_names),
        "gene names": hash_names([*job.source.names, "", *(() if job.source.other is None else job.source.other)]),
        "known genes": None,
        "computed by": computed_by(embedder, job.engine),
        "dtype": "float32",
    }
    if aligned is not None:
        columns, ids = (np.ascontiguousarray(part) for part in (aligned.alignment.columns, aligned.alignment.ids))
        found["known genes"] = hashlib.sha256(columns.tobytes() + ids.tobytes()).hexdigest()
    return jsonable(found)


def computed_by(embedder: Any, engine: Engine) -> str:
    """What does the arithmetic; another may round differently."""
    if not hasattr(embedder, "parameters"):
        return "numpy"
    from ...models._engines import device_of

    weights = next(iter(embedder.parameters()), None)
    return f"{'torch' if weights is None else weights.dtype} on {device_of(engine).type}"


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Where two fingerprints differ, in words; parts of nested values are named one by one."""
    out = []
    for name in sorted(stored.keys() | asked.keys()):
        old, new = stored.get(name), asked.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            out += [f"{name}.{inner}" for inner in differences(old, new)]
        elif old != new:
            hashed = all(isinstance(value, str) and len(value) == 64 for value in (old, new))  # nobody compares those
            out.append(name if hashed else f"{name} ({old!r:.60} there, {new!r:.60} now)")
    return out


def hash_names(names: Iterable[str]) -> str:
    """SHA-256 of names in order, without a copy of all of them."""
    digest, piece = hashlib.sha256(), []
    for name in names:
        piece.append(str(name))
        if len(piece) == _NAMES_AT_ONCE:
            digest.update(("\n".join(piece) + "\n").encode())
            piece = []
    digest.update("\n".join(piece).encode())
    return digest.hexdigest()


def hash_block(block: CountBlock) -> str:
    """SHA-256 of the counts of a block, and of what else is told of its cells, as the model sees them."""
    digest = hashlib.sha256()
    for part, dtype in ((block.indptr, "<i8"), (block.gene_ids, "<i4"), (block.counts, "<f4"), (block.totals, "<f8")):
        digest.update(np.ascontiguousarray(part, dtype=dtype).data)
    for name, values in sorted(block.cells.items()):
        digest.update("\n".join([name, *map(str, values)]).encode())
    return digest.hexdigest()


def stamp_of(data: Any, adata: AnnData) -> str | None:
    """Size and time of change of the file or folder that holds the cells; `None` for what is in memory.

    For as long as they stay, nobody has to read the counts of finished blocks again to know that they are the same.
    """
    place = fspath(data) if is_path(data) else adata.filename if adata.isbacked else None
    return None if place is None else file_stamp(Path(place).expanduser())


def file_stamp(place: str | PathLike[str]) -> str:
    """Number, bytes and latest change of a file, or of all files in a folder."""
    path = Path(place)
    found = [item.stat() for item in ([path] if path.is_file() else path.rglob("*")) if item.is_file()]
    return f"{len(found)}-{sum(item.st_size for item in found)}-{max((item.st_mtime_ns for item in found), default=0)}"
