"""Preparation: check an object, harmonize genes and labels, split samples."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._check import check
    from ._genes import harmonize_genes
    from ._labels import harmonize_labels
    from ._split import split

__all__ = ["check", "harmonize_genes", "harmonize_labels", "split"]
_FILES = {"check": "_check", "harmonize_genes": "_genes", "harmonize_labels": "_labels", "split": "_split"}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(importlib.import_module(f".{_FILES[name]}", __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
