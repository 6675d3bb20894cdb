"""Matrix products in float32 through the quicker of PyTorch's two libraries, where it computes the same numbers.

On a CPU PyTorch calls MKL, which runs code for older processors on those of AMD. oneDNN, in the same installation, does
not; but PyTorch calls it for float32 only where it is allowed to round to bfloat16. Without matrix units (AMX) oneDNN makes
no use of the permission and computes in float32; with them it rounds. So the permission is given only after a product has
been compared with one in float64, and only while a network is applied.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .._core.log import logger
from .._core.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_ERROR = 1e-5
_SIZE, _REPEATS = 768, 4
_MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]


class _Permission:
    """The permission is one for the process, so that it ends with the last of several threads that asked for it."""

    lock = threading.Lock()
    holders = 0


@contextmanager
def fast_products() -> Iterator[None]:
    """Compute products in float32 through oneDNN inside the block, where that is exact and nobody has chosen otherwise.

    A setting of your own, `torch.backends.mkldnn.matmul.fp32_precision` or `torch.set_float32_matmul_precision`, stays in
    force inside the block as well.
    """
    given = "onednn" in settings.speedups and _acquire()
    try:
        yield
    finally:
        if given:
            _release()


@contextmanager
def plain_products() -> Iterator[None]:
    """Leave the products inside the block to MKL: those of fused attention are too small to gain anything from oneDNN."""
    if not are_fast():
        yield
        return
    with _allowing(reduced=False):
        yield


def are_fast() -> bool:
    """Whether :func:`fast_products` is in force."""
    return _Permission.holders > 0


@cache
def is_exact(threads: int) -> bool:
    """Whether float32 products through oneDNN are float32 products: compared with float64, once for a number of threads."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 256, 256, generator=generator) for _ in range(2))
    with _allowing(reduced=True):
        found = product(a, b), product(a.flatten(0, 1), b[0])
    right = a.double() @ b.double(), a.flatten(0, 1).double() @ b[0].double()
    error = max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, right))
    exact = error < LARGEST_ERROR
    told = "products through oneDNN on %d threads differ from float64 by %.1e: %s"
    logger.debug(told, threads, error, "used" if exact else "not used")
    return exact


@cache
def advantage(dtype: torch.dtype, threads: int) -> float:
    """How much faster a product runs in `dtype` through oneDNN than in float32 through MKL; measured once."""
    clock = time.thread_time if threads == 1 else time.perf_counter  # the first does not count what other programs take
    plain: list[float] = []
    fast: list[float] = []
    pair = torch.rand(2, _SIZE, _SIZE)
    for _ in range(_REPEATS):
        for taken, kind in ((plain, torch.float32), (fast, dtype)):
            a, b = pair.to(kind)
            with _allowing(reduced=taken is fast):
                start = clock()
                product(a, b)
                taken.append(clock() - start)
    return min(plain) / min(fast)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product that is probed."""
    return F.linear(a, b.mT.contiguous()) if a.ndim == 2 else a @ b


def _acquire() -> bool:
    with _Permission.lock:
        if not _Permission.holders and (not _available() or not is_exact(torch.get_num_threads())):
            return False
        if not _Permission.holders:
            _allow(reduced=True)
        _Permission.holders += 1
        return True


def _release() -> None:
    with _Permission.lock:
        _Permission.holders -= 1
        if not _Permission.holders:
            _allow(reduced=False)


def _available() -> bool:
    """Whether there is oneDNN, and nobody has chosen a precision."""
    return torch.backends.mkldnn.is_available() and _MATMUL.fp32_precision == "none"


@contextmanager
def _allowing(*, reduced: bool) -> Iterator[None]:
    """Give or withdraw the permission for a moment."""
    before = _MATMUL.fp32_precision
    _allow(reduced=reduced)
    try:
        yield
    finally:
        _MATMUL.fp32_precision = before


def _allow(*, reduced: bool) -> None:
    _MATMUL.fp32_precision = "bf16" if reduced else "none"
