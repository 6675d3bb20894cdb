"""Rows of `registry.toml`: which files of a public accession hold its matrix, and how to read them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

GEO = "https://ftp.ncbi.nlm.nih.gov/geo/series"


@dataclass(frozen=True)
class Dataset:
    """One accession. `files` are names in the supplementary folder of the series, by role."""

    accession: str
    cancer: str
    source: str
    drugs: tuple[str, ...]
    protocol: str
    files: Mapping[str, str]
    reader: Literal["table", "tar"]
    values: str
    label_kind: str
    confirmed: bool
    pmid: str = ""
    matrix_options: Mapping[str, Any] = field(default_factory=dict)
    cells_options: Mapping[str, Any] = field(default_factory=dict)
    obs: Mapping[str, str] = field(default_factory=dict)
    extract: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    sample_labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """The page of the series, for people."""
        return f"https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc={self.accession}"

    def urls(self, role: str) -> tuple[str, ...]:
        """Addresses of a file: the archive's folder, then its download page."""
        name = self.files[role]
        addresses = [f"{GEO}/{self.accession[:-3]}nnn/{self.accession}/suppl/{name}"]
        if name == f"{self.accession}_RAW.tar":
            addresses.append(f"https://www.ncbi.nlm.nih.gov/geo/download/?acc={self.accession}&format=file")
        return tuple(addresses)


@cache
def registry() -> dict[str, Dataset]:
    """All accessions, by name."""
    text = (files(__package__) / "registry.toml").read_text(encoding="utf-8")
    return {
        name: Dataset(**{**row, "accession": name, "drugs": tuple(row["drugs"])})
        for name, row in tomllib.loads(text).items()
    }
