"""Where networks run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .log import logger
from .settings import settings

if TYPE_CHECKING:
    import torch


def resolve_device() -> torch.device:
    """The device that `settings.device` names; for `'auto'`, an accelerator if there is one.

    Raises
    ------
    RuntimeError
        This machine, or the PyTorch installed on it, does not have the device.
    """
    import torch

    available = _available()
    if settings.device == "auto":
        name = next((kind for kind in ("cuda", "mps") if any(kind in text for text in available)), "cpu")
        logger.debug("networks run on %r", name)
        return torch.device(name)
    device = torch.device(settings.device)
    kinds = {name.split(":")[0] for name in available}
    if device.type not in kinds or (device.index is not None and str(device) not in available):
        msg = (
            f"settings.device is {settings.device!r}, which PyTorch {torch.__version__} cannot use here. "
            f"Available devices: {', '.join(map(repr, available))}. Set sc_drugresp.settings.device to one of them or to "
            "'auto'."
        )
        raise RuntimeError(msg)
    return device


def _available() -> list[str]:
    """Devices of this machine."""
    import torch

    names = ["cpu"]
    if torch.backends.mps.is_available():
        names.append("mps")
    for kind in (torch.cuda, torch.xpu):
        if kind.is_available():
            names += [f"{kind.__name__.split('.')[-1]}:{i}" for i in range(kind.device_count())]
    return names
