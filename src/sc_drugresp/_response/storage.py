"""Response models on disk: a folder of JSON and safetensors files, nothing pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.folders import draft_of_folder, read_whole, standing
from .._core.json import jsonable
from .._core.keys import RESISTANT, SENSITIVE
from .._core.process import leaves_alone
from .._core.seal import read_sealed, sealed
from ..models._load import model_class
from ..models._registry import find
from .heads import head_arrays, head_from_arrays
from .trust import PARTS, Trust

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from os import PathLike

FORMAT = 4
MODEL, HEAD, EMBEDDER, WEIGHTS = "model.json", "head.safetensors", "embedder.safetensors", "encoder.safetensors"
ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
OWN = frozenset({MODEL, HEAD, EMBEDDER, WEIGHTS, ADAPTER_CONFIG, ADAPTER, *(f"{name}.safetensors" for name in PARTS)})
"""Every name that a model may have in its folder; whatever else lies there belongs to somebody else."""


def write_model(fields: Mapping[str, Any], path: str | PathLike[str], *, overwrite: bool) -> None:
    """Write the folder of a model from its fields; it appears complete or not at all.

    An old model stays until the new one is on the disk, and the two are exchanged in one step. Files of others in the
    folder stay there.

    Raises
    ------
    FileExistsError
        The path exists and `overwrite` is false, or it is not a saved model.
    ValueError
        `info` or `representation` holds NaN or infinity, which JSON has no word for.
    """
    path = Path(path)
    _check_free(path, overwrite=overwrite)
    meta = _meta(fields)
    with draft_of_folder(path, OWN) as draft:
        _check_free(path, overwrite=overwrite)  # another process may have been quicker
        _fill(draft, fields)
        (draft / MODEL).write_text(sealed(meta, draft, indent=2), encoding="utf-8")


def _check_free(path: Path, *, overwrite: bool) -> None:
    folder = standing(path)
    if folder.exists() and not (overwrite and (folder / MODEL).is_file()):
        msg = f"{path} exists. Choose another path" + ("." if overwrite else ", or pass overwrite=True.")
        raise FileExistsError(msg)


def _meta(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What `model.json` says; made before anything is written, so that what JSON cannot hold is found first."""
    for name in ("info", "representation"):
        if where := _not_finite(fields[name], name):
            msg = f"ResponseModel.{where} is not a finite number and cannot be saved. Set it to None or remove it."
            raise ValueError(msg)
    meta: dict[str, Any] = {
        "format": FORMAT,
        "head": fields["head"].kind,
        "score": f"P({SENSITIVE})",
        "classes": [RESISTANT, SENSITIVE],
        "representation": fields["representation"],
        "info": fields["info"],
        "history": fields["history"],
        "trust": {name: values for name, (values, _) in fields["trust"].parts().items()},
    }
    if fields["embedder"] is not None:
        meta["embedder"] = fields["embedder"].state()[0]
    return dict(jsonable(meta))


def _not_finite(value: Any, name: str) -> str | None:
    """Name of the first NaN or infinity in nested values."""
    if isinstance(value, float | np.floating) and not np.isfinite(value):
        return f"{name} = {value}"
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
        return f"{name}, an array with NaN or infinity,"
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    return next((found for key, item in pairs if (found := _not_finite(item, f"{name}[{key!r}]"))), None)


def _fill(folder: Path, fields: Mapping[str, Any]) -> None:
    from safetensors.numpy import save_file

    def save(arrays: Mapping[str, np.ndarray], name: str) -> None:
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, folder / name)

    embedder, adapter, weights = (fields[name] for name in ("embedder", "adapter", "weights"))
    save(head_arrays(fields["head"]), HEAD)
    for name, (_, arrays) in fields["trust"].parts().items():
        if arrays:
            save(arrays, f"{name}.safetensors")
    if embedder is not None:
        save(embedder.state()[1], EMBEDDER)
    if adapter is not None or weights is not None:
        from safetensors.torch import save_file as save_tensors

        if adapter is not None:
            (folder / ADAPTER_CONFIG).write_text(json.dumps(adapter["config"], indent=2), encoding="utf-8")
            save_tensors(adapter["tensors"], folder / ADAPTER, metadata={"format": "pt"})
        if weights is not None:
            save_tensors(weights, folder / WEIGHTS, metadata={"format": "pt"})


def holds_model(path: str | PathLike[str]) -> bool:
    """Whether a folder is a saved model."""
    return (Path(path) / MODEL).is_file()


@leaves_alone
def read_model(path: str | PathLike[str]) -> dict[str, Any]:
    """Read the fields of a model from its folder; nothing in it is executed.

    Raises
    ------
    FileNotFoundError
        The folder is not a saved model or is incomplete.
    ValueError
        A file is damaged or was written by another version.
    """
    place = Path(path)
    return read_whole(place, MODEL, lambda folder: _read(folder, place))


def _read(folder: Path, path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / MODEL).is_file():
        msg = f"{path} holds no saved response model ({MODEL} is missing)."
        raise FileNotFoundError(msg)
    meta, names = read_sealed(folder, MODEL, FORMAT, again="Train it again", shown=path)
    try:
        head = head_from_arrays(meta["head"], load_file(folder / HEAD))
        files = {name: f"{name}.safetensors" for name in meta["trust"]}
        arrays = {name: load_file(folder / file) if file in names else {} for name, file in files.items()}
        trust = Trust.from_parts({name: (values, arrays[name]) for name, values in meta["trust"].items()})
        fields: dict[str, Any] = {name: meta[name] for name in ("representation", "info", "history")}
        fields |= {"head": head, "trust": trust}
        if "embedder" in meta:
            cls = model_class(find(meta["representation"]["model"])[0])
            fields["embedder"] = cls.from_state(meta["embedder"], load_file(folder / EMBEDDER))
        fields |= _tensors(folder, names)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        msg = f"The model in {path} is damaged or incomplete ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    return fields


def _tensors(path: Path, names: Collection[str]) -> dict[str, Any]:
    """The adapter and the weights of a tuned encoder; torch is loaded only where there are some."""
    if not {ADAPTER, WEIGHTS} & set(names):
        return {}
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    if ADAPTER in names:
        config = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        found["adapter"] = {"config": config, "tensors": load_file(path / ADAPTER)}
    if WEIGHTS in names:
        found["weights"] = load_file(path / WEIGHTS)
    return found
