"""The object that a verb reads and the one it writes into: AnnData or one modality of a MuData, in memory or on disk."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import slot_name
from .opening import is_path, open_cells
from .together import write_together

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


def as_adata(data: AnnData | MuData, *, modality: str = "rna") -> AnnData:
    """The AnnData to work on.

    Raises
    ------
    KeyError
        A MuData has no such modality.
    TypeError
        `data` is neither AnnData nor MuData.
    """
    from anndata import AnnData

    if isinstance(data, AnnData):
        return data
    if _is_mudata(data):
        if modality not in data.mod:
            msg = f"Modality {modality!r} not found. Available modalities: {sorted(data.mod)}. Choose with `modality=`."
            raise KeyError(msg)
        return data.mod[modality]
    hint = " Put it into one: anndata.AnnData(frame)." if hasattr(data, "iloc") else ""
    msg = f"Expected an AnnData or MuData object, found {type(data).__name__}.{hint}"
    raise TypeError(msg)


def observations(data: AnnData | MuData, *, modality: str = "rna") -> pd.DataFrame:
    """`.obs` in memory, whatever holds it; a modality also sees the columns of its MuData that it lacks."""
    adata = as_adata(data, modality=modality)
    obs = in_memory(adata.obs)
    if _is_mudata(data) and data.obs.index.is_unique:  # otherwise names do not say which cell a row is
        shared = data.obs.reindex(obs.index)
        obs = obs.join(shared[[name for name in shared.columns if name not in obs]])
    return obs


def in_memory(value: Any) -> Any:
    """Data frames and arrays instead of what a lazy object holds in their place, also inside dictionaries."""
    if isinstance(value, dict):
        return {key: in_memory(item) for key, item in value.items()}
    if hasattr(value, "to_memory"):  # `Dataset2D`, and matrices on disk
        return value.to_memory()
    return value.compute() if hasattr(value, "dask") else value


def _is_mudata(data: Any) -> bool:
    mudata = sys.modules.get("mudata")  # nobody has a MuData without having imported it
    return mudata is not None and isinstance(data, mudata.MuData)


@dataclass(frozen=True)
class Target:
    """Where a verb will write. Made before any work, so that an object that cannot be written is refused at once.

    Parameters
    ----------
    data, modality
        The object of the user, and the modality to write into if it is a MuData. A path is opened for reading; what is
        written goes into the opened object, never into the file.
    copy
        Leave the object alone and write into a copy.
    key_added
        Name that the user chose for what is written; refused if files cannot hold it.

    Attributes
    ----------
    opened
        Whether `data` was a path.
    """

    data: Any
    modality: str
    copy: bool
    key_added: str | None = None
    opened: bool = False

    def __post_init__(self) -> None:
        if self.key_added is not None:
            slot_name(self.key_added)
        if is_path(self.data):
            object.__setattr__(self, "data", open_cells(self.data))
            object.__setattr__(self, "opened", True)
        adata = as_adata(self.data, modality=self.modality)
        if adata.isbacked and (adata.is_view or self.copy):
            what = "A view of a backed object" if adata.is_view else "A copy of a backed object"
            msg = (
                f"{what} needs a file of its own: load it with `.to_memory()` or write it with `.copy(filename)` first."
            )
            raise ValueError(msg)

    def write(self, **slots: Mapping[str, Any]) -> AnnData | MuData | None:
        """Write values into `obs`, `var`, `obsm`, `layers`, `uns`: all, or none if anything goes wrong.

        Returns the copy, if one was asked for, or the object that was opened.

        Raises
        ------
        ValueError
            A column, array or layer does not have one row for each cell (or gene).
        """
        shape = as_adata(self.data, modality=self.modality).shape
        sizes = {"obs": shape[:1], "var": shape[1:], "obsm": shape[:1], "layers": shape}
        for slot, size in sizes.items():
            for name, value in slots.get(slot, {}).items():
                if np.shape(value)[: len(size)] != size:
                    msg = f"`.{slot}[{name!r}]` must have the shape {size}, found {np.shape(value)}."
                    raise ValueError(msg)
        data = self.data.copy() if self.copy and not self.opened else self.data
        write_together(as_adata(data, modality=self.modality), slots)
        return data if self.copy or self.opened else None

    @property
    def adata(self) -> AnnData:
        """The AnnData to work on."""
        return as_adata(self.data, modality=self.modality)

    @property
    def obs(self) -> pd.DataFrame:
        """Its `.obs` in memory, see :func:`observations`."""
        return observations(self.data, modality=self.modality)
