"""Progress bars for long work: silent below two minutes, and where no terminal or notebook reads them."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

from .settings import settings

SHORT = 120.0
"""Seconds of work that pass without a bar."""
FIRST_LOOK = 3.0
"""Seconds before the rest is estimated: the first batches warm up."""


def visible() -> bool:
    """Whether somebody would see a bar: the settings allow it, and a terminal or a notebook reads it."""
    return settings.progress and (sys.stderr.isatty() or "ipykernel" in sys.modules)


class _LateBar:
    """A bar that appears once what was done so far says that all of it takes longer than two minutes.

    Until then there is no tqdm bar at all: tqdm's lock is shared with forked processes, which stop when one is killed.
    """

    def __init__(self, total: int | None, desc: str, unit: str, initial: int) -> None:
        self.total, self.desc, self.unit, self.initial = total, desc, unit, initial
        self.done: float = 0
        self.started, self.bar = time.monotonic(), None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, n: float = 1) -> None:
        """Go on by `n`."""
        self.done += n
        if self.bar is not None:
            self.bar.update(n)
        elif visible() and self._long():
            self.bar = self._shown()

    def _long(self) -> bool:
        """Whether the work takes more than two minutes, at the pace so far; without a total, whether it already did."""
        passed = time.monotonic() - self.started
        if self.total is None or passed >= SHORT:
            return passed >= SHORT
        left = self.total - self.initial
        return passed >= FIRST_LOOK and 0 < self.done < left and passed * left / self.done > SHORT

    def _shown(self) -> Any:
        from tqdm.auto import tqdm

        scale = self.unit == "B"
        bar = tqdm(
            total=self.total,
            desc=self.desc,
            unit=self.unit,
            unit_scale=scale,
            leave=False,
            file=sys.stderr,
            initial=self.initial,
        )
        bar.start_t -= time.monotonic() - self.started  # the rate is that of the whole run
        bar.update(self.done)
        bar.refresh()
        return bar


def progress_bar(*, total: int | None = None, desc: str = "", unit: str = " cells", initial: int = 0) -> _LateBar:
    """A bar to be advanced by hand: ``with progress_bar(total=n) as bar: bar.update(k)``; it shows pace and time left.

    `initial` of the total were done before.
    """
    return _LateBar(total, desc, unit, initial)
