"""Other names of genes and human-mouse orthologs: files of HGNC and MGI, fetched once and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.growth import open_packed, unpacked_size
from .._core.hashing import sha256
from .._core.log import logger
from .._core.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd


@dataclass(frozen=True)
class GeneFile:
    """A published file; its publisher names no hash, so that of the first download is kept and required.

    Parameters
    ----------
    name, license, publisher
        What the file is.
    url
        Where it is fetched from.
    local_names
        File names under which it is looked for in `settings.data_dir` and the cache.
    """

    name: str
    license: str
    publisher: str
    url: str
    local_names: tuple[str, ...]


ABOUT = 20_000_000
"""Bytes of the larger one; many times as much is another file."""
_ARCHIVE = "https://storage.googleapis.com/public-download-files/hgnc/archive/archive/quarterly/tsv"
SOURCES: dict[str, GeneFile] = {
    "hgnc": GeneFile(
        name="HGNC complete set of 2025-07-01",
        license="CC0-1.0",
        publisher="HUGO Gene Nomenclature Committee, www.genenames.org",
        url=f"{_ARCHIVE}/hgnc_complete_set_2025-07-01.txt",
        local_names=("hgnc_complete_set.txt", "hgnc_complete_set.tsv", "hgnc_complete_set.txt.gz", "hgnc_genes.tsv.gz"),
    ),
    "orthologs": GeneFile(
        name="human and mouse homology classes",
        license="CC-BY-4.0",
        publisher="Mouse Genome Informatics, www.informatics.jax.org",
        url="https://www.informatics.jax.org/downloads/reports/HOM_MouseHumanSequence.rpt",
        local_names=(
            "HOM_MouseHumanSequence.rpt",
            "human_mouse_hcop_fifteen_column.txt.gz",
            "human_mouse_hcop_fifteen_column.txt",
            "human_mouse_homologs.tsv.gz",
        ),
    ),
}


@dataclass(frozen=True, eq=False)
class Aliases:
    """Names beyond the packaged tables.

    Parameters
    ----------
    approved
        Human approved symbol to Ensembl id (`""` where it has none).
    previous, alias
        Other name to the approved symbols that it may mean.
    orthologs
        Mouse symbol to human symbol, one-to-one pairs only.
    sources
        Where each part came from: kind to `"file name (SHA-256 begins ...)"`.
    """

    approved: dict[str, str] = field(default_factory=dict)
    previous: dict[str, tuple[str, ...]] = field(default_factory=dict)
    alias: dict[str, tuple[str, ...]] = field(default_factory=dict)
    orthologs: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


def load_aliases(*, download: tuple[str, ...] = ()) -> Aliases:
    """Read whatever HGNC and ortholog files this machine has.

    A file is looked for in `settings.data_dir` (also its folder `genes`), then in `settings.cache_dir / "genes"`.

    Parameters
    ----------
    download
        Kinds of files (`'hgnc'`, `'orthologs'`) to fetch into the cache if they are missing, unless
        `settings.offline`. A failed download is logged, not raised, and not tried again in this process.

    Returns
    -------
    Names and orthologs; empty parts where no file was found.
    """
    paths: dict[str, Path | None] = {}
    for kind in SOURCES:
        paths[kind] = find_file(kind)
        if paths[kind] is None and kind in download and not settings.offline and kind not in _failed:
            try:
                paths[kind] = fetch_file(kind)
            except ConnectionError as error:
                _failed.add(kind)
                logger.info("%s", error)
    stamps = tuple((kind, str(path), path.stat().st_mtime_ns) for kind, path in paths.items() if path is not None)
    return _read_all(stamps)


_failed: set[str] = set()
"""Sources that could not be fetched in this process: not tried again for every call."""


def find_file(kind: str) -> Path | None:
    """Path of a file that is already on this machine, or `None`."""
    folders = [settings.cache_dir / "genes"]
    if settings.data_dir is not None:
        folders = [settings.data_dir, settings.data_dir / "genes", *folders]
    paths = (folder / name for folder in folders for name in SOURCES[kind].local_names)
    return next((path for path in paths if path.is_file()), None)


def fetch_file(kind: str) -> Path:
    """Fetch a file into the cache, once; it appears there complete and verified, or not at all.

    Parameters
    ----------
    kind
        `'hgnc'` or `'orthologs'`.

    Raises
    ------
    ConnectionError
        The network is off limits (`settings.offline`) or fails. The message names the file and the manual step.
    ValueError
        What arrived is not the file of the first download.
    """
    from .._core.download import fetch
    from .._core.expected import Expected

    source = SOURCES[kind]
    folder = settings.cache_dir / "genes"
    manual = (
        f"download {source.url} ({source.name}; {source.publisher}; {source.license}) and put it into {folder}, "
        "or into the folder named by the environment variable SC_DRUGRESP_DATA."
    )
    return fetch(folder / source.local_names[0], [source.url], Expected(about=ABOUT), manual=manual, attempts=2)


@lru_cache(maxsize=4)
def _read_all(stamps: tuple[tuple[str, str, int], ...]) -> Aliases:
    parts: dict[str, Any] = {"sources": {}}
    for kind, name, _ in stamps:
        path = Path(name)
        if kind == "hgnc":
            parts["approved"], parts["previous"], parts["alias"] = read_hgnc(path)
        else:
            parts["orthologs"] = read_orthologs(path)
        parts["sources"][kind] = f"{path.name} (SHA-256 {sha256(path)[:12]})"
    return Aliases(**parts)


def read_hgnc(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Read approved, previous and alias symbols.

    Parameters
    ----------
    path
        HGNC's `hgnc_complete_set.txt` or a table with the columns `symbol`, `ensembl_gene_id` or `ensembl_id`,
        `prev_symbol(s)` and `alias_symbol(s)`, whose names are separated by `|` or `, `; gzipped or not.

    Returns
    -------
    Approved symbol to Ensembl id, previous symbol to approved symbols, alias to approved symbols.

    Raises
    ------
    ValueError
        A column is missing.
    """
    table = _read(path)
    approved = table[table["status"].isin(["", "Approved"])] if "status" in table else table
    approved = approved[_column(approved, path, "symbol") != ""]
    symbols = approved["symbol"].tolist()
    ids = _column(approved, path, "ensembl_gene_id", "ensembl_id")
    previous = _column(approved, path, "prev_symbol", "prev_symbols")
    alias = _column(approved, path, "alias_symbol", "alias_symbols")
    return dict(zip(symbols, ids)), _by_name(symbols, previous), _by_name(symbols, alias)


def read_orthologs(path: Path) -> dict[str, str]:
    """Read one-to-one pairs of mouse and human symbols.

    Parameters
    ----------
    path
        MGI's `HOM_MouseHumanSequence.rpt` (one gene a row, classes), or a table of pairs with the columns
        `human_symbol` and `mouse_symbol` (HCOP) or `human_gene_symbol` and `mouse_gene_symbol`. In an HCOP file a
        pair counts when at least two of the databases in `support` assert it.

    Returns
    -------
    Mouse symbol to human symbol; a gene with several partners is left out.

    Raises
    ------
    ValueError
        The columns are those of no known table.
    """
    import pandas as pd

    table = _read(path)
    if "DB Class Key" in table:
        classes, taxon, symbol = (_column(table, path, name) for name in ("DB Class Key", "NCBI Taxon ID", "Symbol"))
        genes = pd.DataFrame({"class": classes, "symbol": symbol})
        pairs = genes[taxon == "9606"].merge(genes[taxon == "10090"], on="class", suffixes=("_human", "_mouse"))
        human, mouse = pairs["symbol_human"], pairs["symbol_mouse"]
    else:
        if "support" in table:
            table = table[table["support"].str.count(r"[^,\s][^,]*") > 1]
        human = _column(table, path, "human_gene_symbol", "human_symbol")
        mouse = _column(table, path, "mouse_gene_symbol", "mouse_symbol")
    pairs = pd.DataFrame({"human": human, "mouse": mouse}).drop_duplicates()
    pairs = pairs[~pairs.isin(["", "-"]).any(axis=1)]
    pairs = pairs[~pairs["human"].duplicated(keep=False) & ~pairs["mouse"].duplicated(keep=False)]
    return dict(zip(pairs["mouse"], pairs["human"]))


def _read(path: Path) -> pd.DataFrame:
    """A table of text, tab-separated, gzipped whatever its name says, or not."""
    import pandas as pd

    try:
        unpacked_size(path)
        with open_packed(path) as file:
            table = pd.read_csv(
                file, sep="\t", dtype=str, keep_default_na=False, index_col=False, encoding_errors="replace"
            )
    except pd.errors.EmptyDataError as error:
        msg = f"The gene file {path} is empty. Remove it, so that it is fetched again."
        raise ValueError(msg) from error
    except ValueError as error:
        msg = f"The gene file {path} cannot be read ({error}). Remove it, so that it is fetched again."
        raise ValueError(msg) from error
    return table.fillna("")


def _column(table: pd.DataFrame, path: Path, *names: str) -> pd.Series:
    for name in names:
        if name in table:
            return table[name]
    msg = (
        f"Expected a column {' or '.join(map(repr, names))} in {path}, found {list(table.columns)}. "
        "Remove the file or replace it."
    )
    raise ValueError(msg)


def _by_name(symbols: Iterable[str], names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Each other name to the symbols that have it."""
    out: dict[str, list[str]] = {}
    for symbol, text in zip(symbols, names):
        for name in text.replace(", ", "|").split("|"):
            if name.strip():
                out.setdefault(name.strip(), []).append(symbol)
    return {name: tuple(owners) for name, owners in out.items()}
