"""`tl.embed(lazy=True)` on worker processes, one of which is killed; and the recipes of the page about clusters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from threading import Thread
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest
import torch
from helpers import cell_lines, golden
from test_docs_examples import ROOT, blocks

import sc_drugresp as sdr

PAGE = "docs/how_to/cluster.md"
BLOCK_CELLS = 64

pytestmark = [
    pytest.mark.skipif(not (ROOT / PAGE).is_file(), reason="the documentation is not part of this installation"),
    pytest.mark.filterwarnings("ignore:Only .* of the counts lie in genes:UserWarning"),
]


def recipe(word: str) -> str:
    """The block of the page that holds a word."""
    (found,) = [block.code for block in blocks(PAGE) if word in block.code]
    return found


@pytest.fixture
def files(tmp_path):
    """Cells in files of both kinds, and their embedding computed in memory."""
    adata = cell_lines(400)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with sdr.settings.override(block_cells=BLOCK_CELLS):
        values = sdr.tl.embed(adata, "geneformer", checkpoint=golden("geneformer").weights, copy=True)
        yield tmp_path / "cells.h5ad", values.obsm["X_geneformer"]


@pytest.fixture
def client():
    from distributed import Client, LocalCluster

    threads = torch.get_num_threads()
    with (
        LocalCluster(n_workers=2, threads_per_worker=threads, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        yield client


def opened(path):
    adata = ad.experimental.read_lazy(path)
    sdr.tl.embed(adata, "geneformer", checkpoint=golden("geneformer").weights, lazy=True)
    return adata


def done(folder) -> Counter:
    """How often each block was finished, by any worker."""
    return Counter(line for file in folder.glob("*.log") for line in file.read_text().split())


def watch(client, folder) -> None:
    """Let each worker write down the blocks that it finishes, so that the notes outlive it."""
    from distributed import WorkerPlugin

    class Notes(WorkerPlugin):
        name = "notes"

        def transition(self, key, start, finish, **_):
            if start == "executing" and finish == "memory" and str(key).startswith("('embed-"):
                with (folder / f"{os.getpid()}.log").open("a") as file:
                    print(key[1], file=file)

    client.register_plugin(Notes())


def kill_one(client, folder, after: int) -> None:
    """Kill a worker once some blocks are finished."""
    pids = list(client.run(os.getpid).values())
    while sum(done(folder).values()) < after:
        time.sleep(0.01)
    os.kill(pids[0], signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_changes_no_bit(files, client, tmp_path):
    path, expected = files
    watch(client, tmp_path)
    array = opened(path).obsm["X_geneformer"]
    future = client.compute(array)
    kill_one(client, tmp_path, after=5)
    assert not future.done()
    np.testing.assert_array_equal(future.result(timeout=300), expected)
    assert set(done(tmp_path)) == {str(i) for i in range(array.numblocks[0])}


@pytest.mark.slow
def test_a_killed_worker_costs_its_block_where_finished_ones_are_taken_away(files, client, tmp_path):
    path, expected = files
    watch(client, tmp_path)
    adata = opened(path)

    def compute(parts):
        futures = client.compute(parts)
        killer.start()
        return futures

    killer = Thread(target=kill_one, args=(client, tmp_path, 5))
    names = {"adata": adata, "client": SimpleNamespace(compute=compute)}
    exec(compile(recipe("as_completed("), PAGE, "exec"), names)  # noqa: S102 (our own page)
    killer.join()
    np.testing.assert_array_equal(names["values"], expected)
    n_blocks = adata.obsm["X_geneformer"].numblocks[0]
    finished = done(tmp_path)
    assert len(finished) == n_blocks > 25
    # Those that had just been finished when the kill came had not left the worker yet.
    assert sum(finished.values()) < 1.25 * n_blocks


def test_slurm_recipe_makes_a_job_script(tmp_path):
    """In a process and a home of its own: the package writes a configuration file when it is imported."""
    script, rest = recipe("SLURMCluster(").split("cluster.adapt(")
    code = f"{script}\ncluster.close()"
    environment = {**os.environ, "HOME": str(tmp_path), "DASK_CONFIG": str(tmp_path)}
    run = [sys.executable, "-W", "ignore", "-c", code]
    found = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    for line in ("#SBATCH -p gpu", "#SBATCH --cpus-per-task=4", "#SBATCH --gres=gpu:1", "#SBATCH -t 04:00:00"):
        assert line in lines
    assert "export SC_DRUGRESP_CACHE=/shared/sc_drugresp" in lines
    assert "--nthreads 4 " in found.stdout
    assert "maximum_jobs=16" in rest


def test_ray_recipe_embeds_a_batch():
    adata = cell_lines(2)
    names = {"sdr": sdr}
    exec(compile(recipe("class Embed"), PAGE, "exec"), names)  # noqa: S102 (our own page)
    options = {"checkpoint": golden("geneformer").weights}
    actor = names["Embed"](adata.var_names, "geneformer", **options)
    batch = {"row": np.arange(4), "counts": adata.X[:4].toarray()}
    found = actor(batch)
    plain = ad.AnnData(adata.X[:4], var=adata.var[[]])
    np.testing.assert_array_equal(found["embedding"], sdr.models.load("geneformer", **options).embed(plain))
    np.testing.assert_array_equal(found["row"], batch["row"])
