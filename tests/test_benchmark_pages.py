"""What benchmarks leave behind, and the comparison with the original software, which a stand-in plays here."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import golden

ROOT = Path(__file__).resolve().parents[1]


def script(monkeypatch, name):
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("the benchmarks are not part of this installation")
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    return importlib.import_module(f"benchmarks.{name}")


def test_a_page_says_machine_and_command_and_keeps_the_numbers(monkeypatch, tmp_path):
    pages = script(monkeypatch, "_page")
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "kernels.py"), "--cells", "5"])
    text = f"# Title\n\n{pages.table(['name', 'value'], [['a', 1], ['b', 2]])}\n"
    for _ in range(2):  # a page that is written again does not grow
        pages.publish(
            tmp_path / "page.md",
            text,
            {"x": np.arange(3)},
            figures={"Curve": lambda axes: axes.plot([1, 2], label="y")},
        )
    page = (tmp_path / "page.md").read_text()
    assert page.count("## Machine and command") == 1
    assert "`python benchmarks/kernels.py --cells 5`" in page
    assert pages.processor() in page
    assert "![Curve](page_1.svg)" in page
    assert (tmp_path / "page_1.svg").read_text().count("<svg") == 1
    record = json.loads((tmp_path / "page.json").read_text())
    assert record["results"] == {"x": [0, 1, 2]}
    assert record["machine"]["versions"]["numpy"] == np.__version__
    assert {"processor", "cores", "load", "system"} <= record["machine"].keys()
    assert pages.tables_in(page)["Title"] == [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]


def test_rates_are_measured_and_the_setting_is_put_back(monkeypatch):
    import torch

    pages = script(monkeypatch, "_page")
    monkeypatch.setattr(pages, "_SIDE", 64)
    before = torch.backends.mkldnn.matmul.fp32_precision, torch.get_num_threads()
    rates = pages.matrix_rates(repeats=2)
    assert min(rates["torch"], rates["onednn"]) > 0
    assert (torch.backends.mkldnn.matmul.fp32_precision, torch.get_num_threads()) == before


STAND_IN = """
import anndata as ad, pandas as pd
from functools import cache
import sc_drugresp as sdr

load = cache(lambda checkpoint: sdr.models.load("tgpt", checkpoint=checkpoint, verify=False))

def embed(model, checkpoint, counts, genes):
    assert counts.format == "csr"
    return load(checkpoint).embed(ad.AnnData(counts, var=pd.DataFrame(index=genes)), genes="exact")
"""


@pytest.mark.slow
def test_the_original_is_timed_in_turns(monkeypatch, tmp_path):
    upstream = script(monkeypatch, "_upstream")
    record = golden("tgpt")
    adata = record.adata
    with pytest.raises(FileNotFoundError, match=r"has no upstream\.py with a function embed"):
        upstream.compare(tmp_path, "tgpt", record.weights, adata)
    (tmp_path / "upstream.py").write_text(STAND_IN)
    found = upstream.compare(tmp_path, "tgpt", record.weights, adata, repeats=3)
    assert [len(times) for times in found["seconds"].values()] == [3, 3]
    assert found["ratio"] == pytest.approx(np.divide(*found["seconds"].values()))
    assert found["agreement"] == pytest.approx(1)
    assert "| tgpt |" in upstream.lines([found])
    (tmp_path / "upstream.py").write_text("def embed(*_):\n    raise RuntimeError('no such thing')\n")
    with pytest.raises(RuntimeError, match=r"(?s)upstream ended: .*no such thing"):
        upstream.compare(tmp_path, "tgpt", record.weights, adata)


def test_the_benchmark_for_gpus_measures_speed_and_rounding(monkeypatch):
    gpu = script(monkeypatch, "gpu")
    sizes = {"dim": 32, "heads": 4, "layers": 2, "ffn_dim": 48, "max_length": 100}
    found = gpu.measure("scgpt", "cpu", n_cells=10, repeats=2, sizes=sizes)
    assert found["float32"]["error"] < 1e-5 < found["bfloat16"]["error"] < 0.1
    assert found["bfloat16"]["low"] <= found["bfloat16"]["cells_per_s"] <= found["bfloat16"]["high"]
    assert "| scgpt | bfloat16 |" in gpu.page([found], "cpu")
