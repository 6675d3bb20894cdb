"""Compile kernels, and keep the compiled code between runs where there is a place for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with a cache on disk; without one in a read-only installation that has no home folder.

    Kernels release the lock of the interpreter, so that several threads can work on different cells.
    """
    import numba

    options = {"nogil": True, **options}

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except (RuntimeError, OSError):  # neither beside the code nor for the user: it is compiled in every run
            return numba.njit(**options)(function)

    return compiled
