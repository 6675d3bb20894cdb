"""What libraries change in the process when they are imported, taken back when a call of ours is over."""

from __future__ import annotations

import functools
import os
import random
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

F = TypeVar("F", bound="Callable[..., Any]")

KEPT = frozenset({"KMP_DUPLICATE_LIB_OK"} if sys.platform == "darwin" else ())
"""Without it macOS ends a process that loads the OpenMP of scikit-learn and, later, that of torch."""


@contextmanager
def left_alone() -> Iterator[None]:
    """Undo what imports inside the block do to `os.environ` and to Python's global generator.

    scikit-learn sets `KMP_DUPLICATE_LIB_OK` and `KMP_INIT_AT_FORK`, torch `TORCHINDUCTOR_CACHE_DIR`, Lightning
    `PYTORCH_NVML_BASED_CUDA_CHECK`, scvi-tools `XLA_PYTHON_CLIENT_PREALLOCATE`; rich, which scikit-learn and Lightning load,
    draws a number from `random`. Where nothing was imported, nothing is taken back: what other threads did meanwhile stays.
    """
    loaded, environment, state = len(sys.modules), dict(os.environ), random.getstate()
    try:
        yield
    finally:
        if len(sys.modules) != loaded:
            for name in (set(os.environ) | set(environment)) - KEPT:
                if name not in environment:
                    del os.environ[name]
                elif os.environ.get(name) != environment[name]:
                    os.environ[name] = environment[name]
            random.setstate(state)


def leaves_alone(function: F) -> F:
    """Decorate a function so that what it imports leaves the process as it was, see :func:`left_alone`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with left_alone():
            return function(*args, **kwargs)

    return cast("F", wrapped)
