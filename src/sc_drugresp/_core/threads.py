"""How many threads may be used, and a limit on them for small fits."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")


def allowed_threads() -> int:
    """Threads that the user allows: those of torch where it is loaded, else what it would take, at most `NUMBA_NUM_THREADS`."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        allowed = int(torch.get_num_threads())
    else:
        allowed = _number("OMP_NUM_THREADS") or _cores()
    return max(1, min(allowed, _number("NUMBA_NUM_THREADS") or allowed))


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "").split(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(task: Callable[[Item], Any], items: Sequence[Item], threads: int) -> list[Any]:
    """Results of a task that releases the lock of the interpreter, in the order of the items."""
    if threads < 2 or len(items) < 2:
        return [task(item) for item in items]
    with ThreadPoolExecutor(threads, "sc_drugresp") as pool:  # of this call alone: a process may be forked afterwards
        return list(pool.map(task, items))


@contextmanager
def threads_kept() -> Iterator[None]:
    """Give torch back its number of threads: kernels of numba (neighbors, UMAP) set that of the OpenMP that both load."""
    torch: Any = sys.modules.get("torch")
    before = torch.get_num_threads() if hasattr(torch, "get_num_threads") else None
    try:
        yield
    finally:
        if before is not None and torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS and OpenMP on one thread; as a context, or as a decorator `@one_thread()`.

    Heads are fitted to a few hundred rows many times over: threads that wait for each other then take most of the time
    (20 times as long on two cores). Entering looks through the loaded libraries, which takes some milliseconds: enter once
    around many fits. The libraries that come with torch keep their threads, so that encoders are not slowed down.
    """
    import sklearn  # noqa: F401  only libraries that are loaded already can be set
    from threadpoolctl import ThreadpoolController

    controller = ThreadpoolController()
    paths = [library.filepath for library in controller.lib_controllers]
    others = [path for path in paths if "torch" not in PurePath(path).parts]
    with controller.select(filepath=others).limit(limits=1):
        yield
