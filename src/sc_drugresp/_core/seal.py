"""Folders of JSON and safetensors that say what they hold, so that a changed file is refused by name."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from .hashing import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SEAL = "seal"
FINITE, NOT_FINITE = "that are finite", "with NaN or infinity"
_FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_BFLOAT_EXPONENT = 0x7F80
_LARGEST_HEADER = 100_000_000
_BLOCK = 1 << 22


def sealed(meta: Mapping[str, Any], folder: Path, *, indent: int | None = None) -> str:
    """JSON of `meta` with a seal: the hash of all other keys, and hash and tensors of every file in `folder`.

    Raises
    ------
    TypeError, ValueError
        `meta` holds what JSON has no word for.
    """
    files = {file.name: {"sha256": sha256(file), **_described(file)} for file in sorted(folder.iterdir())}
    seal = {"content": _digest({**meta, SEAL: files}), "files": files}
    return json.dumps({**meta, SEAL: seal}, indent=indent, allow_nan=False)


def read_sealed(
    folder: Path, name: str, form: int, *, again: str, shown: Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The JSON object of a sealed folder, and the names of its files.

    Parameters
    ----------
    folder
        The folder.
    name
        Its JSON file.
    form
        The number `format` that this version reads.
    again
        What to do about an older one.
    shown
        The folder as the user knows it, for messages.

    Raises
    ------
    FileNotFoundError
        A file is missing.
    ValueError
        Something is damaged, or was written by another version.
    """
    path = folder if shown is None else shown
    try:
        meta = json.loads((folder / name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{path / name} is damaged or incomplete ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    if not isinstance(meta, dict) or not isinstance(meta.get("format"), int):
        msg = f"{path / name} is damaged: expected a JSON object with a number `format`."
        raise ValueError(msg)
    if meta["format"] != form:
        what = "Update sc-drugresp" if meta["format"] > form else again
        msg = f"{path} was written in format {meta['format']}, this version reads format {form}. {what}."
        raise ValueError(msg)
    return meta, check_seal(folder, name, meta)


def check_seal(folder: Path, name: str, meta: Mapping[str, Any]) -> list[str]:
    """Compare a folder with its seal; returns the names of its files.

    Parameters
    ----------
    folder
        The folder.
    name
        Its JSON file, for messages.
    meta
        What is in it.

    Raises
    ------
    ValueError
        Something is not as it was written; the message names the file and, where there is one, the tensor.
    FileNotFoundError
        A file is missing.
    """
    seal = meta.get(SEAL)
    known = seal.get("files") if isinstance(seal, dict) else None
    content = seal.get("content") if isinstance(seal, dict) else None
    if not isinstance(known, dict) or content != _digest({**meta, SEAL: known}):
        msg = f"{folder / name} is damaged or incomplete: its content is not that which its `{SEAL}` was made for."
        raise ValueError(msg)
    for file, expected in known.items():
        path = folder / file
        if path.parent != folder or not isinstance(expected, dict):
            msg = f"{folder / name} lists {file!r}, which is no file beside it."
            raise ValueError(msg)
        if not path.is_file():
            msg = f"{path} is missing; {name} lists it."
            raise FileNotFoundError(msg)
        _compare(path, expected.get("tensors"))
        if sha256(path) != expected.get("sha256"):
            msg = f"{path} is damaged or incomplete: its SHA-256 is {sha256(path)}, expected {expected.get('sha256')}."
            raise ValueError(msg)
    return list(known)


def _compare(path: Path, expected: dict[str, Any] | None) -> None:
    """Refuse a file whose tensors are not the expected ones."""
    if expected is None:
        return
    found = _described(path)["tensors"]
    absent, more = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if absent or more:
        told = f"lacks the tensor {absent[0]!r}" if absent else f"holds the unexpected tensor {more[0]!r}"
        msg = f"{path} is damaged or incomplete: it {told}; expected {sorted(expected)[:8]}."
        raise ValueError(msg)
    for tensor, wanted in expected.items():
        for part in ("shape", "dtype", "values"):
            if found[tensor][part] != wanted[part]:
                msg = f"{path} is damaged or incomplete: tensor {tensor!r} has {part} {found[tensor][part]}, expected {wanted[part]}."
                raise ValueError(msg)


def _described(path: Path) -> dict[str, Any]:
    """Tensors of a safetensors file by name; nothing of other files.

    Raises
    ------
    ValueError
        The file is damaged.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
                msg = f"its header of {length} bytes does not fit into {size}"
                raise ValueError(msg)
            header = json.loads(file.read(length))
        tensors = {name: _tensor(path, 8 + length, told) for name, told in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{path} is damaged or incomplete: {error}."
        raise ValueError(msg) from error
    return {"tensors": tensors}


def _tensor(path: Path, start: int, told: dict[str, Any]) -> dict[str, Any]:
    first, last = (start + int(offset) for offset in told["data_offsets"])
    if not start <= first <= last <= path.stat().st_size:
        msg = "a tensor lies beyond its end"
        raise ValueError(msg)
    kind = str(told["dtype"])
    values = FINITE if _finite(path, first, last, kind) else NOT_FINITE
    return {"shape": [int(n) for n in told["shape"]], "dtype": kind, "values": values}


def _finite(path: Path, first: int, last: int, kind: str) -> bool:
    dtype = np.dtype(np.uint16 if kind == "BF16" else _FLOATS.get(kind, np.uint8))
    if kind not in _FLOATS and kind != "BF16":
        return True
    with path.open("rb") as file:
        file.seek(first)
        for at in range(first, last, _BLOCK):
            values = np.frombuffer(file.read(min(_BLOCK, last - at)), dtype=dtype)
            exponents = values & _BFLOAT_EXPONENT if kind == "BF16" else values
            if (exponents == _BFLOAT_EXPONENT).any() if kind == "BF16" else not np.isfinite(values).all():
                return False
    return True


def _digest(meta: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, whatever the order of keys and the white space."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
