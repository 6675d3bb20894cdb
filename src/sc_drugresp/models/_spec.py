"""Rows of the registry: plain data about models and their published files, without torch."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from .._core.expected import Expected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Parameters
    ----------
    path
        Where it belongs below the folder of a checkpoint.
    urls
        Addresses to try in turn; they may start with `hf://`. Empty if the file cannot be downloaded by a program.
    bytes, sha256, md5
        Published size and checksums, which a download must have.
    about_bytes
        Size for planning, where the exact one is not published.
    manual
        How to get it by hand.
    optional
        Whether the model works without it.
    """

    path: str
    urls: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    about_bytes: int | None = None
    manual: str = ""
    optional: bool = False

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def expected(self) -> Expected:
        """What a download is checked against."""
        return Expected(self.bytes, self.sha256, self.md5, self.about_bytes)


@dataclass(frozen=True)
class Checkpoint:
    """One set of published weights.

    Parameters
    ----------
    tag
        What follows the dot in the name of the model.
    files
        Published files by role (`weights`, `config`, ...).
    license, publisher
        Terms of the weights, and who publishes them.
    commercial
        Whether the terms allow commercial use; `None` where they do not say.
    options
        Settings of `Config` that belong to it.
    sizes
        Fields of `Config` that the files give: by them the files of other checkpoints are told apart.
    description, dim, parameters, gflop_per_cell, species
        Facts for the table.
    """

    tag: str
    files: Mapping[str, RemoteFile]
    license: str
    publisher: str
    commercial: bool | None = None
    description: str = ""
    dim: int = 0
    parameters: int | None = None
    gflop_per_cell: float | None = None
    species: tuple[str, ...] = ("human",)
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def download_bytes(self) -> int | None:
        """Size of all files to fetch, by a program or by hand; `None` if one of the sizes is not known."""
        needed = [file for file in self.files.values() if file.urls or not file.optional]
        sizes = [file.bytes or file.about_bytes for file in needed]
        return None if None in sizes else sum(sizes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ModelSpec:
    """A row of the registry: everything but the code, which `target` names as `module:Class`.

    `kind` is a word for tables and pages. What a model can do is told by its class, see
    :class:`~sc_drugresp.models._embedder.Embedder`. `extra` is the optional dependency that it needs, `requires` the
    module to import from it where the names differ. `saved` says that users make it themselves: it lies in a folder that
    `checkpoint=` names, and nothing is published.
    """

    name: str
    title: str
    target: str
    summary: str
    kind: Literal["encoder", "baseline", "student"] = "encoder"
    genes: Literal["symbol", "ensembl", "any"] = "symbol"
    expects: Literal["counts", "any"] = "counts"
    dim: int = 0
    set_based: bool = False
    reference: str = ""
    code_license: str = ""
    extra: str | None = None
    requires: str = ""
    default: str = ""
    saved: bool = False
    strengths: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)

    @property
    def slot(self) -> str:
        """Base name of the slots that `tl.embed` writes; baselines have a prefix, so that `X_pca` is not overwritten."""
        return self.name if self.checkpoints or self.saved else f"sdr_{self.name}"

    @classmethod
    def from_toml(cls, path: Path | Traversable) -> ModelSpec:
        """Read a row from a TOML file, see :doc:`/contributing/add_a_model`.

        Parameters
        ----------
        path
            The file; :func:`importlib.resources.files` finds those of a package.

        Returns
        -------
        The row, as the entry-point group `sc_drugresp.models` takes it.

        Raises
        ------
        TypeError
            The file has a field that does not exist, or lacks one.
        """
        return cls.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> ModelSpec:
        """Build a row from the table of a TOML file.

        What holds for all checkpoints is written once: fields beside `name`, files under `[files]`. A checkpoint may
        also start from another one (`like = "tag"`). A file with a `path` replaces what stood in its role, one without
        changes single fields. `manual` of a checkpoint is that of all its files without an address.
        """
        row = dict(row)
        shared: dict[str, Any] = {name: row[name] for name in _SHARED & row.keys()}
        row = {name: value for name, value in row.items() if name == "dim" or name not in shared}
        shared["files"] = row.pop("files", {})
        tables: dict[str, dict[str, Any]] = {}
        for tag, own in row.pop("checkpoints", {}).items():
            base = tables[own["like"]] if "like" in own else shared
            tables[tag] = {**base, **own, "files": _merged(base["files"], own.get("files", {}))}
        row |= {name: tuple(row.get(name, ())) for name in ("strengths", "limitations")}
        return cls(**row, checkpoints={tag: _checkpoint(tag, dict(table)) for tag, table in tables.items()})


_SHARED = {item.name for item in fields(Checkpoint)} - {"tag", "files", "description"}


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    changed = {role: file if "path" in file else {**base.get(role, {}), **file} for role, file in own.items()}
    return {**base, **changed}


def _checkpoint(tag: str, table: dict[str, Any]) -> Checkpoint:
    table.pop("like", None)
    by_hand = table.pop("manual", "")
    files = {}
    for role, file in table.pop("files").items():
        manual = file.get("manual", "" if file.get("urls") else by_hand)
        files[role] = RemoteFile(**{**file, "urls": tuple(file.get("urls", ())), "manual": manual})
    if "species" in table:
        table["species"] = tuple(table["species"])
    return Checkpoint(tag=tag, files=files, **table)
