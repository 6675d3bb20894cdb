"""The object that a verb reads and the one it writes into: AnnData or one modality of a MuData, in memory or on disk."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    obs = adata.obs if hasattr(adata.obs, "iterrows") else adata.obs.to_memory()
    if _is_mudata(data):
        shared = data.obs.reindex(obs.index)
        obs = obs.join(shared[[name for name in shared.columns if name not in obs]])
    return obs


def _is_mudata(data: Any) -> bool:
    mudata = sys.modules.get("mudata")  # nobody has a MuData without having imported it
    return mudata is not None and isinstance(data, mudata.MuData)


@dataclass(frozen=True)
class Target:
    """Where a verb will write. Made before any work, so that an object that cannot be written is refused at once."""

    data: AnnData | MuData
    modality: str
    copy: bool

    def __post_init__(self) -> None:
        adata = as_adata(self.data, modality=self.modality)
        if adata.isbacked and (adata.is_view or self.copy):
            what = "A view of a backed object" if adata.is_view else "A copy of a backed object"
            msg = (
                f"{what} needs a file of its own: load it with `.to_memory()` or write it with `.copy(filename)` first."
            )
            raise ValueError(msg)

    def open(self) -> tuple[AnnData | MuData, AnnData]:
        """The object to return and the AnnData to write into; a view becomes an object of its own, as in scanpy."""
        data = self.data.copy() if self.copy else self.data
        adata = as_adata(data, modality=self.modality)
        if adata.is_view:
            adata._init_as_actual(adata.copy())
        return data, adata
