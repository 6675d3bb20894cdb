"""Predict from single-cell RNA-seq which tumor cells a drug will hit and which will survive it.

``import sc_drugresp as sdr`` is light: every submodule is loaded on first use.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ._core.settings import settings

if TYPE_CHECKING:
    from . import datasets, get, models, pl, pp, tl
    from ._report import report

__version__ = version("sc-drugresp")
__all__ = ["datasets", "get", "models", "pl", "pp", "report", "settings", "tl"]

_SUBMODULES = frozenset({"datasets", "get", "models", "pl", "pp", "tl"})


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name == "report":
        return importlib.import_module("._report", __name__).report
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
