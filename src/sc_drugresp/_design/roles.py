"""Which column of `.obs` plays which role in the design of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.keys import ROLE_CANDIDATES
from .._data.obs import as_text, read_column
from .aliasing import nested

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def role_columns(
    obs: pd.DataFrame, group_key: str | None, dataset_key: str | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Columns of the design table by role, among labeled cells; what is missing for some of them is left out."""
    keys: dict[str, str] = {}
    for role, candidates in ROLE_CANDIDATES.items():
        usable = [key for key in candidates if key in obs and not obs[key].isna().any()]
        varying = [key for key in usable if obs[key].nunique() > 1]
        if usable:
            keys[role] = (varying or usable)[0]
    if dataset_key is not None:
        if read_column(obs, dataset_key, "dataset_key").isna().any():
            msg = f"Column {dataset_key!r} (`dataset_key`) is missing for some labeled cells."
            raise ValueError(msg)
        keys["dataset"] = dataset_key
    if group_key is not None:
        read_column(obs, group_key, "group_key")
        role = next((r for r in ("patient", "sample", "batch") if group_key in ROLE_CANDIDATES[r]), "sample")
        keys[role] = group_key
    columns = {role: as_text(obs[key]) for role, key in keys.items()}
    group = next((role for role, key in keys.items() if key == group_key), None)
    if group not in (None, "patient") and "patient" in columns and not nested(columns[group], columns["patient"]):
        del columns["patient"], keys["patient"]  # it cuts through the user's groups and does not hold them together
    return columns, keys
