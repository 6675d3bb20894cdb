"""The object that a function may write into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .counts import as_adata

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def writable(data: AnnData | MuData, *, modality: str, copy: bool) -> tuple[AnnData | MuData, AnnData]:
    """The object to return and the AnnData to write into; a view becomes an object of its own first, as in scanpy.

    Raises
    ------
    ValueError
        The object is a view of a file on disk, or a copy of such an object was asked for: both need a file name.
    """
    adata = as_adata(data, modality=modality)
    if adata.isbacked and (adata.is_view or copy):
        what = "A view of a backed object" if adata.is_view else "A copy of a backed object"
        msg = f"{what} needs a file of its own: load it with `.to_memory()` or write it with `.copy(filename)` first."
        raise ValueError(msg)
    if copy:
        data = data.copy()
        return data, as_adata(data, modality=modality)
    if adata.is_view:
        adata._init_as_actual(adata.copy())
    return data, adata
