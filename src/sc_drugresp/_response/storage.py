"""Response models on disk: a folder of JSON and safetensors files, nothing pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.files import draft_folder
from .._core.json import jsonable
from .._core.keys import RESISTANT, SENSITIVE
from ..models._load import model_class
from ..models._registry import find
from .heads import head_arrays, head_from_arrays
from .trust import Trust

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

FORMAT = 2
MODEL, HEAD, EMBEDDER, WEIGHTS = "model.json", "head.safetensors", "embedder.safetensors", "encoder.safetensors"
ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"


def write_model(fields: Mapping[str, Any], path: str | PathLike[str], *, overwrite: bool) -> None:
    """Write the folder of a model from its fields; it appears complete or not at all.

    Raises
    ------
    FileExistsError
        The path exists and `overwrite` is false, or it is not a saved model.
    """
    with draft_folder(Path(path), MODEL, overwrite=overwrite) as draft:
        _fill(draft, fields)


def _fill(folder: Path, fields: Mapping[str, Any]) -> None:
    from safetensors.numpy import save_file

    def save(arrays: Mapping[str, np.ndarray], name: str) -> None:
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, folder / name)

    embedder, adapter, weights = (fields[name] for name in ("embedder", "adapter", "weights"))
    parts = fields["trust"].parts()
    meta: dict[str, Any] = {
        "format": FORMAT,
        "head": fields["head"].kind,
        "score": f"P({SENSITIVE})",
        "classes": [RESISTANT, SENSITIVE],
        "representation": fields["representation"],
        "info": fields["info"],
        "history": fields["history"],
        "trust": {name: values for name, (values, _) in parts.items()},
    }
    save(head_arrays(fields["head"]), HEAD)
    for name, (_, arrays) in parts.items():
        if arrays:
            save(arrays, f"{name}.safetensors")
    if embedder is not None:
        meta["embedder"], arrays = embedder.state()
        save(arrays, EMBEDDER)
    if adapter is not None or weights is not None:
        from safetensors.torch import save_file as save_tensors

        if adapter is not None:
            (folder / ADAPTER_CONFIG).write_text(json.dumps(adapter["config"], indent=2), encoding="utf-8")
            save_tensors(adapter["tensors"], folder / ADAPTER, metadata={"format": "pt"})
        if weights is not None:
            save_tensors(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / MODEL).write_text(json.dumps(jsonable(meta), indent=2, allow_nan=False), encoding="utf-8")


def holds_model(path: str | PathLike[str]) -> bool:
    """Whether a folder is a saved model."""
    return (Path(path) / MODEL).is_file()


def read_model(path: str | PathLike[str]) -> dict[str, Any]:
    """Read the fields of a model from its folder; nothing in it is executed.

    Raises
    ------
    FileNotFoundError
        The folder is not a saved model or is incomplete.
    ValueError
        A file is damaged or was written by another version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = Path(path)
    if not holds_model(path):
        msg = f"{path} holds no saved response model ({MODEL} is missing)."
        raise FileNotFoundError(msg)
    try:
        meta = json.loads((path / MODEL).read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            what = "Update sc-drugresp" if meta["format"] > FORMAT else "Train it again"
            msg = f"{path} was written in format {meta['format']}, this version reads format {FORMAT}. {what}."
            raise ValueError(msg)
        head = head_from_arrays(meta["head"], load_file(path / HEAD))
        files = {name: path / f"{name}.safetensors" for name in meta["trust"]}
        arrays = {name: load_file(file) if file.is_file() else {} for name, file in files.items()}
        trust = Trust.from_parts({name: (values, arrays[name]) for name, values in meta["trust"].items()})
        fields: dict[str, Any] = {name: meta[name] for name in ("representation", "info", "history")}
        fields |= {"head": head, "trust": trust}
        if "embedder" in meta:
            cls = model_class(find(meta["representation"]["model"])[0])
            fields["embedder"] = cls.from_state(meta["embedder"], load_file(path / EMBEDDER))
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        msg = f"The model in {path} is damaged or incomplete ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    return fields | _tensors(path)


def _tensors(path: Path) -> dict[str, Any]:
    """The adapter and the weights of a tuned encoder; torch is loaded only where there are some."""
    if not ((path / ADAPTER).is_file() or (path / WEIGHTS).is_file()):
        return {}
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    if (path / ADAPTER).is_file():
        config = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        found["adapter"] = {"config": config, "tensors": load_file(path / ADAPTER)}
    if (path / WEIGHTS).is_file():
        found["weights"] = load_file(path / WEIGHTS)
    return found
