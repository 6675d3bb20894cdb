"""Turn the files that GEO offers into AnnData: text tables, and archives with one matrix per sample."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.folders import scratch_beside
from .._core.growth import unpacked_size
from .._core.keys import RESPONSE, RESPONSE_CLASSES
from .._core.log import logger, warn
from ._archive import Member, unpack
from ._matrices import read_h5, read_triple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

    from ._registry import Dataset

ROWS_AT_ONCE = 500
MATRIX = re.compile(r"^(?P<stem>.*?)[._-]?matrix\.mtx(\.gz)?$", re.IGNORECASE)
HDF5 = re.compile(r"^(?P<stem>.*?)\.h5$", re.IGNORECASE)
TABLE = re.compile(r"^(?P<stem>.*?)\.(txt|tsv|csv)(\.gz)?$", re.IGNORECASE)
GENES = re.compile(r"(features|genes)\.tsv(\.gz)?", re.IGNORECASE)
BARCODES = re.compile(r"barcodes\.tsv(\.gz)?", re.IGNORECASE)
UNREAD = re.compile(
    r"\.(zip|7z|rar|rds|rda|rdata|loom|h5ad|h5mu|mtx|zarr)(\.gz)?$|\(sparse\)$|\(no file\)$", re.IGNORECASE
)
"""What may hold cells but is not read here."""
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
    noted = adata.uns.get("dataset")
    adata.uns["dataset"] = (noted if isinstance(noted, dict) else {}) | {
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

    size = unpacked_size(path)
    if not size:
        msg = f"{path} is empty."
        raise ValueError(msg)
    try:
        options: dict[str, Any] = {"sep": _separator(path), "skiprows": skip, "low_memory": False}
        header = pd.read_csv(path, nrows=1, **options)
        # R leaves the corner out: pandas then takes the first column as the index by itself.
        index = 0 if isinstance(header.index, pd.RangeIndex) else None
        genes: list[str] = []
        blocks = []
        with pd.read_csv(path, index_col=index, chunksize=ROWS_AT_ONCE, **options) as reader:
            for part in reader:
                kept = part.loc[
                    :, ~part.columns.astype(str).str.startswith("Unnamed:")
                ]  # a tab at the end of each line
                if kept.iloc[:, -1:].isna().to_numpy().any():
                    msg = f"the line of {kept.index[kept.iloc[:, -1].isna()][0]!r} is cut short"
                    raise ValueError(msg)
                genes.extend(kept.index.astype(str))
                blocks.append(sparse.csr_matrix(kept.to_numpy(dtype=np.float32)))
                cells = kept.columns.astype(str)
        if not genes or not len(cells):
            msg = f"it has {len(genes)} genes and {len(cells)} cells"
            raise ValueError(msg)
        matrix = sparse.vstack(blocks, format="csc").T.tocsr()
    except (ValueError, EOFError, IndexError, StopIteration, MemoryError) as error:
        msg = f"{path} is not a table of numbers with genes in rows and cells in columns ({error})."
        raise ValueError(msg) from error
    return AnnData(matrix, obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=pd.Index(genes)))


def _separator(path: Path) -> str:
    import pandas as pd

    line = pd.read_csv(path, sep="\x01", header=None, nrows=1, dtype=str, quoting=3).iloc[0, 0]
    return max("\t,; ", key=str(line).count)


def read_tar(path: Path) -> AnnData:
    """Read an archive of one matrix per sample: 10x triples, 10x `.h5` files or text tables, in archives of their own too.

    What is not read is listed in `.uns['dataset']['ignored_files']`.

    Raises
    ------
    ValueError
        A matrix cannot be read, or nothing in the archive is one.
    """
    import anndata as ad

    with scratch_beside(path) as folder:
        members, ignored = unpack(path, folder)
        kinds = {member: _kind(member.path.name) for member in members}
        matrices = [member for member, (_, reader) in kinds.items() if reader is not None]
        names = _sample_names({member: kinds[member][0] for member in matrices}, path.stem)
        parts: dict[str, AnnData] = {}
        used = set(matrices)
        for member in matrices:
            beside = [other for other in members if other.file.parent == member.file.parent]
            parts[names[member]], sides = _read_part(member, kinds[member][1], beside)
            used.update(sides)
        ignored += [member.name for member in members if member not in used]
    if not parts:
        msg = f"No matrix that can be read in {path}; it holds {sorted(ignored)[:10]}. Read it yourself with scanpy."
        raise ValueError(msg)
    if ignored:
        logger.info("%s: not read: %s", path.name, ", ".join(sorted(ignored)))
    if unread := [name for name in ignored if UNREAD.search(name)]:
        warn(f"{path.name}: {len(unread)} file(s) may hold cells and cannot be read: {', '.join(sorted(unread)[:5])}")
    for name, part in parts.items():
        part.var_names_make_unique()
        part.obs_names = [f"{name}_{cell}" for cell in part.obs_names]
    adata = ad.concat(parts, label="sample", join="outer", fill_value=0, merge="first")
    adata.obs["sample"] = adata.obs["sample"].astype("category")
    adata.uns["dataset"] = {"ignored_files": np.array(sorted(ignored), dtype=str)}
    return adata


def _sample_names(stems: Mapping[Member, str], archive: str) -> dict[Member, str]:
    """A name of its own for each sample: that of the file; where several share one, also that of folder or format."""
    base = {member: stem.rstrip("._-") or member.place or archive for member, stem in stems.items()}
    shared = Counter(base.values())

    def longer(member: Member, *words: str) -> str:
        return "_".join(filter(None, (base[member], *words))) if shared[base[member]] > 1 else base[member]

    for with_format in (False, True):
        names = {member: longer(member, member.where, member.format if with_format else "") for member in base}
        if len(set(names.values())) == len(names):
            return names
    seen = Counter[str]()
    for member, name in base.items():
        seen[name] += 1
        names[member] = f"{name}_{seen[name]}" if shared[name] > 1 else name
    return names


def _kind(name: str) -> tuple[str, str | None]:
    for reader, pattern in (("mtx", MATRIX), ("h5", HDF5), ("table", TABLE)):
        if (match := pattern.match(name)) and not (reader == "table" and SIDE_FILE.search(name)):
            return match["stem"], reader
    return "", None


def _read_part(member: Member, reader: str | None, beside: list[Member]) -> tuple[AnnData, list[Member]]:
    """One matrix, and the files beside it that name its genes and cells."""
    from scipy import sparse

    sides: list[Member] = []
    try:
        if reader == "table":
            return read_table(member.file), sides
        if reader == "h5":
            part = read_h5(member.file)
        else:
            sides = _sides(member, beside)
            part = read_triple(member.file, *(side.file for side in sides))
        part.X = sparse.csr_matrix(part.X, dtype=np.float32)
        part.X.check_format(full_check=True)  # an index beyond the matrix would be read from foreign memory
        part.var = part.var.rename(columns={"gene_ids": "ensembl_id"})[["ensembl_id"]]
    except (OSError, ValueError, KeyError, IndexError, TypeError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk
        msg = f"{member.name} cannot be read as a matrix of cells ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    return part, sides


def _sides(member: Member, beside: list[Member]) -> list[Member]:
    """The lists of genes and of barcodes that go with a matrix of the same prefix."""
    prefix = member.path.name[: member.path.name.lower().rindex("matrix.mtx")]
    found = []
    for kind, pattern in (("genes", GENES), ("barcodes", BARCODES)):
        fits = [
            other
            for other in beside
            if other.path.name.startswith(prefix) and pattern.fullmatch(other.path.name[len(prefix) :])
        ]
        if len(fits) != 1:
            names = sorted(other.path.name for other in beside)
            msg = f"expected one list of {kind} called {prefix}{pattern.pattern}, found {len(fits)} among {names[:10]}"
            raise ValueError(msg)
        found += fits
    return found


def _add_cells(adata: AnnData, dataset: Dataset, path: Path) -> None:
    """Join the table of cells by name; cells that it does not list get missing values."""
    import pandas as pd

    options = dict(dataset.cells_options)
    index, skip = options.pop("index"), options.pop("skip", None)
    sep = "," if ".csv" in path.name else "\t"
    unpacked_size(path)
    try:
        cells = pd.read_csv(path, sep=sep, skiprows=skip, low_memory=False, **options)
    except ValueError as error:
        msg = f"{path} is not a table of cells ({error})."
        raise ValueError(msg) from error
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
