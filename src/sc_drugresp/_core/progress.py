"""Progress bars that respect the settings and stay silent where no terminal reads them."""

from __future__ import annotations

import sys
from typing import Any, Self

from .settings import settings


def visible() -> bool:
    """Whether somebody would see a bar: the settings allow it, and a terminal or a notebook reads it."""
    return settings.progress and (sys.stderr.isatty() or "ipykernel" in sys.modules)


class _Unseen:
    """A bar that nobody sees. tqdm's own would share a lock with forked processes, which stop when one is killed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, n: float = 1) -> None:
        """Go on by `n`."""


def progress_bar(*, total: int | None = None, desc: str = "", unit: str = "cells", initial: int = 0) -> Any:
    """A tqdm bar to be advanced by hand: ``with progress_bar(total=n) as bar: bar.update(k)``; `initial` was done before."""
    if not visible():
        return _Unseen()
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=desc, unit=unit, initial=initial, leave=False)
