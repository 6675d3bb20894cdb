"""Data sets: a generator whose truth is known, and public accessions fetched on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.lazy import attach

if TYPE_CHECKING:
    from ._fetch import available as available
    from ._fetch import load as load
    from ._screen import Screen as Screen
    from ._screens import screen as screen
    from ._toy import toy as toy

__getattr__, __dir__, __all__ = attach(
    __name__, {"Screen": "._screen", "available": "._fetch", "load": "._fetch", "screen": "._screens", "toy": "._toy"}
)
