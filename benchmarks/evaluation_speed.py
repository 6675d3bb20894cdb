"""Time evaluations.

`evaluation`: 5 embeddings x 4 data sets, all naive rows, 1,000 bootstrap draws (goal: under 2 minutes).
`refits`: principal components of variable genes, refitted for each of 20 folds of 20,000 cells, from shared sums and by scanpy
from scratch (goal: five times faster; the old way runs two folds).

python benchmarks/evaluation_speed.py            # both
python benchmarks/evaluation_speed.py refits
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

# A neighbor of this file, coverage.py, must not be taken for the package of that name.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp._core.threads import one_thread

DIMS = {"geneformer": 256, "scgpt": 512, "uce": 1280, "tgpt": 1024, "scbert": 200}
N_CELLS, N_FOLDS, OLD_FOLDS, N_COMPS = 20_000, 20, 2, 50


def simulated(n_genes: int) -> ad.AnnData:
    """Sparse counts with eight programs."""
    rng = np.random.default_rng(0)
    base = rng.gamma(0.25, 1.0, n_genes)
    base *= min(4_000, n_genes) / base.sum()
    load = 0.25 * rng.normal(size=(8, n_genes))
    blocks = []
    for _ in range(N_CELLS // 2_000):
        rate = base * np.exp(rng.normal(size=(2_000, 8)) @ load) * rng.gamma(4, 0.25, (2_000, 1))
        blocks.append(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    return ad.AnnData(sparse.vstack(blocks, format="csr"), var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))


def by_scanpy(adata: ad.AnnData, train: np.ndarray) -> np.ndarray:
    """Counts of some cells to components from scratch, applied to all cells."""
    import scanpy as sc

    known = normalized(adata[train].copy())
    sc.pp.filter_genes(known, min_cells=1)
    sc.pp.highly_variable_genes(known, n_top_genes=min(2_000, known.n_vars), flavor="seurat")
    known = known[:, known.var["highly_variable"]].copy()
    sc.pp.pca(known, n_comps=N_COMPS, svd_solver="arpack")
    mean = np.asarray(known.X.mean(axis=0)).ravel()
    return normalized(adata.copy())[:, known.var_names].X @ known.varm["PCs"] - mean @ known.varm["PCs"]


def normalized(adata: ad.AnnData) -> ad.AnnData:
    import scanpy as sc

    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


@one_thread()
def time_refits() -> None:
    for n_genes in (2_000, 20_000):
        adata = simulated(n_genes)
        folds = np.array_split(np.random.default_rng(1).permutation(N_CELLS), N_FOLDS)
        folds = [np.setdiff1d(np.arange(N_CELLS), held_out) for held_out in folds]
        start = time.process_time()
        pca = sdr.models.load("pca", n_comps=N_COMPS)
        embed = pca.refits(pca.read(adata))
        new = [embed(train) for train in folds][:OLD_FOLDS]
        seconds = (time.process_time() - start) / N_FOLDS
        start = time.process_time()
        old = [by_scanpy(adata, train) for train in folds[:OLD_FOLDS]]
        scratch = (time.process_time() - start) / OLD_FOLDS
        gap = max(np.abs(a * np.sign((a * b).sum(axis=0)) - b).max() / np.abs(b).max() for a, b in zip(new, old))
        print(
            f"{N_CELLS} cells x {n_genes} genes: {seconds:.2f} s of CPU per fold (all sums included), {scratch:.2f} s from scratch, "
            f"{scratch / seconds:.1f} times faster; largest relative difference {gap:.1e}",
            flush=True,
        )


def time_evaluation() -> None:
    total = process = 0.0
    for seed in range(4):
        adata = sdr.datasets.toy(n_samples=10, cells_per_sample=60, n_genes=2_000, rng=seed)
        rng = np.random.default_rng(seed)
        latent = rng.normal(size=(10, 20))[adata.obs["sample"].cat.codes] + rng.normal(size=(adata.n_obs, 20))
        for name, dim in DIMS.items():
            adata.obsm[f"X_{name}"] = (
                latent @ rng.normal(size=(20, dim)) + rng.normal(size=(adata.n_obs, dim))
            ).astype("f4")
        start, cpu = time.perf_counter(), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            sdr.tl.evaluate(
                adata, use_rep=[f"X_{name}" for name in DIMS], options=sdr.tl.EvaluationOptions(n_boot=1000)
            )
        seconds, used = time.perf_counter() - start, time.process_time() - cpu
        total, process = total + seconds, process + used
        print(
            f"data set {seed}: {adata.n_obs} cells, {len(DIMS)} embeddings, {seconds:.1f} s ({used:.1f} s of CPU)",
            flush=True,
        )
    print(f"total: {total:.1f} s ({process:.1f} s of CPU)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"evaluation": time_evaluation, "refits": time_refits}
    parser.add_argument("part", nargs="?", choices=parts, help="one part alone")
    wanted = parser.parse_args().part
    for name, run in parts.items():
        if wanted in (None, name):
            run()


if __name__ == "__main__":
    main()
