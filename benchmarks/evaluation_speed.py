"""Time the full evaluation: 5 embeddings x 4 data sets, all naive rows, 1,000 bootstrap draws (goal: under 2 minutes).

python benchmarks/evaluation_speed.py
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

# A neighbor of this file, coverage.py, must not be taken for the package of that name.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]

import numpy as np

import sc_drugresp as sdr

DIMS = {"geneformer": 256, "scgpt": 512, "uce": 1280, "tgpt": 1024, "scbert": 200}


def main() -> None:
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


if __name__ == "__main__":
    main()
