"""Where the matrices of an AnnData lie, what each holds, and the names of its genes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import COUNTS_LAYER
from .content import find_transform, probe
from .rows import open_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from .content import Kind, Transform
    from .rows import Rows

ID_COLUMNS = (
    "ensembl_id", "symbol", "gene_ids", "gene_id", "feature_id", "ensembl", "ensembl_ids", "gene_symbols",
    "gene_symbol", "gene_name", "gene_names", "feature_name", "symbols", "hgnc_symbol",
)  # fmt: skip
"""Columns of `.var` that may hold the second identifier of a gene: ours first, then those of common readers."""


@dataclass(frozen=True)
class Matrix:
    """One matrix of an object.

    Parameters
    ----------
    origin
        `'X'`, `'raw'` or `"layers['counts']"`.
    rows, var
        Its rows, and the `.var` that names its columns.
    kind
        What the rows that were looked at hold.
    transform
        What has to be undone to get counts; `None` if nothing has, or nothing can be.
    """

    origin: str
    rows: Rows
    var: Any
    kind: Kind
    transform: Transform | None = None

    @property
    def holds_counts(self) -> bool:
        """Counts, as they are or to be recovered."""
        return self.kind == "counts" or self.transform is not None


def find_matrices(adata: AnnData, layer: str | None) -> list[Matrix]:
    """Matrices that may be read, best first; a few rows of each are looked at.

    Raises
    ------
    KeyError
        The layer does not exist.
    """
    found = []
    for name in (COUNTS_LAYER, "X", "raw") if layer is None else (layer,):
        opened = _open(adata, name)
        if opened is not None:
            found.append(Matrix(name if name in {"X", "raw"} else f"layers[{name!r}]", *opened, probe(opened[0])))
        elif name in {"X", "raw"} and layer is not None:
            msg = f"layer={layer!r} was asked for, but `.{layer}` is empty."
            raise KeyError(msg)
        elif layer is not None:
            available = sorted(str(key) for key in adata.layers if key)
            msg = f"Layer {layer!r} not found in `.layers`. Available layers: {available}; also 'X' and 'raw'."
            raise KeyError(msg)
    return found


def best_matrix(found: Sequence[Matrix], *, recover: bool = True) -> Matrix:
    """The first with counts, else the first from which they can be recovered, else `.X`, else the first."""
    for matrix in found:
        if matrix.kind == "counts":
            return matrix
    for matrix in found if recover else ():
        transform = find_transform(matrix.rows, matrix.kind)
        if transform is not None:
            return replace(matrix, transform=transform)
    return next((matrix for matrix in found if matrix.origin == "X"), found[0])


def other_counts(adata: AnnData) -> list[str]:
    """Layers with raw counts under a name that is not looked for."""
    names = [name for name in adata.layers if name not in {COUNTS_LAYER, None}]
    return [matrix.origin for name in names for matrix in find_matrices(adata, name) if matrix.kind == "counts"]


def gene_columns(
    var: Any, key: str | None = None, *, skip: tuple[str, ...] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    """`var_names` and the second identifier of each gene, `""` where unknown; `None` if `.var` has none.

    Parameters
    ----------
    var
        `.var`, also that of a lazy object.
    key
        Column to use; `None` takes the first of the usual ones that differs from the names.
    skip
        Columns not to take unless named.

    Raises
    ------
    KeyError
        There is no such column.
    """
    import pandas as pd

    names = np.asarray(var.index, dtype=str)
    available = [str(name) for name in var.columns]
    if key is not None and key not in available:
        msg = f"Column {key!r} (`gene_key`) not found in `.var`. Available columns: {sorted(available)}."
        raise KeyError(msg)
    usual = [name for name in ID_COLUMNS if name in available and name not in skip]
    for name in usual if key is None else [key]:
        column = np.asarray(var[name], dtype=object)
        text = np.where(pd.isna(column), "", column).astype(str)
        if not np.array_equal(text, names) and (text != "").any():
            return names, text
    return names, None


def _open(adata: AnnData, name: str) -> tuple[Rows, Any] | None:
    """Rows of `'X'`, `'raw'` or a layer, and the `.var` that names its columns; `None` where it is empty."""
    if name == "raw":
        return None if adata.raw is None or 0 in adata.raw.shape else (open_rows(adata.raw.X), adata.raw.var)
    # Slicing the parent of a view block by block copies less than the view's own matrix.
    parent = adata._adata_ref if adata.is_view else adata
    matrix = parent.X if name == "X" else parent.layers.get(name)
    if matrix is None:
        return None
    if not adata.is_view:
        return open_rows(matrix), adata.var
    rows, columns = np.arange(parent.n_obs)[adata._oidx], np.arange(parent.n_vars)[adata._vidx]
    return open_rows(matrix, rows, columns), adata.var
