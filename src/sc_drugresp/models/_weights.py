"""Read foreign files without running foreign code, and load them strictly."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.log import logger
from ._files import check_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What torch and zipfile raise on damaged files."""
_UNSAFE = re.compile(r"(?i)unsupported (?:global|class|operand)[^\n]{0,80}?(?= was not| whose|\n|$)")
_NUMBERED = re.compile(r"(?:^|\.)(?:layers?|h|transformer_encoder)\.(\d+)$")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def read_state(path: Path) -> Any:
    """Read the tensors of a `.safetensors` or torch file, memory-mapped on the CPU; nothing in it is executed.

    Raises
    ------
    ValueError
        The file is damaged, or holds more than tensors and plain containers.
    FileNotFoundError
        There is no such file.
    """
    import torch

    path = check_file(Path(path))
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, *BROKEN) as error:
            raise ValueError(_damaged(path, error)) from error
    mapped = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings():  # newer pickle protocols: what cannot be read raises
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)  # noqa: TID251
    except pickle.UnpicklingError as error:
        found = _UNSAFE.search(str(error))  # not torch's advice to switch its protection off
        msg = (
            f"{path} holds more than tensors and plain values, so reading it could run code; it was not loaded "
            f"({found[0].strip() if found else 'it is no table of tensors'}). Get the file from its publisher again, or convert it to safetensors."
        )
        raise ValueError(msg) from error
    except BROKEN as error:
        raise ValueError(_damaged(path, error)) from error


def check_archive(path: Path) -> None:
    """Compare the parts of a torch file with the checksums that it holds; other files hold none.

    Raises
    ------
    ValueError
        A part was changed after the file was written.
    """
    if not zipfile.is_zipfile(path):
        return
    part = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                part = member.filename
                if member.compress_type != zipfile.ZIP_STORED:
                    msg = f"{part} is compressed"
                    raise zipfile.BadZipFile(msg)
                if member.CRC:  # torch can be told to write none
                    with archive.open(member) as file:
                        while file.read(1 << 20):
                            pass
    except BROKEN as error:
        msg = (
            f"{path} is damaged: its part {part!r} is not what was written ({_first_line(error)}). Download the file "
            "again."
        )
        raise ValueError(msg) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _damaged(path: Path, error: BaseException) -> str:
    return (
        f"{path} ({path.stat().st_size:,} bytes) cannot be read: it is truncated or not a weights file "
        f"({_first_line(error)}). Download it again and compare its size with the publisher's."
    )


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
    missing = sorted(
        names[ours] for ours, value in sizes.items() if isinstance(value, bool) or not isinstance(value, int | float)
    )
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
    for tensor, axis in places.values():
        if state[tensor].ndim <= axis:
            msg = (
                f"{source}: tensor {tensor} has the shape {tuple(state[tensor].shape)}, expected {axis + 1} dimensions or "
                f"more. It is not a checkpoint of {model}."
            )
            raise ValueError(msg)
    sizes = {name: state[tensor].shape[axis] for name, (tensor, axis) in places.items()}
    return {**sizes, "layers": count_layers(state, source=source)}


def count_layers(state: Mapping[str, Any], *, source: object) -> int:
    """How many layers `layers.<i>` there are.

    Raises
    ------
    ValueError
        There are none, or one is missing in between.
    """
    numbers = {int(found[1]) for found in map(_LAYER.search, state) if found}
    missing = next(i for i in range(len(numbers) + 1) if i not in numbers)
    if missing < len(numbers) or not numbers:
        found = f"{len(numbers)} layers, the last one is {max(numbers)}" if numbers else "none"
        msg = (
            f"{source}: all tensors of layer {missing} are missing: layers.{missing}.*; found {found}. The file is "
            "incomplete: download it again."
        )
        raise ValueError(msg)
    return len(numbers)


def check_token_ids(ids: Mapping[str, int], size: int, *, source: Path, network: Path, hint: str) -> None:
    """Check that a table of tokens numbers exactly the tokens of a network, from 0.

    Raises
    ------
    ValueError
        The files do not belong together; `hint` says which ones do.
    """
    if len(ids) != size or sorted(ids.values()) != list(range(size)):
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

    value = innermost(value)
    if not isinstance(value, dict) or not any(isinstance(item, torch.Tensor) for item in value.values()):
        msg = f"{source} holds no named tensors, found {type(value).__name__}. Is it a weights file?"
        raise ValueError(msg)
    if others := [name for name, item in value.items() if not isinstance(item, torch.Tensor)]:
        msg = (
            f"{source}: entry {others[0]!r} is a {type(value[others[0]]).__name__}, expected a tensor. Save the tensors "
            "alone, under `state_dict`."
        )
        raise ValueError(msg)
    if empty := [name for name, item in value.items() if item.is_meta]:
        msg = f"{source}: tensor {empty[0]} has a shape but no numbers; expected numbers. Take the published file."
        raise ValueError(msg)
    listed = listed_layers(value)
    if lost := sorted(layer for layer, has_tensors in listed.items() if not has_tensors):
        msg = (
            f"{source}: all tensors of {lost[0]} are missing, but the file's own list of modules names it; found "
            f"{sum(listed.values())} layers, expected {len(listed)}. The file is incomplete: download it again."
        )
        raise ValueError(msg)
    tensors = {str(name): item for name, item in value.items()}
    while all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): item for name, item in tensors.items()}
    return tensors


def innermost(value: Any) -> Any:
    """What a checkpoint wraps: the table below `state_dict`, `model_state_dict` or `model`."""
    while isinstance(value, dict):
        inner = [value[key] for key in ("state_dict", "model_state_dict", "model") if isinstance(value.get(key), dict)]
        if not inner:
            break
        value = inner[0]
    return value


def listed_layers(value: Any) -> dict[str, bool]:
    """Layers in the list of modules that torch keeps with a table of tensors, and whether they have tensors.

    A numbered module counts as a layer if a part of it has tensors in the module of the same kind with number 0.
    """
    modules = getattr(value, "_metadata", None)
    modules = {str(name) for name in modules} if isinstance(modules, dict) else set()
    owners = {str(name).rpartition(".")[0] for name in value}
    layers = {}
    for name in modules:
        if _NUMBERED.search(name):
            first = f"{name.rpartition('.')[0]}.0"
            parts = [owner.removeprefix(first) for owner in owners if owner == first or owner.startswith(f"{first}.")]
            if any(name + part in modules for part in parts):
                layers[name] = any(owner == name or owner.startswith(f"{name}.") for owner in owners)
    return layers


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
        check_tensor(name, tensor, dtype, source=source)
        if tensor.dtype != dtype:
            logger.info("%s: %s is stored as %s, used as %s", source, name, tensor.dtype, dtype)
        converted[name] = check_finite(name, tensor.to(dtype), source=source)
    module.load_state_dict(converted, strict=True, assign=True)
    for name, buffer in module.named_buffers():
        if buffer.device == torch.device("meta"):
            msg = f"Buffer {name} of {type(module).__name__} was not filled."
            raise RuntimeError(msg)
    module.requires_grad_(requires_grad=False)


def check_tensor(name: str, tensor: Tensor, dtype: Any, *, source: object) -> None:
    """Check that a tensor is a plain array of real numbers that can be used as `dtype`.

    Raises
    ------
    ValueError
        It holds integers, truth values, complex or 8-bit floating-point numbers, or is sparse.
    """
    import torch

    known = (torch.float32, torch.float64, torch.float16, torch.bfloat16) if dtype.is_floating_point else (dtype,)
    plain = tensor.layout == torch.strided and not tensor.is_nested
    if tensor.dtype not in known or not plain:
        found = str(tensor.dtype) if plain else f"a tensor of layout {tensor.layout}"
        msg = (
            f"{source}: tensor {name} is stored as {found}, expected {' or '.join(map(str, known))}. Numbers of another "
            "kind do not give the published network; take the published file."
        )
        raise ValueError(msg)


def check_finite(name: str, tensor: Tensor, *, source: object) -> Tensor:
    """The tensor, if all its numbers are finite.

    Raises
    ------
    ValueError
        Some are NaN or infinite.
    """
    import torch

    # One pass without a mask as large as the tensor; a sum that overflows is looked at again.
    if tensor.is_floating_point() and not tensor.is_meta and not tensor.sum(dtype=torch.float64).isfinite():
        wrong = tensor.isfinite().logical_not_().sum().item()
        if wrong:
            msg = (
                f"{source}: tensor {name} holds {wrong:,} numbers of {tensor.numel():,} that are NaN or infinite; expected "
                "finite ones. The file is damaged or its training failed: download it again."
            )
            raise ValueError(msg)
    return tensor
