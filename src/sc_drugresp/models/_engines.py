"""What computes a network, and in which precision."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .._core.device import chosen_device
from .._core.imports import require
from ._load import model_class
from ._registry import available, find

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from .._core.kinds import Engine, Precision


def check_engine(cls: Any, name: str, engine: Engine, precision: Precision) -> None:
    """Refuse an engine or a precision that the model `name` of this class cannot be computed with.

    Raises
    ------
    ValueError
        The model cannot be converted, or is no network.
    ImportError
        The engine is not installed.
    """
    engines = getattr(cls, "engines", ())
    if precision != "float32" and not engines:
        msg = f"precision={precision!r} is for pretrained networks; {name!r} is none. Leave it out."
        raise ValueError(msg)
    if engine == "torch":
        return
    if engine not in engines:
        able = [
            other for other in available("encoder") if engine in getattr(model_class(find(other)[0]), "engines", ())
        ]
        msg = f"{name!r} cannot be converted for engine={engine!r}; these can: {able}. Leave `engine` out for {name!r}."
        raise ValueError(msg)
    if (device := chosen_device()) not in ("auto", "cpu"):
        msg = f"engine={engine!r} computes on the CPU, but the device in the settings is {device!r}. Set it to 'cpu', or leave `engine` out."
        raise ValueError(msg)
    if find_spec("openvino") is None:
        require("openvino", extra="fast")


def device_of(engine: Engine) -> torch.device:
    """Where an engine computes."""
    import torch

    from .._core.device import resolve_device

    return torch.device("cpu") if engine == "openvino" else resolve_device()


@contextmanager
def running(encoder: Any, engine: Engine, precision: Precision) -> Iterator[None]:
    """Compute `encoder` by `engine` in `precision` inside the block; of what is no network, `'torch'` and float32 say nothing."""
    if engine == "openvino":
        from ._openvino import ConvertedLayers

        encoder.converted = ConvertedLayers(encoder, precision)
        try:
            yield
        finally:
            encoder.converted = None
    elif precision == "bfloat16":
        with _half_products(encoder):
            yield
    else:
        yield


@contextmanager
def _half_products(encoder: Any) -> Iterator[None]:
    """Products in bfloat16, sums and norms in float32; the weights of the layers are converted once."""
    import torch

    linears: list[Any] = [module for module in encoder.body.modules() if isinstance(module, torch.nn.Linear)]
    tensors = [tensor for linear in linears for tensor in (linear.weight, linear.bias) if tensor is not None]
    before = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.bfloat16()
        with torch.autocast(encoder.device.type, torch.bfloat16):
            yield
    finally:
        for tensor, data in zip(tensors, before):
            tensor.data = data
