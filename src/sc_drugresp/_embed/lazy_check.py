"""Whether an embedding can be left to dask, judged before weights are looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.imports import require
from ..models._load import model_class

if TYPE_CHECKING:
    from .._data.counts import CountSource
    from ..models._spec import ModelSpec


def check_lazy(spec: ModelSpec, source: CountSource) -> None:
    """Refuse what cannot be computed block by block on other machines, before weights are looked for.

    Raises
    ------
    ImportError
        dask is not installed.
    ValueError
        The model looks at all cells at once, or is fitted to them.
    TypeError
        The matrix is no dask array.
    """
    dask = require("dask.array", extra="scale")
    instead = "Leave out `lazy`: then the matrix, a dask array included, is read block by block on this machine."
    if source.cells:
        msg = f"lazy=True sends counts alone to the workers, but {spec.title} also reads columns of `.obs` (`metadata`). {instead}"
        raise ValueError(msg)
    if spec.set_based:
        msg = f"lazy=True embeds blocks of rows apart from each other, but {spec.title} looks at all cells of a set at once. {instead}"
        raise ValueError(msg)
    if getattr(model_class(spec), "needs_fit", False):
        msg = f"lazy=True computes nothing now, but {spec.name!r} is fitted to the cells that it embeds. {instead}"
        raise ValueError(msg)
    if not isinstance(source.matrix.matrix, dask.Array):
        msg = (
            f"lazy=True needs a dask array, but {source.origin} is a {type(source.matrix.matrix).__name__}. Open the file with "
            "anndata.experimental.read_lazy, or wrap the matrix with dask.array.from_array. Without `lazy` any matrix is read "
            "block by block on this machine."
        )
        raise TypeError(msg)
