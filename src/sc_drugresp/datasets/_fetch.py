"""`datasets.available` and `datasets.load`: the user's own folder, then the cache, then the archive."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from .._core.arguments import checked
from .._core.download import fetch
from .._core.files import draft_of
from .._core.log import logger
from .._core.settings import settings
from ._registry import Dataset, registry

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

FACTS = ("cancer", "source", "drugs", "protocol", "values", "label_kind", "pmid")


@checked
def available() -> pd.DataFrame:
    """List the data sets that :func:`~sc_drugresp.datasets.load` knows; nothing is downloaded.

    Returns
    -------
    One row per data set, indexed by the name to load. `where` is `'data_dir'` (an `.h5ad` file in
    `settings.data_dir`), `'cache'` or `'download'`. `label_kind` says what a label means in that study, or that the
    deposit has none. `confirmed` is false where the file name at the archive was inferred from its naming rules and has
    not been checked.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> sdr.datasets.available().loc["GSE120575", "cancer"]
    'Melanoma'
    """
    import pandas as pd

    rows: dict[str, dict[str, object]] = {}
    for path in _own_files():
        accession = path.stem.split("_")[0]
        rows[path.stem] = _row(registry().get(accession), accession, "data_dir", path)
    for name, dataset in registry().items():
        path = _cached(name)
        rows[name] = _row(dataset, name, "cache" if path.is_file() else "download", path)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def _row(dataset: Dataset | None, accession: str, where: str, path: Path) -> dict[str, object]:
    unknown = {"values", "label_kind"} if where == "data_dir" else set()  # a file of the user may hold anything
    facts = {name: "" if dataset is None or name in unknown else getattr(dataset, name) for name in FACTS}
    return {
        "accession": accession,
        **facts,
        "drugs": ", ".join(facts["drugs"]),
        "where": where,
        "confirmed": where != "download" or (dataset is not None and dataset.confirmed),
        "path": str(path) if path.is_file() else "",
    }


@checked
def load(name: str, *, force: bool = False) -> AnnData:
    """Load a public drug-response data set.

    An `.h5ad` file of that name in `settings.data_dir` (environment variable `SC_DRUGRESP_DATA`) comes first, then the
    cache, then a download from GEO. The archive publishes no checksums: the SHA-256 of the first download is kept
    beside the file, and later downloads must agree with it.

    Parameters
    ----------
    name
        A name from :func:`~sc_drugresp.datasets.available`, or an accession that one file of `settings.data_dir`
        starts with.
    force
        Download again what the cache holds, and forget the remembered SHA-256: for files that the archive has changed.

    Returns
    -------
    :class:`~anndata.AnnData` as deposited: `.X` (CSR, dtype `float32`) holds what `.uns['dataset']['values']` says;
    `.obs['response']` exists where the deposit labels cells, patients or arms. Where the deposit is an archive, every
    file in it that is a matrix is read, samples in archives and folders of their own too;
    `.uns['dataset']['ignored_files']` lists the others.

    Raises
    ------
    ValueError
        No such data set, or the files are not what they should be.
    ConnectionError
        It has to be downloaded and cannot be; the message gives the manual step.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.load("GSE149214")  # doctest: +SKIP
    """
    import anndata as ad

    own = _own_file(name)
    if own is not None:
        logger.info("reading %s", own)
        return ad.read_h5ad(own)
    if name not in registry():
        names = [*registry(), *(path.stem for path in _own_files())]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        msg = f"Unknown data set name {name!r}.{hint} See sc_drugresp.datasets.available() for all {len(names)}."
        raise ValueError(msg)
    cached = _cached(name)
    if cached.is_file() and not force:
        logger.info("reading %s", cached)
        return ad.read_h5ad(cached)
    return _download(registry()[name], cached, force=force)


def _download(dataset: Dataset, cached: Path, *, force: bool) -> AnnData:
    from ._read import read

    folder = cached.parent
    paths = {}
    for role, file in dataset.files.items():
        manual = f"get {file} from {dataset.page} and put it into {folder}"
        paths[role] = fetch(folder / file, dataset.urls(role), manual=manual, force=force)
    adata = read(dataset, paths)
    with draft_of(cached) as draft:
        adata.write_h5ad(draft, compression="gzip")
    return adata


def _cached(name: str) -> Path:
    return settings.cache_dir / "datasets" / name / f"{name}.h5ad"


def _own_files() -> list[Path]:
    folder = settings.data_dir
    return sorted(folder.glob("*.h5ad")) if folder is not None and folder.is_dir() else []


def _own_file(name: str) -> Path | None:
    files = _own_files()
    exact = [path for path in files if path.stem == name or path.name == name]
    if exact:
        return exact[0]
    started = [path for path in files if path.stem.split("_")[0] == name]
    if len(started) > 1:
        msg = (
            f"{name!r} fits several files in {settings.data_dir}: {[path.stem for path in started]}. Name one of them."
        )
        raise ValueError(msg)
    return started[0] if started else None
