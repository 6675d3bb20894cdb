"""References on disk: a folder of JSON and safetensors files, nothing pickled."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.folders import draft_of_folder, read_whole, standing
from .._core.json import jsonable
from .._core.seal import read_sealed, sealed
from .._core.settings import settings
from .shift import PlatformShift

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import pandas as pd

FORMAT = 2
META, ARRAYS = "reference.json", "arrays.safetensors"
DEFAULT = "default"
_FIELDS = ("mean", "spread", "intercept", "errors", "recalibration", "tissue_means", "centroids", "gaps")


def cached(name: str) -> Path:
    """Folder of a reference that was built on this machine."""
    return settings.cache_dir / "references" / name


def locate(path: str | PathLike[str] | None) -> Path:
    """Folder of a reference: the one of the package, one in the cache, or a path.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    if path is None or path == DEFAULT:
        with as_file(files(__package__) / DEFAULT) as folder:
            return folder
    found = Path(path)
    if not (standing(found) / META).is_file() and isinstance(path, str) and (standing(cached(path)) / META).is_file():
        return cached(path)
    if not (standing(found) / META).is_file():
        msg = (
            f"{path} holds no reference ({META} is missing), and none of that name was built on this machine. "
            "models.reference_table() lists them; models.build_reference makes one."
        )
        raise FileNotFoundError(msg)
    return found


def write_reference(
    fields: Mapping[str, Any], path: str | PathLike[str], *, overwrite: bool, compact: bool = False
) -> None:
    """Write the folder of a reference; it appears complete or not at all.

    Parameters
    ----------
    fields
        Those of a :class:`~sc_drugresp.models.Reference`.
    path
        Folder to make.
    overwrite
        Replace a folder that holds a reference.
    compact
        Round weights to 8 bits per drug and the rest to float16.

    Raises
    ------
    FileExistsError
        The path exists and `overwrite` is false, or it is not a saved reference.
    """
    from safetensors.numpy import save_file

    kind = np.float16 if compact else np.float32
    arrays = {name: np.asarray(fields[name], dtype=kind) for name in _FIELDS}
    if compact:
        step = np.maximum(np.abs(fields["weights"]).max(axis=0), 1e-30) / 127
        arrays |= {"weights": np.rint(fields["weights"] / step).astype(np.int8), "step": step.astype(np.float32)}
        arrays["intercept"] = np.asarray(fields["intercept"], dtype=np.float32)
    else:
        arrays["weights"] = np.asarray(fields["weights"], dtype=np.float32)
    for name, shift in fields["shifts"].items():
        arrays[f"shift.{name}"] = np.asarray(shift.values, dtype=kind)
        if shift.deviations is not None:
            arrays[f"shift.{name}.deviations"] = np.asarray(shift.deviations, dtype=kind)
    meta = {
        "format": FORMAT,
        "name": fields["name"],
        "genes": fields["genes"],
        "lineages": fields["lineages"],
        "programs": dict(fields["programs"]),
        "drugs": _columns(fields["drugs"]),
        "lines": _columns(fields["lines"]),
        "shifts": {name: {"lines": shift.lines, "source": shift.source} for name, shift in fields["shifts"].items()},
        "info": fields["info"],
    }
    place = Path(path)
    folder = standing(place)
    if folder.exists() and not (overwrite and (folder / META).is_file()):
        msg = f"{place} exists. Choose another path" + ("." if overwrite else ", or pass overwrite=True.")
        raise FileExistsError(msg)
    with draft_of_folder(place, {META, ARRAYS}) as draft:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, draft / ARRAYS)
        (draft / META).write_text(sealed(jsonable(meta), draft), encoding="utf-8")


def read_reference(path: Path) -> dict[str, Any]:
    """As `_read`, again if the folder was replaced meanwhile."""
    return read_whole(path, META, _read)


def _read(path: Path) -> dict[str, Any]:
    """Read the fields of a reference from its folder; nothing in it is executed.

    Raises
    ------
    FileNotFoundError
        A file is missing.
    ValueError
        A file is damaged, does not fit the other, or was written by another version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    meta, _ = read_sealed(path, META, FORMAT, again="Build it again")
    try:
        stored = load_file(path / ARRAYS)
        arrays = {name: stored[name].astype(np.float32) for name in (*_FIELDS, "weights")}
        if "step" in stored:
            arrays["weights"] *= stored["step"]
        shifts = {name: _shift(name, told, stored) for name, told in meta["shifts"].items()}
        drugs, lines = _frame(meta["drugs"], "drug"), _frame(meta["lines"], "line")
        fields = {name: meta[name] for name in ("name", "genes", "lineages", "info")}
        fields["programs"] = {str(name): float(limit) for name, limit in meta["programs"].items()}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        msg = f"The reference in {path} is damaged or incomplete ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    _check_shapes(path, arrays, shifts, len(fields["genes"]), len(drugs), len(fields["lineages"]))
    return fields | arrays | {"drugs": drugs, "lines": lines, "shifts": shifts}


def _shift(name: str, told: dict[str, Any], stored: dict[str, np.ndarray]) -> PlatformShift:
    rest = stored.get(f"shift.{name}.deviations")
    values, lines = stored[f"shift.{name}"].astype(np.float32), tuple(told["lines"])
    return PlatformShift(name, values, lines, told["source"], None if rest is None else rest.astype(np.float32))


def _check_shapes(
    path: Path,
    arrays: dict[str, np.ndarray],
    shifts: dict[str, PlatformShift],
    n_genes: int,
    n_drugs: int,
    n_lineages: int,
) -> None:
    wanted = {
        "mean": (n_genes,),
        "spread": (n_genes,),
        "weights": (n_genes, n_drugs),
        "intercept": (n_drugs,),
        "tissue_means": (n_drugs, n_lineages),
        "centroids": (n_lineages, n_genes),
        "gaps": (n_lineages,),
    }
    found = {name: arrays[name].shape for name in wanted} | {f"shift {n}": s.values.shape for n, s in shifts.items()}
    wanted |= {f"shift {name}": (n_genes,) for name in shifts}
    for name, shift in shifts.items():
        if shift.deviations is not None:
            key = f"deviations from shift {name}"
            wanted[key], found[key] = (len(shift.lines), n_genes), shift.deviations.shape
    wrong = [name for name, shape in wanted.items() if found[name] != shape]
    if wrong:
        msg = (
            f"The reference in {path} is damaged: {wrong[0]} has shape {found[wrong[0]]}, expected {wanted[wrong[0]]}."
        )
        raise ValueError(msg)


def _columns(frame: pd.DataFrame) -> dict[str, Any]:
    return {"index": frame.index.tolist(), "columns": {str(name): column.tolist() for name, column in frame.items()}}


def _frame(stored: dict[str, Any], index: str) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(stored["columns"], index=pd.Index(stored["index"], name=index, dtype=object))
    for name, column in frame.items():
        if column.isna().all():
            frame[name] = column.astype(float)
    return frame
