"""Turn the files that GEO offers into AnnData: text tables, and archives with one matrix per sample."""

from __future__ import annotations

import re
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.files import copy_member
from .._core.keys import RESPONSE, RESPONSE_CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from ._registry import Dataset

ROWS_AT_ONCE = 500
MATRIX = re.compile(r"^(?P<stem>.*?)[._-]?matrix\.mtx(\.gz)?$", re.IGNORECASE)
HDF5 = re.compile(r"^(?P<stem>.*?)\.h5$", re.IGNORECASE)
TABLE = re.compile(r"^(?P<stem>.*?)\.(txt|tsv|csv)(\.gz)?$", re.IGNORECASE)
SIDE_FILE = re.compile(r"barcodes|features|genes\.tsv|metadata|annotation|clonotype|tcr|readme|summary", re.IGNORECASE)


def read(dataset: Dataset, paths: Mapping[str, Path]) -> AnnData:
    """Cells x genes, CSR, with what the registry knows about labels."""
    if dataset.reader == "tar":
        adata = read_tar(paths["matrix"])
    else:
        adata = read_table(paths["matrix"], **dataset.matrix_options)
        if "cells" in paths:
            _add_cells(adata, dataset, paths["cells"])
    if dataset.extract:
        found = adata.obs[dataset.extract["column"]].astype(str).str.extract(dataset.extract["pattern"])
        for name in found.columns:
            adata.obs[name] = found[name].astype("category")
    _add_labels(adata, dataset)
    adata.uns["dataset"] = {
        "accession": dataset.accession,
        "values": dataset.values,
        "label_kind": dataset.label_kind,
        "drugs": np.array(dataset.drugs, dtype=str),
        "cancer": dataset.cancer,
        "source": dataset.page,
        "pmid": dataset.pmid,
    }
    return adata


def read_table(path: Path, *, skip: list[int] | None = None) -> AnnData:
    """Read a text table, genes in rows and cells in columns, without holding it dense.

    Raises
    ------
    ValueError
        The file is not such a table.
    """
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    options: dict[str, Any] = {"sep": _separator(path), "skiprows": skip, "low_memory": False}
    try:
        header = pd.read_csv(path, nrows=1, **options)
        # R leaves the corner out: pandas then takes the first column as the index by itself.
        index = 0 if isinstance(header.index, pd.RangeIndex) else None
        genes: list[str] = []
        blocks = []
        for part in pd.read_csv(path, index_col=index, chunksize=ROWS_AT_ONCE, **options):
            kept = part.loc[:, ~part.columns.astype(str).str.startswith("Unnamed:")]  # a tab at the end of each line
            genes.extend(kept.index.astype(str))
            blocks.append(sparse.csr_matrix(kept.to_numpy(dtype=np.float32)))
            cells = kept.columns.astype(str)
    except (ValueError, EOFError, UnicodeDecodeError, StopIteration) as error:
        msg = f"{path} is not a table of numbers with genes in rows and cells in columns ({error})."
        raise ValueError(msg) from error
    matrix = sparse.vstack(blocks, format="csc").T.tocsr()
    return AnnData(matrix, obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=pd.Index(genes)))


def _separator(path: Path) -> str:
    import pandas as pd

    line = pd.read_csv(path, sep="\x01", header=None, nrows=1, dtype=str, quoting=3).iloc[0, 0]
    return max("\t,; ", key=str(line).count)


def read_tar(path: Path) -> AnnData:
    """Read an archive of one matrix per sample: 10x triples, 10x `.h5` files or text tables.

    Raises
    ------
    ValueError
        Nothing in the archive is a matrix that can be read.
    """
    import anndata as ad

    try:
        with tarfile.open(path) as archive, tempfile.TemporaryDirectory(prefix="sc_drugresp_") as folder:
            root = Path(folder).resolve()
            files = []
            for member in filter(tarfile.TarInfo.isfile, archive):
                file = (root / member.name).resolve()
                if not file.is_relative_to(root):
                    msg = f"{member.name!r} lies outside of the archive"
                    raise tarfile.ExtractError(msg)
                copy_member(archive, member, file)
                files.append(file)
            files.sort(key=lambda file: file.name)
            parts: dict[str, AnnData] = {}
            for file in files:
                stem, reader = _kind(file.name)
                if reader is not None:
                    parts[stem.rstrip("._-") or path.stem] = _read_part(file, reader)
    except tarfile.TarError as error:
        msg = f"{path} is not a complete tar archive ({error}). Remove it and load the data set again."
        raise ValueError(msg) from error
    if not parts:
        msg = f"No matrix that can be read in {path}; it holds {[file.name for file in files[:10]]}. Read it yourself with scanpy."
        raise ValueError(msg)
    for stem, part in parts.items():
        part.var_names_make_unique()
        part.obs_names = [f"{stem}_{name}" for name in part.obs_names]
    adata = ad.concat(parts, label="sample", join="outer", fill_value=0, merge="first")
    adata.obs["sample"] = adata.obs["sample"].astype("category")
    return adata


def _kind(name: str) -> tuple[str, str | None]:
    for reader, pattern in (("mtx", MATRIX), ("h5", HDF5), ("table", TABLE)):
        if (match := pattern.match(name)) and not (reader == "table" and SIDE_FILE.search(name)):
            return match["stem"], reader
    return "", None


def _read_part(file: Path, reader: str) -> AnnData:
    import scanpy as sc
    from scipy import sparse

    if reader == "table":
        return read_table(file)
    if reader == "h5":
        part = sc.read_10x_h5(file)
    else:
        part = sc.read_10x_mtx(file.parent, prefix=file.name[: file.name.lower().rindex("matrix.mtx")])
    part.X = sparse.csr_matrix(part.X, dtype=np.float32)
    part.var = part.var.rename(columns={"gene_ids": "ensembl_id"})[["ensembl_id"]]
    return part


def _add_cells(adata: AnnData, dataset: Dataset, path: Path) -> None:
    """Join the table of cells by name; cells that it does not list get missing values."""
    import pandas as pd

    options = dict(dataset.cells_options)
    index, skip = options.pop("index"), options.pop("skip", None)
    sep = "," if ".csv" in path.name else "\t"
    cells = pd.read_csv(path, sep=sep, skiprows=skip, low_memory=False, **options)
    missing = {index, *dataset.obs.values()} - set(cells.columns)
    if missing:
        msg = f"{path.name} has no column {sorted(missing)}; it has {list(cells.columns)[:20]}."
        raise ValueError(msg)
    cells = cells.drop_duplicates(index).set_index(index)
    cells.index = cells.index.astype(str)
    matched = cells.reindex(adata.obs_names)
    if not adata.obs_names.isin(cells.index).any():
        msg = f"No cell of the matrix is listed in {path.name}: {list(adata.obs_names[:3])} against {list(cells.index[:3])}."
        raise ValueError(msg)
    for name, column in dataset.obs.items():
        adata.obs[name] = pd.Categorical(matched[column])


def _add_labels(adata: AnnData, dataset: Dataset) -> None:
    import pandas as pd

    if dataset.labels:
        texts, classes = adata.obs[dataset.labels["column"]].astype(object), dataset.labels
    elif dataset.sample_labels:
        texts, classes = adata.obs["sample"].astype(str).str.split("_").str[0], dataset.sample_labels
    else:
        return
    lookup = {text: name for name in RESPONSE_CLASSES for text in classes[name]}
    adata.obs[RESPONSE] = pd.Categorical(texts.map(lookup), categories=list(RESPONSE_CLASSES))
