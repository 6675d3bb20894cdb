"""Threads share the cells of a kernel: the same bits as with one thread, whatever the cells look like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from sc_drugresp._core.threads import allowed_threads
from sc_drugresp._data import over_cells
from sc_drugresp._data.bin_kernels import keep_smallest, quantile_bins
from sc_drugresp._data.kernels import cell_streams, entry_uniforms, restrict_rows
from sc_drugresp._data.product_kernels import weighted_rows
from sc_drugresp._data.rank_kernels import rank_by_value, top_counts
from sc_drugresp._data.sentence_kernels import assemble_sentences, draw_genes, shuffle_chromosomes

N_GENES = 40


def cells(seed: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CSR rows; many cells are empty, or one holds nearly everything, or nobody holds anything."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, N_GENES + 1, 50) * (rng.random(50) < 0.7)
    if kind == "one large":
        lengths[:] = rng.random(50) < 0.2
        lengths[rng.integers(50)] = N_GENES
    if kind == "empty":
        lengths[:] = 0
    if kind == "no cells":
        lengths = lengths[:0]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    parts = [np.sort(rng.permutation(N_GENES)[:n]) for n in lengths]
    ids = np.concatenate([*parts, np.zeros(0, int)]).astype(np.int32)
    return indptr, ids, rng.integers(1, 9, len(ids)).astype(np.float32)


def results(seed: int, kind: str) -> list[np.ndarray]:
    """What every kernel computes."""
    indptr, ids, counts = cells(seed, kind)
    rng = np.random.default_rng(seed)
    n, uniforms = len(indptr) - 1, rng.random(len(ids))
    totals = np.add.reduceat(np.append(counts, 0), indptr[:-1]).astype(np.float64) + 1
    place = rng.integers(-1, 20, N_GENES).astype(np.int32)
    streams = cell_streams(indptr, ids, counts, 3)
    drawn = draw_genes(indptr, ids, counts, streams, 30)
    chromosome, where = rng.integers(0, 5, N_GENES).astype(np.int64), rng.permutation(N_GENES).astype(np.int64)
    order = shuffle_chromosomes(drawn, 0, chromosome, streams)
    pieces = (np.array([0, 0, 1, 3]), np.array([4, 5, 6], dtype=np.int32))
    table = rng.random((N_GENES, 8)).astype(np.float32)
    assert n == len(streams) == len(drawn) == len(order)
    return [
        streams,
        drawn,
        order,
        *restrict_rows(indptr, ids, counts, place, 20),
        entry_uniforms(indptr, ids, streams, 2),
        quantile_bins(indptr, counts, uniforms, 7),
        keep_smallest(indptr, uniforms, 11),
        *rank_by_value(indptr, ids, counts, totals, rng.random(N_GENES), 9, True),
        *top_counts(indptr, ids, counts, *pieces, N_GENES - 3, 1, 2, 12),
        *assemble_sentences(drawn, order, 0, chromosome, where, (100, 101, 102), 60),
        weighted_rows(indptr, ids, counts, table, threads=allowed_threads()),
    ]


@pytest.fixture
def parts(monkeypatch):
    """Parts as small as an entry, and how many parts were run together."""
    found: list[int] = []
    run = over_cells.in_threads

    def noted(task, items, threads):
        found.append(len(items))
        return run(task, items, threads)

    monkeypatch.setattr(over_cells, "FEWEST_ENTRIES", 1)
    monkeypatch.setattr(over_cells, "in_threads", noted)
    return found


@pytest.mark.parametrize("kind", ["mixed", "one large", "empty", "no cells"])
@pytest.mark.parametrize("seed", range(4))
def test_threads_do_not_change_a_bit(monkeypatch, parts, kind, seed):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = results(seed, kind)
    assert not parts, "one thread calls the kernels as they are"
    for threads in (2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        shared = results(seed, kind)
        for x, y in zip(alone, shared, strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            assert x.tobytes() == y.tobytes()
    assert bool(parts) == (kind != "no cells")


def test_small_blocks_are_left_to_one_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(over_cells, "in_threads", lambda *_: pytest.fail("threads for a handful of numbers"))
    results(0, "mixed")


def test_nothing_of_the_process_is_changed(monkeypatch, parts):
    before = numba.config.NUMBA_NUM_THREADS, numba.get_num_threads(), torch.get_num_threads(), dict(os.environ)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    results(0, "mixed")
    monkeypatch.undo()
    assert before == (
        numba.config.NUMBA_NUM_THREADS,
        numba.get_num_threads(),
        torch.get_num_threads(),
        dict(os.environ),
    )


def test_limits_of_the_user(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert allowed_threads() == 6
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert allowed_threads() == 2
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1,4")
    assert allowed_threads() == 1


def test_a_forked_process_and_two_callers_at_once():
    """Thread pools of OpenMP end a process that was forked after they were used; numba's own ends one that two threads enter."""
    code = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from sc_drugresp._data import over_cells
from test_over_cells import results
torch.set_num_threads(2)
over_cells.FEWEST_ENTRIES = 1
with ThreadPoolExecutor(2) as pool:
    first, second = pool.map(lambda _: results(1, "mixed"), range(2))
assert all(np.array_equal(x, y) for x, y in zip(first, second))
child = os.fork() if hasattr(os, "fork") else None
if child == 0:
    os._exit(0 if all(np.array_equal(x, y) for x, y in zip(first, results(1, "mixed"))) else 3)
assert child is None or os.waitpid(child, 0)[1] == 0
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0, run.stderr
