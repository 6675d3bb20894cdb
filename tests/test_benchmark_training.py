"""The benchmark of training runs on small networks and fails where adapters would not save memory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "training.py"


@pytest.fixture
def benchmark(monkeypatch):
    if not SCRIPT.is_file():
        pytest.skip("the benchmarks are not part of this installation")
    spec = importlib.util.spec_from_file_location("benchmark_training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_training", module)
    spec.loader.exec_module(module)
    return module


def test_modes_are_measured_and_counted(benchmark):
    rows = [benchmark.measure("tgpt", mode, steps=1, tiny=True) for mode in benchmark.MODES]
    frozen, lora, full = rows
    dim = benchmark.NARROW["dim"]
    ffn, layers = benchmark.NARROW["ffn_dim"], benchmark.NARROW["layers"]
    assert frozen["trainable"] == dim + 1
    assert lora["trainable"] == layers * (4 * 2 * dim + 2 * (dim + ffn)) + dim + 1  # rank 1
    assert full["trainable"] == full["parameters"] + dim + 1
    # A gradient and two moments of AdamW in float32 for each trained number, and one step counter per tensor.
    for row in rows:
        assert 12 * row["trainable"] <= row["state_bytes"] <= 12 * row["trainable"] + 4 * 100
    text = benchmark.page(rows, "python benchmarks/training.py", tiny=True)
    assert f"| tgpt | 64 | 8 | full | {full['trainable']:,} |" in text


def test_adapters_that_save_too_little_fail_the_run(benchmark):
    rows = [{"model": "x", "mode": mode, "state_bytes": size} for mode, size in (("lora", 60), ("full", 100))]
    with pytest.raises(AssertionError, match="more than half"):
        benchmark.check(rows)
