"""Embeddings in `.obsm`, and what `tl.embed` noted about them in `.uns`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData


def read_rep(adata: AnnData, use_rep: str) -> np.ndarray:
    """An embedding in `.obsm` as an array of shape `(n_obs, dim)`.

    Raises
    ------
    KeyError
        There is no such embedding.
    ValueError
        It is not two-dimensional.
    """
    if use_rep not in adata.obsm:
        msg = f"Embedding {use_rep!r} (`use_rep`) not found in `.obsm`. Available: {sorted(adata.obsm)}. Make one with tl.embed."
        raise KeyError(msg)
    value = adata.obsm[use_rep]
    value = value.to_numpy() if hasattr(value, "to_numpy") else value
    value = value.compute() if hasattr(value, "compute") else value
    value = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    if value.ndim != 2:
        msg = f"Embedding {use_rep!r} should have shape (n_obs, dim), found {value.shape}."
        raise ValueError(msg)
    return value


def embeddings(adata: AnnData) -> list[dict[str, Any]]:
    """What `tl.embed` noted about the embeddings that are still there, in the order of writing."""
    notes = [value for value in adata.uns.values() if isinstance(value, dict) and value.get("kind") == "embedding"]
    return sorted((note for note in notes if note["obsm"] in adata.obsm), key=lambda note: int(note["sequence"]))


def embedding_info(adata: AnnData, use_rep: str) -> dict[str, Any]:
    """What `tl.embed` noted about one embedding; empty for embeddings made elsewhere."""
    return next((note for note in embeddings(adata) if note["obsm"] == use_rep), {})


def last_sequence(adata: AnnData) -> int:
    """Number of the embedding written last, 0 if there is none."""
    notes = embeddings(adata)
    return int(notes[-1]["sequence"]) if notes else 0


def latest_embedding(adata: AnnData) -> str | None:
    """Key of the embedding that `tl.embed` wrote last and that is still there."""
    notes = embeddings(adata)
    return str(notes[-1]["obsm"]) if notes else None
