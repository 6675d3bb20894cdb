"""`report`: one self-contained HTML page for what was done to a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.lazy import attach

if TYPE_CHECKING:
    from ._write import report as report

__getattr__, __dir__, __all__ = attach(__name__, {"report": "._write"})
