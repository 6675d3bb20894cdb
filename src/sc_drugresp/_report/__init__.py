"""`report`: one self-contained HTML page for what was done to a data set."""

from __future__ import annotations

from ._write import report

__all__ = ["report"]
