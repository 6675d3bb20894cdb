"""Read one 10x matrix; sizes that a file states about itself are compared with the file before memory is taken."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .._core.growth import check_growth, open_packed, unpacked_size

if TYPE_CHECKING:
    from pathlib import Path

    import h5py
    import pandas as pd
    from anndata import AnnData

BANNER = re.compile(rb"%%MatrixMarket\s+matrix\s+coordinate\s+(integer|real)\s+general\s*", re.IGNORECASE)
EXPRESSION = "Gene Expression"
SHORTEST_ENTRY = 6
"""Bytes of `1 1 1` and the end of its line."""
ARRAYS = ("data", "indices", "indptr", "shape", "barcodes")
OBJECTS = 10_000


def read_triple(matrix: Path, genes: Path, barcodes: Path) -> AnnData:
    """Read a MatrixMarket file with the lists of its genes and cells.

    Raises
    ------
    ValueError
        The files are damaged or do not fit together.
    """
    import anndata as ad
    import pandas as pd
    from scipy import io, sparse

    features, cells = _lines(genes), _lines(barcodes)
    size = unpacked_size(matrix)
    rows, columns, entries = _header(matrix)
    if (rows, columns) != (len(features), len(cells)):
        msg = (
            f"{matrix.name} says {rows:,} x {columns:,}; there are {len(features):,} genes and {len(cells):,} barcodes"
        )
        raise ValueError(msg)
    if entries * SHORTEST_ENTRY > size + SHORTEST_ENTRY:
        msg = f"{matrix.name} says that it has {entries:,} entries, which do not fit into its {size:,} bytes"
        raise ValueError(msg)
    with open_packed(matrix) as file:
        counts = sparse.csr_matrix(io.mmread(file).T)
    symbols = features[1] if features.shape[1] > 1 else features[0]
    var = pd.DataFrame({"gene_ids": features[0].to_numpy()}, index=pd.Index(symbols.to_numpy(), name=None))
    adata = ad.AnnData(counts, obs=pd.DataFrame(index=pd.Index(cells[0].to_numpy(), name=None)), var=var)
    adata.var_names_make_unique()
    expression = (features[2] == EXPRESSION).to_numpy() if features.shape[1] > 2 else None
    return adata if expression is None or not expression.any() else adata[:, expression].copy()


def _lines(path: Path) -> pd.DataFrame:
    """A table without a header; what is empty is an error, not a missing value."""
    import pandas as pd

    unpacked_size(path)
    with open_packed(path) as file:
        table = pd.read_csv(file, sep="\t", header=None, dtype=str, quoting=3, keep_default_na=False)
    if (empty := (table.iloc[:, :2] == "").any(axis=1)).any():
        msg = f"line {int(empty.to_numpy().argmax()) + 1} of {path.name} lacks a name"
        raise ValueError(msg)
    return table


def _header(path: Path) -> tuple[int, int, int]:
    with open_packed(path) as file:
        line = file.readline(1000)
        if not BANNER.fullmatch(line):
            msg = f"{path.name} begins with {line[:60]!r}; expected '%%MatrixMarket matrix coordinate integer general'"
            raise ValueError(msg)
        while line.startswith(b"%"):
            line = file.readline(10_000)
    numbers = re.fullmatch(rb"\s*(\d{1,15})\s+(\d{1,15})\s+(\d{1,15})\s*", line)
    if not numbers:
        msg = f"{path.name} states no sizes, found {line[:60]!r}"
        raise ValueError(msg)
    rows, columns, entries = map(int, numbers.groups())
    return rows, columns, entries


def read_h5(path: Path) -> AnnData:
    """Read a file of Cell Ranger.

    Raises
    ------
    ValueError
        It is no such file, points to other files, or states sizes that it cannot have.
    """
    import h5py
    import scanpy as sc

    try:
        with h5py.File(path, "r") as file:
            check_growth(path, _stated(file, [0]), "what it states to hold")
            groups = ["matrix"] if "matrix" in file else [name for name in file if isinstance(file[name], h5py.Group)]
            for name in groups:
                sides = {"features/id", "features/name", "features/feature_type"}
                needed = {*ARRAYS, *(sides if "features" in file[name] else {"genes", "gene_names"})}
                if missing := {side for side in needed if side not in file[name]}:
                    msg = f"{path.name} has no {sorted(missing)} in its group {name!r}"
                    raise ValueError(msg)
            if not groups:
                msg = f"{path.name} has no group with a matrix"
                raise ValueError(msg)
        return sc.read_10x_h5(path)
    except (OSError, RuntimeError, AttributeError) as error:
        msg = f"{path.name} is damaged ({error})"
        raise ValueError(msg) from error


def _stated(group: h5py.Group, seen: list[int]) -> int:
    """Bytes of all data sets, as the file states them."""
    import h5py

    total = 0
    for name in group:
        seen[0] += 1
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink) or seen[0] > OBJECTS:
            msg = f"{name!r} is a link, or one of more than {OBJECTS:,} objects; Cell Ranger writes neither"
            raise ValueError(msg)
        item = group[name]
        if isinstance(item, h5py.Group):
            total += _stated(item, seen)
            continue
        if item.is_virtual or item.external:
            msg = f"{name!r} lies in another file"
            raise ValueError(msg)
        total += item.nbytes
    return total
