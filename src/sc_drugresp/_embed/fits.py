"""Baselines that learn from the cells before they embed them: fitted once for a run, and kept with it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from .._core.files import draft_of
from .._core.hashing import sha256
from ..models._profiles import spread

if TYPE_CHECKING:
    from .._data.counts import CountSource
    from ..models._fitted import FittedEmbedder
    from .store.layout import Layout


def fit_into(layout: Layout, embedder: FittedEmbedder, source: CountSource, seed: int) -> dict[str, str]:
    """Fit and keep what was learned; returns hashes of it and of the cells that were learned from."""
    from safetensors.numpy import save

    meta, arrays = embedder.fit(source, rng=seed).state()
    content = save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()} or {"none": np.zeros(1)},
        {"fit": json.dumps(meta)},
    )
    with draft_of(layout.fit) as draft:
        draft.write_bytes(content)
    return {"sha256": sha256(layout.fit), "cells": learned_from(embedder, source)}


def read_fit(layout: Layout, embedder: FittedEmbedder, expected: str) -> FittedEmbedder:
    """What was learned.

    Raises
    ------
    ValueError
        The file is not the one that was written.
    """
    from safetensors import safe_open

    if not layout.fit.is_file() or sha256(layout.fit) != expected:
        msg = (
            f"{layout.fit} is damaged, so that no further block can be computed. Remove {layout.root} and start again."
        )
        raise ValueError(msg)
    with safe_open(layout.fit, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys() if name != "none"}  # noqa: SIM118 (no dictionary)
        meta = json.loads(file.metadata()["fit"])
    return type(embedder).from_state(meta, arrays)


def learned_from(embedder: FittedEmbedder, source: CountSource) -> str:
    """SHA-256 of the values of the cells that a fit reads."""
    digest = hashlib.sha256()
    for _, block in source.blocks(rows=spread(np.arange(source.n_obs), embedder.max_fit_cells)):
        for part in (block.data, block.indices.astype(np.int64), block.indptr.astype(np.int64)):
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
