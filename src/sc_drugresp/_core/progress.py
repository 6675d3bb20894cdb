"""Progress bars that respect the settings and stay silent where no terminal reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


def progress(items: Iterable[T], *, total: int | None = None, desc: str = "", unit: str = "cells") -> Iterator[T]:
    """Wrap `items` in a progress bar, unless `settings.progress` or a missing terminal says no."""
    bar = progress_bar(total=total, desc=desc, unit=unit)
    try:
        for item in items:
            yield item
            bar.update(1)
    finally:
        bar.close()


def progress_bar(*, total: int | None = None, desc: str = "", unit: str = "cells") -> Any:
    """A tqdm bar to be advanced by hand: ``bar.update(n)``, ``bar.close()``."""
    from tqdm.auto import tqdm

    # `None` lets tqdm switch itself off where no terminal reads it.
    return tqdm(total=total, desc=desc, unit=unit, disable=None if settings.progress else True, leave=False)
