"""Foundation models and baselines behind one door; the table needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._registry import available, table

if TYPE_CHECKING:
    from .._data.tokens import Tokens
    from ._encoder import CellEncoder
    from ._hub import download, verify
    from ._load import load
    from ._response import ResponseModel

__all__ = ["CellEncoder", "ResponseModel", "Tokens", "available", "download", "load", "table", "verify"]

_LAZY = {
    "CellEncoder": "._encoder",
    "ResponseModel": "._response",
    "Tokens": ".._data.tokens",
    "download": "._hub",
    "load": "._load",
    "verify": "._hub",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
