"""Tuning in two processes gives what one process gives: same cells, losses and parameters, and one decision when to stop."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import cell_lines, load
from together import CASES, tune, verb

import sc_drugresp as sdr
from sc_drugresp._response.tune.adapters import inject, lora_config
from sc_drugresp._response.tune.finetune import unfreeze
from sc_drugresp._response.tune.processes import own_device, started

TESTS = Path(__file__).parents[2]
SCRIPT = TESTS / "together.py"
SAME = ["lora", "full", "sets", "all"]
LAUNCHERS = ("TORCHELASTIC", "SLURM_", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_")

Results = list[dict[str, Any]]


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHERS)}
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | more


def read(folder: Path, n: int) -> Results:
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(n)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, Any]:
    """What one process gives."""
    with sdr.settings.override(progress=False, device="cpu"):
        return {case: tune(tmp_path_factory.mktemp("alone"), **CASES[case]) for case in SAME}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def pair(folder) -> Results:
    """What each of two processes gives that torchrun started."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    cases = [*SAME, "stops", "resumed", "differ", "too small", "odd sets", "odd number", "verb"]
    subprocess.run([*torchrun, SCRIPT, folder, *cases], check=True, env=environment(), timeout=300)
    return read(folder, 2)


def assert_same_model(one: dict[str, Any], two: dict[str, Any]) -> None:
    """To the bit."""
    assert one["history"] == two["history"]
    assert one["weights"].keys() == two["weights"].keys()
    for key, value in one["weights"].items():
        np.testing.assert_array_equal(value, two["weights"][key])


def assert_close_model(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Up to the order of sums."""
    for row, other in zip(one["history"], two["history"], strict=True):
        assert other == pytest.approx(row, rel=1e-5, nan_ok=True)
    for key, value in one["weights"].items():
        np.testing.assert_allclose(two["weights"][key], value, rtol=1e-4, atol=2e-6, err_msg=key)
    np.testing.assert_allclose(two["logits"], one["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", SAME)
def test_two_processes_learn_what_one_does(alone, pair, case):
    one, (first, second) = alone[case], (results[case] for results in pair)
    assert_same_model(first, second)
    assert_close_model(one, first)
    for epoch, (whole, *shared) in enumerate(zip(one["seen"], first["seen"], second["seen"], strict=True)):
        cells = [sorted(cell for batch, share in part if share for cell in batch) for part in (whole, *shared)]
        assert sorted(cells[1] + cells[2]) == cells[0], epoch  # none is dropped, none counts twice
        assert cells[1], epoch
        assert cells[2], epoch
        assert len(shared[0]) == len(shared[1])


@pytest.mark.slow
def test_processes_stop_together(pair):
    first, second = (results["stops"] for results in pair)
    assert_same_model(first, second)
    assert 1 < len(first["history"]) < 9
    losses = [row["held_out_loss"] for row in first["history"]]
    assert losses[-1] >= min(losses)


@pytest.mark.slow
def test_run_of_two_processes_is_resumed_and_one_of_them_writes(pair, folder):
    for results in pair:
        assert_same_model(results["resumed"], results["lora"])
    assert [file.name for file in (folder / "run").iterdir()] == ["last.ckpt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("differ", "The processes that train together differ"),
        ("too small", "2 processes cannot share batches of batch_size=1 cells"),
        ("odd sets", "2 processes cannot share steps of accumulate=1 sets"),
        ("odd number", "torchrun started 2 processes, 2 on each of 1 nodes"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_all(pair, case, words):
    for results in pair:
        assert words in results[case]["error"]


@pytest.mark.slow
def test_public_function_returns_the_same_model_to_all(pair):
    first, second = (results["verb"] for results in pair)
    assert_same_model(first, second)
    with pytest.raises(ValueError, match="was started alone"):
        verb()


@pytest.mark.slow
def test_processes_of_slurm_find_each_other(alone, tmp_path):
    common = {"NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1", "NODEID": "0", "NODELIST": "localhost"}
    common |= {"JOB_ID": str(os.getpid()), "JOB_NAME": "tune"}
    running = []
    for rank in "01":
        variables = {f"SLURM_{key}": value for key, value in {**common, "PROCID": rank, "LOCALID": rank}.items()}
        env = environment(MASTER_ADDR="127.0.0.1", **variables)
        running.append(subprocess.Popen([sys.executable, SCRIPT, tmp_path, "lora"], env=env))
    try:
        assert [process.wait(timeout=200) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    first, second = read(tmp_path, 2)
    assert_same_model(first["lora"], second["lora"])
    assert_close_model(alone["lora"], first["lora"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("name", ["celllm", "cellplm", "geneformer", "scbert", "scfoundation", "scgpt", "tgpt", "uce"])
def test_every_trained_parameter_takes_part_in_a_step(name, mode):
    """Otherwise averaging would wait for a gradient that never comes."""
    encoder = load(name)
    if mode == "full":
        unfreeze(encoder)
    else:
        inject(encoder, lora_config(encoder, rank=2, alpha=4, dropout=0.0))
    tokens = encoder.tokenize(cell_lines()).take(np.arange(2))
    encoder.train()(encoder.collate(tokens)).sum().backward()
    assert [key for key, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"devices": 0}, "`devices` must be"),
        ({"devices": "all"}, "`devices` must be"),
        ({"num_nodes": 0}, "`num_nodes` must be a whole number of at least 1"),
        ({"strategy": "dp"}, "`strategy` must be one of"),
        ({"strategy": "ddp_spawn"}, "starts its processes from yours"),
        ({"strategy": "ddp_notebook"}, "starts its processes from yours"),
        ({"strategy": "fsdp"}, "divides the parameters"),
        ({"strategy": "deepspeed_stage_2"}, "divides the parameters"),
        ({"strategy": "ddp_find_unused_parameters_true"}, "parameters that a step leaves out"),
    ],
)
def test_strategies_that_do_not_fit_are_refused_by_name(settings, words):
    with pytest.raises((TypeError, ValueError), match=words):
        sdr.tl.FineTuning(**settings)


def launched(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for key in list(os.environ):
        if key.startswith(LAUNCHERS):
            monkeypatch.delenv(key)
    for key, value in variables.items():
        monkeypatch.setenv(key, value)


TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}


def test_processes_are_those_that_were_started(monkeypatch):
    launched(monkeypatch)
    for alone in ({}, {"devices": "auto"}):
        assert started(sdr.tl.FineTuning(**alone)) is None
    for several in ({"devices": 2}, {"num_nodes": 2}, {"strategy": "ddp"}):
        with pytest.raises(ValueError, match="was started alone"):
            started(sdr.tl.FineTuning(**several))
    launched(monkeypatch, **TORCHRUN)
    assert started(sdr.tl.FineTuning()) is None  # by default each process trains by itself
    for devices in (4, "auto"):
        found = started(sdr.tl.FineTuning(devices=devices, num_nodes=2))
        assert (found.per_node, found.nodes, found.total) == (4, 2, 8)
        assert (found.environment.global_rank(), found.environment.local_rank()) == (5, 1)
    for wrong in ({"devices": 8}, {"devices": "auto"}, {"devices": 2, "num_nodes": 4}):
        with pytest.raises(ValueError, match="torchrun started 8 processes, 4 on each of 2 nodes"):
            started(sdr.tl.FineTuning(**wrong))


def test_one_device_for_all_processes_is_refused(monkeypatch):
    launched(monkeypatch, **TORCHRUN)
    processes = started(sdr.tl.FineTuning(devices=4, num_nodes=2))
    for device in ("cuda:1", "mps"):
        with (
            sdr.settings.override(device=device),
            pytest.raises(ValueError, match="4 processes on this machine"),
            own_device(processes),
        ):
            pass
    with sdr.settings.override(device="auto"):
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        with pytest.raises(ValueError, match="each sees 1 GPUs"), own_device(processes):
            pass
