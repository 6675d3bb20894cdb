"""What every verb reads from `.obs`, checked before work starts. The frame comes from `modalities.observations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import GROUP_CANDIDATES, RESISTANT, RESPONSE, RESPONSE_CLASSES, SENSITIVE
from .._core.log import logger

if TYPE_CHECKING:
    import pandas as pd


def read_column(obs: pd.DataFrame, key: str, argument: str) -> pd.Series:
    """A column of `.obs`.

    Raises
    ------
    KeyError
        There is no such column; the message lists those that exist.
    """
    if key not in obs:
        msg = f"Column {key!r} (`{argument}`) not found in `.obs`. Available columns: {sorted(map(str, obs.columns))}."
        raise KeyError(msg)
    return obs[key]


def has_labels(obs: pd.DataFrame, label_key: str | None) -> bool:
    """Whether there is a column of labels. The default one may be absent, and one that was named may not.

    Raises
    ------
    KeyError
        There is no column of a name that is not the default.
    """
    if label_key is None or (label_key == RESPONSE and label_key not in obs):
        return False
    read_column(obs, label_key, "label_key")
    return True


def as_text(column: pd.Series) -> np.ndarray:
    """A column as strings, shape `(n_obs,)`; `""` where missing."""
    if hasattr(column, "cat"):
        return np.array([*map(str, column.cat.categories), ""])[column.cat.codes]
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=str)


def read_labels(obs: pd.DataFrame, label_key: str) -> np.ndarray:
    """Labels as 1 (sensitive), 0 (resistant) and -1 (missing), shape `(n_obs,)`, int8.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        The column holds other values.
    """
    text = as_text(read_column(obs, label_key, "label_key"))
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
    absent = [name for value, name in ((1, SENSITIVE), (0, RESISTANT)) if not (y == value).any()]
    if absent:
        listed = " and no ".join(map(repr, absent))
        msg = f"Column {label_key!r} holds no {listed} cell; both classes are needed to learn or to score."
        raise ValueError(msg)


def read_groups(obs: pd.DataFrame, group_key: str | None) -> tuple[str, np.ndarray]:
    """The column that names the independent unit, and its values as strings, shape `(n_obs,)`.

    Raises
    ------
    KeyError
        The column does not exist, or none was named and none of the usual names is there.
    ValueError
        Values are missing.
    """
    if group_key is None:
        group_key = find_group(obs)
        if group_key is None:
            msg = (
                f"No `group_key` was given and `.obs` has none of the usual columns ({', '.join(GROUP_CANDIDATES)}). "
                "Name the column that holds the patient or sample of each cell. "
                f"Available columns: {sorted(map(str, obs.columns))}."
            )
            raise KeyError(msg)
        logger.info("using .obs[%r] as the independent unit (`group_key`)", group_key)
    column = read_column(obs, group_key, "group_key")
    if column.isna().any():
        msg = f"Column {group_key!r} (`group_key`) is missing for {int(column.isna().sum())} cells; every cell needs a sample."
        raise ValueError(msg)
    return group_key, as_text(column)


def find_group(obs: pd.DataFrame) -> str | None:
    """The first of the usual columns that names samples: one with several values if there is one."""
    present = [key for key in GROUP_CANDIDATES if key in obs]
    several = [key for key in present if obs[key].nunique(dropna=True) > 1]
    return next(iter(several or present), None)


def set_codes(obs: pd.DataFrame, group_key: str | None) -> np.ndarray | None:
    """Code of the set of each cell for set-based models, shape `(n_obs,)`; `None` without a column.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        Values are missing: a cell without a set would change the embedding of the others.
    """
    if group_key is None:
        return None
    return np.unique(read_groups(obs, group_key)[1], return_inverse=True)[1]


def read_mask(obs: pd.DataFrame, key: str, argument: str = "mask_obs") -> np.ndarray:
    """A column of true and false, shape `(n_obs,)`, bool.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        It holds anything else, or chooses no cell.
    """
    column = read_column(obs, key, argument)
    return check_mask(
        column.array if column.dtype == "boolean" else column.to_numpy(), len(obs), f"Column {key!r} (`{argument}`)"
    )


def check_mask(mask: Any, n: int, name: str = "`mask_obs`") -> np.ndarray:
    """A choice of cells as an array of bool, shape `(n,)`.

    Raises
    ------
    ValueError
        It is not one true or false for each cell, or chooses none.
    """
    missing = int(getattr(mask, "isna", lambda: np.zeros(1))().sum())
    found = (
        np.asarray(mask, dtype=bool)
        if str(getattr(mask, "dtype", "")) == "boolean" and not missing
        else np.asarray(mask)
    )
    if found.dtype != bool or missing:
        told = f"{missing} missing values" if missing else f"values of type {found.dtype}"
        msg = f"{name} must hold true or false for every cell, found {told}. Compare first, for example `column == 'tumor'`."
        raise ValueError(msg)
    if found.shape != (n,):
        msg = f"{name} must have the shape ({n},), one value for each cell, found {found.shape}."
        raise ValueError(msg)
    if not found.any():
        msg = f"{name} keeps no cell."
        raise ValueError(msg)
    return found
