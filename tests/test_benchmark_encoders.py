"""The benchmark of the encoders runs, and counts what it says it counts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "encoders.py"
TINY = {"dim": 16, "heads": 2, "layers": 2, "ffn_dim": 24, "max_length": 100}


@pytest.fixture
def benchmark(monkeypatch):
    if not SCRIPT.is_file():
        pytest.skip("the benchmarks are not part of this installation")
    spec = importlib.util.spec_from_file_location("benchmark_encoders", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_encoders", module)
    spec.loader.exec_module(module)
    return module


def test_cells_express_the_number_of_genes_that_was_asked_for(benchmark):
    adata = benchmark.cells([f"G{i}" for i in range(500)], 20, 30, 60)
    expressed = np.diff(adata.X.indptr)
    assert expressed.min() >= 30
    assert expressed.max() <= 60
    assert (adata.X.data == np.round(adata.X.data)).all()


@pytest.mark.slow
def test_a_tiny_model_is_measured(benchmark, monkeypatch):
    case = benchmark.Case("scgpt", 2.0, 100.0, full_genes=200, sizes=TINY)
    monkeypatch.setitem(benchmark.CASES, "scgpt", case)
    result = benchmark.measure("scgpt", 1, 0.05)
    dim, ffn, tokens = TINY["dim"], TINY["ffn_dim"], TINY["max_length"]
    layer = 2 * tokens * (4 * dim**2 + 2 * dim * ffn) + 4 * tokens * tokens * dim
    counted = result["workloads"]["full"]["gflop"] * 1e9
    assert result["workloads"]["full"]["tokens"] == tokens
    # All but the last layer are complete; the last one is needed for `<cls>` only.
    assert (TINY["layers"] - 1) * layer < counted < TINY["layers"] * layer
    text = benchmark.page([result], 1)
    assert "| scgpt | 100 |" in text
