"""Progress bars that respect the settings and stay silent where no terminal reads them."""

from __future__ import annotations

from typing import Any

from .settings import settings


def progress_bar(*, total: int | None = None, desc: str = "", unit: str = "cells") -> Any:
    """A tqdm bar to be advanced by hand: ``with progress_bar(total=n) as bar: bar.update(k)``."""
    from tqdm.auto import tqdm

    # `None` lets tqdm switch itself off where no terminal reads it.
    return tqdm(total=total, desc=desc, unit=unit, disable=None if settings.progress else True, leave=False)
