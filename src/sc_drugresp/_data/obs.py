"""What every tool reads from `.obs` and `.obsm`, checked before work starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import GROUP_CANDIDATES, RESISTANT, RESPONSE_CLASSES, SENSITIVE
from .._core.log import logger

if TYPE_CHECKING:
    from anndata import AnnData


def read_column(adata: AnnData, key: str, argument: str) -> Any:
    """A column of `.obs`.

    Raises
    ------
    KeyError
        There is no such column; the message lists those that exist.
    """
    if key not in adata.obs:
        msg = f"Column {key!r} (`{argument}`) not found in `.obs`. Available columns: {sorted(map(str, adata.obs.columns))}."
        raise KeyError(msg)
    column = adata.obs[key]
    return column if hasattr(column, "isna") else column.to_series()  # lazy objects give xarray


def read_labels(adata: AnnData, label_key: str) -> np.ndarray:
    """Labels as 1 (sensitive), 0 (resistant) and -1 (missing), shape `(n_obs,)`, int8.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        The column holds other values.
    """
    column = read_column(adata, label_key, "label_key")
    text = np.array(["" if missing else str(value) for value, missing in zip(column, column.isna())], dtype=str)
    y = np.select([text == SENSITIVE, text == RESISTANT], [1, 0], -1).astype(np.int8)
    other = sorted(set(text[(y < 0) & (text != "")]))
    if other:
        msg = (
            f"Column {label_key!r} should hold {' / '.join(map(repr, RESPONSE_CLASSES))} or be missing, found "
            f"{other[:5]}. Translate it with sc_drugresp.pp.harmonize_labels(adata, {label_key!r}, sensitive=..., "
            "resistant=...)."
        )
        raise ValueError(msg)
    return y


def require_both_classes(y: np.ndarray, label_key: str) -> None:
    """Raise an error unless sensitive and resistant cells are labeled.

    Raises
    ------
    ValueError
        No labels at all, or one class only.
    """
    if (y < 0).all():
        msg = (
            f"No cell has a label in column {label_key!r}; at least some sensitive and some resistant cells are needed."
        )
        raise ValueError(msg)
    for value, name in ((1, SENSITIVE), (0, RESISTANT)):
        if not (y == value).any():
            msg = f"Column {label_key!r} holds no {name!r} cell; both classes are needed to learn or to score."
            raise ValueError(msg)


def read_groups(adata: AnnData, group_key: str | None) -> tuple[str, np.ndarray]:
    """The column that names the independent unit, and its values as strings, shape `(n_obs,)`.

    Raises
    ------
    KeyError
        The column does not exist, or none was named and none of the usual names is there.
    ValueError
        Values are missing.
    """
    if group_key is None:
        present = [
            key
            for key in GROUP_CANDIDATES
            if key in adata.obs and read_column(adata, key, "group_key").nunique(dropna=True) > 1
        ]
        if not present:
            single = [key for key in GROUP_CANDIDATES if key in adata.obs]
            if not single:
                msg = (
                    "No `group_key` was given and `.obs` has none of the usual columns "
                    f"({', '.join(GROUP_CANDIDATES)}). Name the column that holds the patient or sample of each cell. "
                    f"Available columns: {sorted(map(str, adata.obs.columns))}."
                )
                raise KeyError(msg)
            present = single
        group_key = present[0]
        logger.info("using .obs[%r] as the independent unit (`group_key`)", group_key)
    column = read_column(adata, group_key, "group_key")
    if column.isna().any():
        msg = f"Column {group_key!r} (`group_key`) is missing for {int(column.isna().sum())} cells; every cell needs a sample."
        raise ValueError(msg)
    return group_key, column.astype(str).to_numpy(dtype=str)


def set_codes(adata: AnnData, group_key: str | None) -> np.ndarray | None:
    """Code of the set of each cell for set-based models, shape `(n_obs,)`; `None` without a column.

    Raises
    ------
    KeyError
        There is no such column.
    """
    if group_key is None:
        return None
    column = read_column(adata, group_key, "group_key").astype(str)
    return np.unique(column.to_numpy(), return_inverse=True)[1]


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
        msg = f"Embedding {use_rep!r} not found in `.obsm`. Available: {sorted(adata.obsm)}. Make one with tl.embed."
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
