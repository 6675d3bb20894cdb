"""The table of models: one TOML file per model in `registry/`, and entry points of other packages. No torch."""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from .._core.arguments import checked
from .._core.keys import LLM
from ._spec import Checkpoint, ModelSpec

if TYPE_CHECKING:
    import pandas as pd

ENTRY_POINTS = "sc_drugresp.models"


@cache
def registry() -> dict[str, ModelSpec]:
    """All rows by name: ours, then those of other packages (entry-point group `sc_drugresp.models`)."""
    folder = files(__package__) / "registry"
    ours = [ModelSpec.from_toml(path) for path in folder.iterdir() if path.name.endswith(".toml")]
    rows = {spec.name: spec for spec in sorted(ours, key=lambda spec: spec.name)}
    for entry in entry_points(group=ENTRY_POINTS):
        spec = entry.load()
        rows.setdefault(spec.name, spec)
    return rows


@checked
def available(kind: Literal["encoder", "baseline", "student"] | None = None) -> list[str]:
    """List the names of the models.

    Parameters
    ----------
    kind
        `'encoder'` for foundation models, `'baseline'` for what is fitted to the data, `'student'` for what
        :func:`~sc_drugresp.models.distill` makes, `None` for all.

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
    """The row of `name` or `name.tag`, in any case, and its checkpoint (`None` for baselines).

    For `llm:<folder or repository>` it is a row that is made up for this language model.

    Raises
    ------
    ValueError
        There is no such model or checkpoint; the message names the nearest ones.
    """
    if is_language_model(name):
        return _language_row(place_of(name))
    rows = {key.casefold(): spec for key, spec in registry().items()}
    base, _, tag = str(name).casefold().partition(".")
    if base not in rows:
        near = difflib.get_close_matches(base, rows, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(repr(rows[key].name) for key in near)}?" if near else ""
        if "/" in str(name) or "\\" in str(name):
            hint = " Give a model's name here and the folder with `checkpoint=`."
        known = sorted(spec.name for spec in rows.values())
        msg = f"Unknown model name {name!r}.{hint} Available models: {known}, and 'llm:<folder or repository>'."
        raise ValueError(msg)
    spec = rows[base]
    if tag and not spec.checkpoints:
        msg = f"Model {spec.name!r} has no checkpoints, found {name!r}. Use {spec.name!r}."
        raise ValueError(msg)
    if not spec.checkpoints:
        return spec, None
    checkpoints = {key.casefold(): checkpoint for key, checkpoint in spec.checkpoints.items()}
    tag = tag or spec.default.casefold()
    if tag not in checkpoints:
        known = [f"{spec.name}.{key}" for key in spec.checkpoints]
        msg = f"Model {spec.name!r} has no checkpoint {tag!r}. Available: {known}."
        raise ValueError(msg)
    return spec, checkpoints[tag]


def canonical(name: str) -> str:
    """The name as the table spells it, with the checkpoint if one was named: `'geneformer'` for `'Geneformer'`."""
    spec, checkpoint = find(name)
    tagged = checkpoint is not None and "." in str(name) and not is_language_model(name)
    return full_name(spec, checkpoint) if tagged else spec.name


def full_name(spec: ModelSpec, checkpoint: Checkpoint | None) -> str:
    """The name of a checkpoint as the table spells it; `llm:<place>` for a language model from elsewhere."""
    return f"{spec.name}.{checkpoint.tag}" if checkpoint is not None and checkpoint.tag else spec.name


def is_language_model(name: object) -> bool:
    """Whether a name stands for a language model in a folder or a repository."""
    return str(name)[: len(LLM)].casefold() == LLM


def place_of(name: object) -> str:
    """The folder or repository that `llm:<place>` names.

    Raises
    ------
    ValueError
        Nothing follows the colon.
    """
    place = str(name)[len(LLM) :].strip()
    if not place.strip("/\\.") or "\0" in place:
        msg = f"{name!r} names no language model; expected 'llm:' and a folder, or a repository as 'owner/name'."
        raise ValueError(msg)
    return place


def _language_row(place: str) -> tuple[ModelSpec, Checkpoint]:
    """The row of a language model that is not registered: what the registered one says of all of them, and its own terms."""
    license = "that of its publisher, see its model card"
    checkpoint = Checkpoint("", {}, license, place, description="language model from a folder or a repository")
    base = registry()["llama3"]
    spec = replace(
        base, name=f"{LLM}{place}", title=f"Language model {place}", reference="", code_license="", default=""
    )
    return replace(spec, checkpoints={"": checkpoint}), checkpoint


@checked
def table() -> pd.DataFrame:
    """List every model and checkpoint with licenses, sizes and costs; needs neither torch nor the files.

    Returns
    -------
    One row per checkpoint, indexed by the name that :func:`~sc_drugresp.tl.embed` takes: `kind`, `dim`, `genes`,
    `species`, `expects`, `set_based`, `parameters`, `gflop_per_cell`, `download_gb`, `weights_license`, `commercial`,
    `code_license`, `default`, `reference`.

    `download_gb` counts all files that :func:`~sc_drugresp.models.download` fetches and those that have to be fetched
    by hand; it is NaN where the publisher states no size. `commercial` is missing (`<NA>`) where the terms of the
    weights are not stated: ask the publisher.

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
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    numbers = dict.fromkeys(("parameters", "gflop_per_cell", "download_gb"), float)
    return frame.astype({**numbers, "commercial": "boolean"})


def _row(spec: ModelSpec, checkpoint: Checkpoint | None) -> dict[str, object]:
    ours = ("that of its teacher", None) if spec.saved else ("", True)
    row = checkpoint or Checkpoint(spec.default, {}, ours[0], "", commercial=ours[1], dim=spec.dim, species=("any",))
    return {
        "kind": spec.kind,
        "dim": row.dim,
        "genes": spec.genes,
        "species": ", ".join(row.species),
        "expects": spec.expects,
        "set_based": spec.set_based,
        "parameters": row.parameters,
        "gflop_per_cell": row.gflop_per_cell,
        "download_gb": None if row.download_bytes is None else round(row.download_bytes / 1e9, 3),
        "weights_license": row.license,
        "commercial": row.commercial,
        "code_license": spec.code_license,
        "default": row.tag == spec.default,
        "reference": spec.reference,
    }
