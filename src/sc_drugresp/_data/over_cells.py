"""Kernels over cells, shared among threads: every thread runs the same code on cells of its own."""

from __future__ import annotations

import functools
import inspect
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.threads import allowed_threads, in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FEWEST_ENTRIES = 1 << 18
"""A part with fewer entries of the matrix is not worth a thread."""
_PARTS_PER_THREAD = 4  # whoever is done early takes another one


def over_cells(
    *, indptr: str | None = None, entries: Sequence[str] = (), cells: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a compiled kernel that treats every cell on its own, so that threads share the cells.

    With one thread the kernel is called as it is. With more, each call gets the arrays of some consecutive cells, and the
    results are put together: the numbers are the same to the last bit. This is no `numba.prange`, which would compile every
    kernel twice, and whose thread pools either end the process when two threads enter them or do not survive a fork.

    Parameters
    ----------
    indptr
        Argument that holds the starts of the cells in CSR layout; `None` for kernels of arrays with one row per cell.
    entries
        Arguments with a number per entry of the matrix.
    cells
        Arguments with a row per cell.

    Returns
    -------
    A decorator. The kernel must return an array with a row per cell or a number per entry, or a tuple that starts with the
    `indptr` of its result.
    """

    def decorate(kernel: Callable[..., Any]) -> Callable[..., Any]:
        names = list(inspect.signature(kernel).parameters)

        @functools.wraps(kernel)
        def shared(*args: Any) -> Any:
            given = dict(zip(names, args, strict=True))
            starts = np.asarray(given[indptr]) if indptr is not None else _row_starts(given[cells[0]])
            threads = allowed_threads()
            bounds = _bounds(starts, threads)
            if len(bounds) < 3:
                return kernel(*args)

            def run(part: tuple[int, int]) -> Any:
                first, last = part
                own = dict(given)
                if indptr is not None:
                    own[indptr] = given[indptr][first : last + 1] - starts[first]
                own |= {name: given[name][starts[first] : starts[last]] for name in entries}
                own |= {name: given[name][first:last] for name in cells}
                return kernel(*own.values())

            return _joined(in_threads(run, list(pairwise(bounds)), threads))

        return shared

    return decorate


def _row_starts(table: np.ndarray) -> np.ndarray:
    """Starts of the rows of a table, in numbers."""
    return np.arange(len(table) + 1) * (table.size // max(len(table), 1))


def _bounds(starts: np.ndarray, threads: int) -> list[int]:
    """Cells between which the work is cut, so that the parts have about as many entries."""
    total = int(starts[-1] - starts[0])
    parts = min(threads * _PARTS_PER_THREAD, total // FEWEST_ENTRIES) if threads > 1 else 1
    if parts < 2:
        return [0, len(starts) - 1]
    cuts = np.searchsorted(starts, starts[0] + total * np.arange(1, parts) // parts)
    return np.unique([0, *cuts, len(starts) - 1]).tolist()


def _joined(results: list[Any]) -> Any:
    """The result for all cells from those of the parts."""
    if not isinstance(results[0], tuple):
        return np.concatenate(results)
    ends = np.cumsum([0, *(part[0][-1] for part in results)])
    indptr = [results[0][0][:1], *(part[0][1:] + end for part, end in zip(results, ends))]
    return np.concatenate(indptr), *(np.concatenate(arrays) for arrays in list(zip(*results))[1:])
