"""Embeddings in `.obsm`, and what `tl.embed` noted about them in `.uns`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.contents import FLAG, NUMBER, PLAIN, TEXT, mismatch
from ..models._registry import find

if TYPE_CHECKING:
    from anndata import AnnData


def read_rep(adata: AnnData, use_rep: str) -> np.ndarray:
    """An embedding in `.obsm` as an array of shape `(n_obs, dim)`.

    Raises
    ------
    KeyError
        There is no such embedding.
    ValueError
        It is not two-dimensional, or holds something else than numbers, masked or infinite ones among them.
    """
    if use_rep not in adata.obsm:
        msg = f"Embedding {use_rep!r} (`use_rep`) not found in `.obsm`. Available: {sorted(adata.obsm)}. Make one with tl.embed."
        raise KeyError(msg)
    value = adata.obsm[use_rep]
    value = value.to_numpy() if hasattr(value, "to_numpy") else value
    value = value.compute() if hasattr(value, "compute") else value
    if np.ma.is_masked(value):
        msg = f"Embedding {use_rep!r} is a masked array; fill what is masked first, with NaN for cells to leave out."
        raise ValueError(msg)
    value = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    if value.ndim != 2 or 0 in value.shape:
        msg = f"Embedding {use_rep!r} should have shape (n_obs, dim), found {value.shape}."
        raise ValueError(msg)
    if value.dtype.kind not in "biuf":
        msg = f"Embedding {use_rep!r} should hold numbers, found {value.dtype}."
        raise ValueError(msg)
    if value.dtype.kind == "f" and any(np.isinf(value[at : at + _ROWS]).any() for at in range(0, len(value), _ROWS)):
        msg = f"Embedding {use_rep!r} holds infinite values. NaN rows are left out; infinity has no meaning."
        raise ValueError(msg)
    return value


def embeddings(adata: AnnData) -> list[dict[str, Any]]:
    """What `tl.embed` noted about the embeddings that are still there, in the order of writing.

    Raises
    ------
    ValueError
        A note of ours has lost a part.
    """
    notes = _notes(adata)
    for key, note in notes.items():
        if wrong := mismatch(note, _NOTE, key):
            msg = f"`.uns[{key!r}]`, which sc_drugresp.tl.embed writes, is damaged: {wrong}. Embed the cells again, or delete it."
            raise ValueError(msg)
    kept = [dict(note) for note in notes.values() if note["obsm"] in adata.obsm]
    return sorted(kept, key=lambda note: int(note["sequence"]))


def embedding_info(adata: AnnData, use_rep: str) -> dict[str, Any]:
    """What `tl.embed` noted about one embedding; empty for embeddings made elsewhere."""
    return next((note for note in embeddings(adata) if note["obsm"] == use_rep), {})


def last_sequence(adata: AnnData) -> int:
    """Number of the embedding written last, 0 if there is none."""
    found = (note.get("sequence") for note in _notes(adata).values())
    return max((int(number) for number in found if isinstance(number, _INTEGER)), default=0)


def latest_embedding(adata: AnnData) -> str | None:
    """Key of the embedding that `tl.embed` wrote last and that is still there."""
    notes = embeddings(adata)
    return str(notes[-1]["obsm"]) if notes else None


def slot_base(model: str, embedder: Any) -> str:
    """Base name of the slots of a model: that of a student is its teacher's with a word before it."""
    spec, row = find(model)
    return str(embedder.slot) if spec.saved else model if row is not None else spec.slot


_ROWS = 65_536
_INTEGER = (int, np.integer)
_NOTE = {
    "obsm": TEXT,
    "model": TEXT,
    "sequence": NUMBER,
    "params": {"model": TEXT, "layer": TEXT, "group_key?": TEXT, "genes?": TEXT, "rng?": NUMBER, "*": PLAIN},
    "genes": {"counts_covered?": NUMBER},
    "checkpoint": {},
    "device?": TEXT,
    "fitted_on_these_cells": FLAG,
    "set_based?": FLAG,
    "teacher?": {
        **dict.fromkeys(("name", "license", "commercial", "publisher", "verdict"), TEXT),
        "cosine": NUMBER,
        "held_out_samples": NUMBER,
    },
}


def _notes(adata: AnnData) -> dict[str, Mapping[str, Any]]:
    """Values of `.uns` that say of themselves that `tl.embed` wrote them, whatever is left of them."""
    return {
        str(key): value
        for key, value in adata.uns.items()
        if isinstance(value, Mapping) and isinstance(value.get("kind"), str) and value["kind"] == "embedding"
    }
