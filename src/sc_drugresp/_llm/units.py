"""What one answer is about: a sample, a cluster of a sample, or a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._data.obs import as_text, find_group, read_column, read_groups, read_mask

if TYPE_CHECKING:
    import pandas as pd

    from .options import Unit

SEPARATOR = " | "


@dataclass(frozen=True, eq=False)
class Units:
    """What is asked about.

    Parameters
    ----------
    names, samples
        Name of each unit and the independent sample that it comes from, for the user's eyes alone: neither is sent.
    codes
        Unit of each cell, -1 for cells that are left out; shape `(n_cells,)`.
    cells
        Sample of each cell, shape `(n_cells,)`; `''` where there is none.
    sample_key
        Column of the samples; empty where there is none.
    """

    names: list[str]
    samples: list[str]
    codes: np.ndarray
    cells: np.ndarray
    sample_key: str

    @property
    def sizes(self) -> np.ndarray:
        """Number of cells of each unit."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))


def read_units(
    obs: pd.DataFrame, unit: Unit, *, groupby: str | None, group_key: str | None, mask_obs: str | None
) -> Units:
    """Divide the cells into what is asked about.

    Raises
    ------
    KeyError
        A column does not exist.
    ValueError
        `groupby` and `unit` do not fit together, or no cell is left.
    """
    if (groupby is None) == (unit == "cluster"):
        told = "needs `groupby`, the column with the cluster of each cell" if groupby is None else "takes no `groupby`"
        msg = f"`unit={unit!r}` {told}."
        raise ValueError(msg)
    kept = np.ones(len(obs), dtype=bool) if mask_obs is None else read_mask(obs, mask_obs)
    if unit == "sample" or group_key is not None:
        sample_key, cells = read_groups(obs, group_key)
    else:
        sample_key = find_group(obs) or ""
        cells = as_text(obs[sample_key]) if sample_key else np.full(len(obs), "")
    if unit == "cell":
        labels = np.asarray(obs.index.astype(str), dtype=str)
        codes = np.where(kept, np.cumsum(kept) - 1, -1)
        return Units(labels[kept].tolist(), cells[kept].tolist(), codes, cells, sample_key)
    labels = cells
    if groupby is not None:
        clusters = as_text(read_column(obs, groupby, "groupby"))
        kept = kept & (clusters != "")
        joined = np.char.add(np.char.add(cells.astype(str), SEPARATOR), clusters)
        labels = clusters if groupby == sample_key or not sample_key else joined
    codes = np.full(len(obs), -1, dtype=np.int64)
    names, first, codes[kept] = np.unique(labels[kept], return_index=True, return_inverse=True)
    if not len(names):
        msg = f"No cell is left to ask about: column {groupby!r} (`groupby`) is missing wherever cells are kept."
        raise ValueError(msg)
    return Units([str(name) for name in names], cells[kept][first].tolist(), codes, cells, sample_key)
