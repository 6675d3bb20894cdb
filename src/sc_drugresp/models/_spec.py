"""What the registry knows about a model: plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class RemoteFile:
    """A published file. `path` is its place below a checkpoint folder; `urls` may start with `hf://`."""

    path: str
    urls: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    manual: str = ""
    optional: bool = False

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Checkpoint:
    """One set of published weights. `options` are the settings of `Config` that belong to it."""

    tag: str
    files: Mapping[str, RemoteFile]
    license: str
    commercial: bool
    publisher: str
    description: str = ""
    dim: int = 0
    parameters: int | None = None
    gflop_per_cell: float | None = None
    species: tuple[str, ...] = ("human",)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """A row of the registry: everything but the code, which `target` names as `module:Class`."""

    name: str
    title: str
    target: str
    summary: str
    kind: Literal["encoder", "baseline"] = "encoder"
    genes: Literal["symbol", "ensembl", "any"] = "symbol"
    expects: Literal["counts", "any"] = "counts"
    dim: int = 0
    set_based: bool = False
    reference: str = ""
    code_license: str = ""
    extra: str | None = None
    default: str = ""
    strengths: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)

    @property
    def slot(self) -> str:
        """Base name of the slots that `tl.embed` writes; baselines keep clear of scverse's own names."""
        return f"sdr_{self.name}" if self.kind == "baseline" else self.name

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> ModelSpec:
        """Build a row from a table such as those in `registry/*.toml`.

        Raises
        ------
        TypeError
            The table has a field that does not exist.
        """
        row = dict(row)
        checkpoints = {
            tag: _checkpoint(tag, dict(values), row) for tag, values in dict(row.pop("checkpoints", {})).items()
        }
        for name in ("strengths", "limitations"):
            row[name] = tuple(row.get(name, ()))
        return cls(**row, checkpoints=checkpoints)


def _checkpoint(tag: str, values: dict[str, Any], row: Mapping[str, Any]) -> Checkpoint:
    files = {
        role: RemoteFile(**{**file, "urls": tuple(file.get("urls", ()))}) for role, file in values.pop("files").items()
    }
    values["species"] = tuple(values.get("species", ("human",)))
    values.setdefault("dim", row.get("dim", 0))
    return Checkpoint(tag=tag, files=files, **values)
