"""Students on disk: a folder of JSON and safetensors, nothing pickled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.folders import draft_of_folder, read_whole, standing
from .._core.json import jsonable
from .._core.seal import FINITE, SEAL, read_sealed, sealed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

FORMAT = 1
META, WEIGHTS = "student.json", "student.safetensors"
_TOLD = ("teacher", "fidelity", "data", "training")
_LISTED = ("genes", "gene_kind", *_TOLD)


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the bytes of a safetensors file."""
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}))


def write_student(fields: Mapping[str, Any], path: str | PathLike[str], *, overwrite: bool) -> None:
    """Write the folder of a student; it appears complete or not at all.

    Raises
    ------
    FileExistsError
        The path exists and `overwrite` is false, or it is not a saved student.
    """
    place = Path(path)
    _check_free(place, overwrite=overwrite)
    meta = jsonable({"format": FORMAT, **{name: fields[name] for name in _LISTED}})
    data = packed(fields["arrays"])
    with draft_of_folder(place, {META, WEIGHTS}) as draft:
        _check_free(place, overwrite=overwrite)  # another process may have been quicker
        (draft / WEIGHTS).write_bytes(data)
        (draft / META).write_text(sealed(meta, draft, indent=2), encoding="utf-8")


def _check_free(path: Path, *, overwrite: bool) -> None:
    folder = standing(path)
    if folder.exists() and not (overwrite and (folder / META).is_file()):
        msg = f"{path} exists. Choose another path" + ("." if overwrite else ", or pass overwrite=True.")
        raise FileExistsError(msg)


def read_student(path: str | PathLike[str]) -> dict[str, Any]:
    """Read the fields of a student from its folder; nothing in it is executed.

    Raises
    ------
    FileNotFoundError
        The folder is not a saved student or is incomplete.
    ValueError
        A file is damaged, does not fit the other, or was written by another version.
    """
    place = Path(path)
    return read_whole(place, META, lambda folder: _read(folder, place))


def _read(folder: Path, path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / META).is_file():
        msg = f"{path} holds no saved student ({META} is missing). models.distill makes one, and its `save` writes it."
        raise FileNotFoundError(msg)
    meta, _ = read_sealed(folder, META, FORMAT, again="Distill it again", shown=path)
    try:
        tensors = meta[SEAL]["files"][WEIGHTS]["tensors"]
        if any(tensor["values"] != FINITE for tensor in tensors.values()):
            msg = "a weight is NaN or infinite"
            raise ValueError(msg)
        fields = {name: meta[name] for name in _LISTED}
        arrays = {name: np.asarray(value, dtype=np.float32) for name, value in load_file(folder / WEIGHTS).items()}
        _check_shapes(arrays, len(fields["genes"]))
        if not all(isinstance(fields[name], dict) for name in _TOLD):
            msg = "expected objects"
            raise ValueError(msg)
        _check_told(fields)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        msg = f"The student in {path} is damaged or incomplete ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    return fields | {"arrays": arrays}


def _check_told(fields: Mapping[str, Any]) -> None:
    """Refuse a student that does not say who taught it and how close it comes.

    Raises
    ------
    KeyError, TypeError, ValueError
        Something is missing or is no number.
    """
    for name in ("name", "sha256", "license", "commercial", "publisher"):
        if not isinstance(fields["teacher"][name], str):
            msg = f"`teacher` lacks the text {name!r}"
            raise TypeError(msg)
    float(fields["fidelity"]["rows"]["student"]["cosine"])
    int(fields["fidelity"]["n_samples"])
    str(fields["fidelity"]["verdict"])


def _check_shapes(arrays: Mapping[str, np.ndarray], n_genes: int) -> None:
    """Refuse arrays that are not those of one network for so many genes.

    Raises
    ------
    ValueError
        An array is missing, left over, or of another shape.
    """
    width, dim, n = len(arrays["up.bias"]), len(arrays["target_mean"]), n_genes + 1
    wanted: dict[str, tuple[int, ...]] = {"mean": (n,), "scale": (n,), "target_mean": (dim,), "target_scale": (dim,)}
    wanted |= {"enter.weight": (width, n), "enter.bias": (width,), "leave.weight": (dim, width), "leave.bias": (dim,)}
    wanted |= {"skip.weight": (dim, n), "skip.bias": (dim,)}
    wanted |= {f"{name}.{part}": (width,) for name in ("norm", "final_norm") for part in ("weight", "bias")}
    for name in ("up", "down"):
        wanted |= {f"{name}.weight": (width, width), f"{name}.bias": (width,)}
    found = {name: array.shape for name, array in arrays.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            msg = f"tensor {name!r} has shape {found.get(name)}, expected {wanted.get(name)}"
            raise ValueError(msg)
