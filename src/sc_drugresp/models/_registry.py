"""The table of models: one TOML row per model in `registry/`, third parties by entry point. No torch."""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from ._spec import Checkpoint, ModelSpec

if TYPE_CHECKING:
    import pandas as pd

ENTRY_POINTS = "sc_drugresp.models"


@cache
def registry() -> dict[str, ModelSpec]:
    """All rows by name: ours, then those of other packages (entry-point group `sc_drugresp.models`)."""
    rows: dict[str, ModelSpec] = {}
    folder = files(__package__) / "registry"
    for row in sorted(folder.iterdir(), key=lambda file: file.name):
        if row.name.endswith(".toml"):
            spec = ModelSpec.from_dict(tomllib.loads(row.read_text(encoding="utf-8")))
            rows[spec.name] = spec
    for entry in entry_points(group=ENTRY_POINTS):
        spec = entry.load()
        rows.setdefault(spec.name, spec)
    return rows


def available(kind: Literal["encoder", "baseline"] | None = None) -> list[str]:
    """List the names of the models.

    Parameters
    ----------
    kind
        `'encoder'` for foundation models, `'baseline'` for what is fitted to the data, `None` for both.

    Returns
    -------
    Names without checkpoints; :func:`~sc_drugresp.models.table` lists those too.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> "pca" in sdr.models.available("baseline")
    True
    """
    return [name for name, spec in registry().items() if kind in (None, spec.kind)]


def find(name: str) -> tuple[ModelSpec, Checkpoint | None]:
    """The row of `name` or `name.tag`, and its checkpoint (`None` for baselines).

    Raises
    ------
    ValueError
        There is no such model or checkpoint; the message names the nearest ones.
    """
    rows = registry()
    base, _, tag = str(name).partition(".")
    if base not in rows:
        near = difflib.get_close_matches(base, rows, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        if "/" in str(name) or "\\" in str(name):
            hint = " Give a model's name here and the folder with `checkpoint=`."
        msg = f"Unknown model {name!r}.{hint} Available models: {sorted(rows)}."
        raise ValueError(msg)
    spec = rows[base]
    if not spec.checkpoints:
        if tag:
            msg = f"Model {base!r} has no checkpoints, found {name!r}."
            raise ValueError(msg)
        return spec, None
    tag = tag or spec.default
    if tag not in spec.checkpoints:
        msg = f"Model {base!r} has no checkpoint {tag!r}. Available: {[f'{base}.{t}' for t in spec.checkpoints]}."
        raise ValueError(msg)
    return spec, spec.checkpoints[tag]


def table() -> pd.DataFrame:
    """List every model and checkpoint with licenses, sizes and costs; needs neither torch nor the files.

    Returns
    -------
    One row per checkpoint, indexed by the name that :func:`~sc_drugresp.tl.embed` takes: `kind`, `dim`, `genes`,
    `species`, `expects`, `set_based`, `parameters`, `gflop_per_cell`, `download_gb`, `weights_license`, `commercial`,
    `code_license`, `default`, `reference`.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> sdr.models.table().loc["pca", "kind"]
    'baseline'
    """
    import pandas as pd

    rows = {}
    for spec in registry().values():
        for checkpoint in spec.checkpoints.values() or [None]:
            rows[f"{spec.name}.{checkpoint.tag}" if checkpoint else spec.name] = _row(spec, checkpoint)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def _row(spec: ModelSpec, checkpoint: Checkpoint | None) -> dict[str, object]:
    row: dict[str, object] = {
        "kind": spec.kind,
        "dim": checkpoint.dim if checkpoint else spec.dim,
        "genes": spec.genes,
        "species": ", ".join(checkpoint.species) if checkpoint else "any",
        "expects": spec.expects,
        "set_based": spec.set_based,
        "parameters": checkpoint.parameters if checkpoint else None,
        "gflop_per_cell": checkpoint.gflop_per_cell if checkpoint else None,
        "download_gb": None,
        "weights_license": checkpoint.license if checkpoint else "",
        "commercial": checkpoint.commercial if checkpoint else True,
        "code_license": spec.code_license,
        "default": checkpoint is None or checkpoint.tag == spec.default,
        "reference": spec.reference,
    }
    if checkpoint:
        sizes = [file.bytes for file in checkpoint.files.values() if not file.optional]
        row["download_gb"] = round(sum(sizes) / 1e9, 3) if all(sizes) else None  # type: ignore[arg-type]
    return row
