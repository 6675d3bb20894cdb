"""Read foreign files without running foreign code, and load them strictly."""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.log import logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


def read_state(path: Path) -> Any:
    """Read the tensors of a `.safetensors` or torch file, memory-mapped on the CPU; nothing in it is executed.

    Raises
    ------
    ValueError
        The file is damaged, or holds more than tensors and plain containers.
    """
    import torch

    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise ValueError(_damaged(path, error)) from error
    mapped = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings():  # newer pickle protocols: what cannot be read raises
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)  # noqa: TID251
    except pickle.UnpicklingError as error:
        msg = (
            f"{path} holds more than tensors and plain values, so reading it could run code; it was not loaded "
            f"({str(error).splitlines()[0]}). Get the file from its publisher again, or convert it to safetensors."
        )
        raise ValueError(msg) from error
    except (RuntimeError, EOFError, OSError, KeyError, AttributeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(_damaged(path, error)) from error


def _damaged(path: Path, error: BaseException) -> str:
    return (
        f"{path} ({path.stat().st_size:,} bytes) cannot be read: it is truncated or not a weights file "
        f"({str(error).splitlines()[0]}). Download it again and compare its size with the publisher's."
    )


class _DictUnpickler(pickle.Unpickler):
    """Allows dictionaries of plain values and numpy scalars, nothing else."""

    _ALLOWED = frozenset(
        {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("numpy", "dtype")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._ALLOWED:
            return super().find_class(module, name)
        msg = f"it refers to {module}.{name}"
        raise pickle.UnpicklingError(msg)


def read_pickled_dict(path: Path) -> dict[Any, Any]:
    """Read a pickled dictionary of strings, numbers and numpy scalars; anything else is refused, not executed.

    Raises
    ------
    ValueError
        The file is damaged, holds other objects, or is no dictionary.
    """
    path = Path(path)
    try:
        value = _DictUnpickler(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        msg = f"{path} is not a plain pickled dictionary and was not loaded ({error}). Get it from its publisher again."
        raise ValueError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path} should hold a dictionary, found {type(value).__name__}."
        raise ValueError(msg)
    return {key: item.item() if hasattr(item, "item") else item for key, item in value.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises
    ------
    ValueError
        The file is not JSON, or not an object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not valid JSON ({error}). Download it again."
        raise ValueError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path} should hold a JSON object, found {type(value).__name__}."
        raise ValueError(msg)
    return value


def read_sizes(
    published: Mapping[str, Any], names: Mapping[str, str], optional: Mapping[str, str] | None = None, *, source: object
) -> dict[str, Any]:
    """Take sizes from a published configuration.

    Parameters
    ----------
    published
        The configuration.
    names, optional
        Our names and the publisher's: numbers that must be there, and values that may be there.
    source
        Where the configuration comes from, for error messages.

    Raises
    ------
    ValueError
        A size is missing or is not a number.
    """
    sizes = {ours: published.get(theirs) for ours, theirs in names.items()}
    missing = sorted(names[ours] for ours, value in sizes.items() if not isinstance(value, int | float))
    if missing:
        msg = f"{source} does not state {', '.join(missing)}; it is not the configuration of this model."
        raise ValueError(msg)
    also = {ours: published.get(theirs) for ours, theirs in (optional or {}).items()}
    return sizes | {ours: value for ours, value in also.items() if value is not None}


def read_shapes(
    state: Mapping[str, Tensor], places: Mapping[str, tuple[str, int]], *, model: str, source: object
) -> dict[str, int]:
    """Read the sizes of a network, each from one axis of a tensor, and count its `layers`.

    Raises
    ------
    ValueError
        One of the tensors is missing: another model.
    """
    missing = sorted({tensor for tensor, _ in places.values()} - state.keys())
    if missing:
        found = ", ".join(sorted(state)[:4]) or "nothing"
        msg = (
            f"{source} is not a checkpoint of {model}: {', '.join(missing)} are missing, found {found} ... Check that "
            "the file belongs to this model."
        )
        raise ValueError(msg)
    sizes = {name: state[tensor].shape[axis] for name, (tensor, axis) in places.items()}
    layers = (re.search(r"(?:^|\.)layers\.(\d+)\.", name) for name in state)
    return {**sizes, "layers": 1 + max(int(found[1]) for found in layers if found)}


def check_token_ids(ids: Mapping[str, int], size: int, *, source: Path, network: Path, hint: str) -> None:
    """Check that a table of tokens numbers exactly the tokens of a network, from 0.

    Raises
    ------
    ValueError
        The files do not belong together; `hint` says which ones do.
    """
    if sorted(ids.values()) != list(range(size)):
        msg = f"{source} has {len(ids)} tokens, but the network in {network.parent} was made for {size}. {hint}"
        raise ValueError(msg)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by their published names, see :func:`read_state` and :func:`flat_state`."""
    return flat_state(read_state(path), source=path)


def flat_state(value: Any, *, source: object) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, whatever it is wrapped in.

    Looks below `state_dict`, `model_state_dict` or `model`, ignores what stands beside it (epoch, optimizer), and takes
    off the `module.` that data-parallel training puts in front.

    Raises
    ------
    ValueError
        It holds no named tensors.
    """
    import torch

    while isinstance(value, dict):
        inner = [value[key] for key in ("state_dict", "model_state_dict", "model") if isinstance(value.get(key), dict)]
        if not inner:
            break
        value = inner[0]
    if not isinstance(value, dict) or not any(isinstance(item, torch.Tensor) for item in value.values()):
        msg = f"{source} holds no named tensors, found {type(value).__name__}. Is it a weights file?"
        raise ValueError(msg)
    tensors = {str(name): item for name, item in value.items() if isinstance(item, torch.Tensor)}
    while all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): item for name, item in tensors.items()}
    return tensors


def load_strict(module: nn.Module, state: Mapping[str, Tensor], *, source: object) -> None:
    """Fill a module built on the `meta` device; every tensor must be there, fit, and be used.

    Half-precision weights are widened to the precision of the module.

    Raises
    ------
    ValueError
        Tensors are missing, left over, or of another shape: another architecture or vocabulary.
    """
    import torch

    wanted = module.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    extra = sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        for what, names in (("tensors are missing", missing), ("tensors are unknown", extra), ("shapes differ", shapes))
        if names
    ]
    if problems:
        msg = (
            f"The weights in {source} do not fit {type(module).__name__} with the sizes of its configuration and "
            f"vocabulary. {'; '.join(problems)}. Check that all files come from the same published checkpoint."
        )
        raise ValueError(msg)
    converted = {}
    for name, tensor in state.items():
        dtype = wanted[name].dtype
        if tensor.dtype != dtype:
            logger.info("%s: %s is stored as %s, used as %s", source, name, tensor.dtype, dtype)
        converted[name] = tensor.to(dtype)
    module.load_state_dict(converted, strict=True, assign=True)
    for name, buffer in module.named_buffers():
        if buffer.device == torch.device("meta"):
            msg = f"Buffer {name} of {type(module).__name__} was not filled."
            raise RuntimeError(msg)
    module.requires_grad_(requires_grad=False)
