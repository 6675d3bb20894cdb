"""Preparation: check an object, harmonize genes and labels, split samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.lazy import attach

if TYPE_CHECKING:
    from ._check import check as check
    from ._genes import harmonize_genes as harmonize_genes
    from ._labels import harmonize_labels as harmonize_labels
    from ._split import split as split
    from ._suggest_malignant import suggest_malignant as suggest_malignant

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "check": "._check",
        "harmonize_genes": "._genes",
        "harmonize_labels": "._labels",
        "split": "._split",
        "suggest_malignant": "._suggest_malignant",
    },
)
