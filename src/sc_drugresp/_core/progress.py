"""Progress bars that respect the settings and stay silent where no terminal reads them."""

from __future__ import annotations

import sys
from typing import Any

from .settings import settings


def visible() -> bool:
    """Whether somebody would see a bar: the settings allow it, and a terminal or a notebook reads it."""
    return settings.progress and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def progress_bar(*, total: int | None = None, desc: str = "", unit: str = "cells") -> Any:
    """A tqdm bar to be advanced by hand: ``with progress_bar(total=n) as bar: bar.update(k)``."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=desc, unit=unit, disable=not visible(), leave=False)
