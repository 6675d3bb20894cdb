"""Other names of genes and human-mouse orthologs: files of HGNC and MGI, fetched once and kept."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .._core.log import logger
from .._core.settings import settings


@dataclass(frozen=True)
class GeneFile:
    """A published file. `sha256=None`: its publisher names no hash, so that of the first download is kept and required.

    Parameters
    ----------
    name, release, license, publisher
        What the file is.
    url
        Where it is fetched from.
    local_names
        File names under which it is looked for in `settings.data_dir` and the cache.
    sha256
        Hash of the file.
    """

    name: str
    release: str
    license: str
    publisher: str
    url: str
    local_names: tuple[str, ...]
    sha256: str | None = None


_ARCHIVE = "https://storage.googleapis.com/public-download-files/hgnc/archive/archive/quarterly/tsv"
SOURCES: dict[str, GeneFile] = {
    "hgnc": GeneFile(
        name="HGNC complete set",
        release="2025-07-01",
        license="CC0-1.0",
        publisher="HUGO Gene Nomenclature Committee, www.genenames.org",
        url=f"{_ARCHIVE}/hgnc_complete_set_2025-07-01.txt",
        local_names=("hgnc_complete_set.txt", "hgnc_complete_set.tsv", "hgnc_complete_set.txt.gz", "hgnc_genes.tsv.gz"),
    ),
    "orthologs": GeneFile(
        name="human and mouse homology classes",
        release="current",
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
    for folder in folders:
        for name in SOURCES[kind].local_names:
            if (folder / name).is_file():
                return folder / name
    return None


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
        What arrived is not the file whose hash is known.
    """
    from .._core.download import Expected, fetch

    source = SOURCES[kind]
    folder = settings.cache_dir / "genes"
    manual = (
        f"download {source.url} ({source.name}; {source.publisher}; {source.license}) and put it into {folder}, "
        "or into the folder named by the environment variable SC_DRUGRESP_DATA."
    )
    return fetch(
        folder / source.local_names[0], [source.url], Expected(sha256=source.sha256), manual=manual, attempts=2
    )


@lru_cache(maxsize=4)
def _read_all(stamps: tuple[tuple[str, str, int], ...]) -> Aliases:
    parts: dict[str, Any] = {"sources": {}}
    for kind, name, _ in stamps:
        path = Path(name)
        if kind == "hgnc":
            parts["approved"], parts["previous"], parts["alias"] = read_hgnc(path)
        else:
            parts["orthologs"] = read_orthologs(path)
        parts["sources"][kind] = f"{path.name} (SHA-256 {_sha256(path)[:12]})"
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
    approved: dict[str, str] = {}
    previous: dict[str, list[str]] = {}
    alias: dict[str, list[str]] = {}
    rows = _rows(path)
    columns = {
        "symbol": _column(rows[0], path, "symbol"),
        "id": _column(rows[0], path, "ensembl_gene_id", "ensembl_id"),
        "previous": _column(rows[0], path, "prev_symbol", "prev_symbols"),
        "alias": _column(rows[0], path, "alias_symbol", "alias_symbols"),
    }
    status = rows[0].index("status") if "status" in rows[0] else None
    for row in rows[1:]:
        symbol = row[columns["symbol"]]
        if not symbol or (status is not None and row[status] not in {"", "Approved"}):
            continue
        approved[symbol] = row[columns["id"]]
        for table, key in ((previous, "previous"), (alias, "alias")):
            for name in _names(row[columns[key]]):
                table.setdefault(name, []).append(symbol)
    return approved, {k: tuple(v) for k, v in previous.items()}, {k: tuple(v) for k, v in alias.items()}


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
    rows = _rows(path)
    head = rows[0]
    if "DB Class Key" in head:
        key, taxon, symbol = (_column(head, path, name) for name in ("DB Class Key", "NCBI Taxon ID", "Symbol"))
        classes: dict[str, dict[str, list[str]]] = {}
        for row in rows[1:]:
            classes.setdefault(row[key], {}).setdefault(row[taxon], []).append(row[symbol])
        pairs = [
            (human, mouse) for c in classes.values() for human in c.get("9606", []) for mouse in c.get("10090", [])
        ]
    else:
        human = _column(head, path, "human_gene_symbol", "human_symbol")
        mouse = _column(head, path, "mouse_gene_symbol", "mouse_symbol")
        support = head.index("support") if "support" in head else None
        pairs = [
            (row[human], row[mouse])
            for row in rows[1:]
            if support is None or len([name for name in row[support].split(",") if name.strip()]) > 1
        ]
    of_human: dict[str, set[str]] = {}
    of_mouse: dict[str, set[str]] = {}
    for left, right in pairs:
        if left not in {"", "-"} and right not in {"", "-"}:
            of_human.setdefault(left, set()).add(right)
            of_mouse.setdefault(right, set()).add(left)
    return {
        mouse_symbol: next(iter(partners))
        for mouse_symbol, partners in of_mouse.items()
        if len(partners) == 1 and len(of_human[next(iter(partners))]) == 1
    }


def _rows(path: Path) -> list[list[str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8", errors="replace")
    rows = list(csv.reader(io.StringIO(text), delimiter="\t"))
    if not rows:
        msg = f"The gene file {path} is empty. Remove it, so that it is fetched again."
        raise ValueError(msg)
    width = len(rows[0])
    return [row + [""] * (width - len(row)) for row in rows if row]


def _column(head: list[str], path: Path, *names: str) -> int:
    for name in names:
        if name in head:
            return head.index(name)
    msg = f"Expected a column {' or '.join(map(repr, names))} in {path}, found {head}. Remove the file or replace it."
    raise ValueError(msg)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.replace(", ", "|").split("|") if name.strip()]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
