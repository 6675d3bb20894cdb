"""Where networks run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .log import logger
from .settings import settings

if TYPE_CHECKING:
    import torch

_WORKING: set[torch.device] = set()
"""Accelerators that have computed something in this process."""


def resolve_device() -> torch.device:
    """The device that `settings.device` names; for `'auto'` CUDA, else Metal, else the CPU. The choice is logged.

    A device that is there but cannot compute is an error, also for `'auto'`: the CPU may take a hundred times as long, which
    nobody should find out hours later.

    Raises
    ------
    RuntimeError
        This machine, or the PyTorch installed on it, does not have the device, or it cannot compute.
    """
    import torch

    available = _available()
    if settings.device == "auto":
        name = next((kind for kind in ("cuda", "mps") if any(kind in text for text in available)), "cpu")
        device = torch.device(name)
        logger.info("networks run on %r, chosen by settings.device='auto' from %s", name, ", ".join(available))
        _probe(device)
        return device
    device = torch.device(settings.device)
    kinds = {name.split(":")[0] for name in available}
    if device.type not in kinds or (device.index is not None and str(device) not in available):
        msg = (
            f"settings.device is {settings.device!r}, which PyTorch {torch.__version__} cannot use here. "
            f"Available devices: {', '.join(map(repr, available))}. Set sc_drugresp.settings.device to one of them or to "
            "'auto'."
        )
        raise RuntimeError(msg)
    logger.info("networks run on %r, as settings.device says", str(device))
    _probe(device)
    return device


def _probe(device: torch.device) -> None:
    """Compute something on an accelerator, once in a process."""
    import torch

    if device.type == "cpu" or device in _WORKING:
        return
    try:
        right = float((torch.ones(4, 4, device=device) @ torch.ones(4, 4, device=device)).sum()) == 64
        reason = "a product is wrong"
    except (RuntimeError, AssertionError, OSError) as error:
        right, reason = False, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    if not right:
        msg = (
            f"{str(device)!r} is there, but cannot compute ({reason}). Set sc_drugresp.settings.device = 'cpu' to go on "
            "without it, or repair its driver."
        )
        raise RuntimeError(msg)
    _WORKING.add(device)


def chosen_device() -> str:
    """What the user chose: `'auto'`, or the name of a device."""
    return settings.device


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
