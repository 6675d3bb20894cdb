"""A limit on threads for small fits."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
