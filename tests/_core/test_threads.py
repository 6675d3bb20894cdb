"""Small fits run on one thread, torch does not."""

from __future__ import annotations

import sklearn  # noqa: F401  its libraries are loaded before they are counted
import threadpoolctl
import torch

from sc_drugresp._core.threads import one_thread


def threads() -> dict[str, int]:
    return {library["filepath"]: library["num_threads"] for library in threadpoolctl.threadpool_info()}


def test_blas_and_openmp_are_on_one_thread_and_torch_is_not() -> None:
    with threadpoolctl.threadpool_limits(2):
        before, torch_before = threads(), torch.get_num_threads()
        with one_thread():
            inside = threads()
            assert torch.get_num_threads() == torch_before
        assert threads() == before
    ours = {path: n for path, n in inside.items() if "/torch/" not in path}
    assert any("blas" in path for path in ours)
    assert set(ours.values()) == {1}


def test_it_decorates() -> None:
    @one_thread()
    def blas_threads() -> set[int]:
        return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}

    assert blas_threads() == blas_threads() == {1}
