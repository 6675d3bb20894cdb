"""Peak memory of a whole run on a matrix far larger than what may be in memory.

Writes a synthetic CSR matrix to disk, block by block, opens it backed, and runs `pp.check`, the PCA embedding, training and
prediction in a process of their own. Peak memory should follow the size of a block and the outputs, not the matrix.

    python benchmarks/memory.py                          # 20,000, 50,000 and 100,000 cells x 20,000 genes
    python benchmarks/memory.py --cells 10000 --genes 5000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# A neighbor of this file, coverage.py, must not be taken for the package of that name; others are found from the folder above.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
from benchmarks._page import publish

WRITE_BLOCK = 5_000
EXPRESSED = 600


def write(path: Path, n_cells: int, n_genes: int, seed: int = 0) -> float:
    """Write counts with a response program in 24 samples, never holding more than one block; returns gigabytes."""
    import anndata as ad
    import h5py
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(seed)
    genes = pd.Index([f"GENE{i}" for i in range(n_genes)])
    sample = np.arange(n_cells) % 24
    obs = pd.DataFrame(
        {
            "sample": pd.Categorical([f"S{i:02d}" for i in sample]),
            "response": pd.Categorical(np.where(sample % 2, "sensitive", "resistant")),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    obs.loc[obs["sample"].isin(["S22", "S23"]), "response"] = None
    ad.AnnData(sparse.csr_matrix((n_cells, n_genes), dtype=np.float32), obs, pd.DataFrame(index=genes)).write_h5ad(path)
    popularity = rng.gamma(0.3, size=n_genes)
    popularity /= popularity.sum()
    cumulative = np.cumsum(popularity)
    with h5py.File(path, "r+") as file:
        group = file["X"]
        for name, dtype in (("data", "f4"), ("indices", "i4")):
            del group[name]
            group.create_dataset(name, shape=(0,), maxshape=(None,), dtype=dtype, chunks=(1 << 18,))
        indptr = [0]
        for start in range(0, n_cells, WRITE_BLOCK):
            data, indices = [], []
            for cell in range(start, min(start + WRITE_BLOCK, n_cells)):
                drawn = np.unique(np.searchsorted(cumulative, rng.random(EXPRESSED)))
                drawn = np.minimum(drawn, n_genes - 1)
                counts = rng.geometric(0.5, len(drawn)).astype(np.float32)
                if sample[cell] % 2:
                    counts[drawn < 50] += 3
                data.append(counts)
                indices.append(drawn.astype(np.int32))
                indptr.append(indptr[-1] + len(drawn))
            for name, parts in (("data", data), ("indices", indices)):
                values = np.concatenate(parts)
                group[name].resize(group[name].shape[0] + len(values), axis=0)
                group[name][-len(values) :] = values
        group["indptr"][...] = np.asarray(indptr, dtype=group["indptr"].dtype)
    return indptr[-1] * 8 / 1e9


def work(path: Path, block_cells: int) -> dict[str, float]:
    """Check, embed, train and predict on the backed file; seconds and peak memory of each step."""
    import warnings

    import anndata as ad

    import sc_drugresp as sdr

    warnings.simplefilter("ignore")
    sdr.settings.block_cells = block_cells
    sdr.settings.progress = False
    toy = sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=60)  # load libraries before measuring
    sdr.tl.embed(toy, "pca", n_comps=5)
    sdr.pp.check(toy)
    out = {"libraries_mb": _peak()}
    adata = ad.read_h5ad(path, backed="r")
    steps = {
        "check": lambda: sdr.pp.check(adata, group_key="sample"),
        "embed": lambda: sdr.tl.embed(adata, "pca"),
        "predict": lambda: sdr.tl.predict_response(adata, group_key="sample"),
    }
    for name, step in steps.items():
        start = time.perf_counter()
        step()
        out[f"{name}_s"], out[f"{name}_mb"] = time.perf_counter() - start, _peak()
    out["outputs_mb"] = adata.obsm["X_sdr_pca"].nbytes / 1e6
    return out


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 50_000, 100_000])
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--block-cells", type=int, nargs="+", default=[2_048])
    parser.add_argument("--folder", type=Path, help="where the matrices are written (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(args.worker, args.block_cells[0])))
        return
    lines = [
        (
            "| cells | genes | block | matrix in memory, MB | libraries, MB | peak after check, MB | after embed, MB | "
            "after predict, MB | embedding, MB | check, s | embed, s | predict, s |"
        ),
        "|---" * 12 + "|",
    ]
    print("\n".join(lines), flush=True)
    found = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for n_cells in args.cells:
            path = Path(folder) / f"{n_cells}.h5ad"
            size = write(path, n_cells, args.genes)
            for block in args.block_cells:
                command = [sys.executable, __file__, "--worker", str(path), "--block-cells", str(block)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                r = json.loads(done.stdout.splitlines()[-1])
                found.append({"cells": n_cells, "genes": args.genes, "block": block, "matrix_mb": size * 1e3, **r})
                cells = [f"{n_cells:,}", f"{args.genes:,}", f"{block:,}", f"{size * 1e3:.0f}"]
                names = ("libraries_mb", "check_mb", "embed_mb", "predict_mb", "outputs_mb")
                cells += [f"{r[name]:.0f}" for name in names]
                cells += [f"{r[f'{name}_s']:.1f}" for name in ("check", "embed", "predict")]
                lines.append("| " + " | ".join(cells) + " |")
                print(lines[-1], flush=True)
            path.unlink()
    if args.out:
        text = (
            "# Memory\n\nPeak memory of one process over a CSR matrix read backed (`benchmarks/memory.py`). It follows the "
            "block, a fixed number of cells to fit PCA on, and the outputs, not the matrix.\n\n"
            + "\n".join(lines)
            + "\n"
        )
        publish(args.out, text, found, figures={"Memory against number": lambda axes: paint(axes, found)})


def paint(axes: Any, found: list[dict[str, Any]]) -> None:
    """Peak memory after each step, beside the size of the matrix."""
    number = [r["cells"] for r in found]
    for name in ("check", "embed", "predict"):
        axes.plot(number, [r[f"{name}_mb"] for r in found], "o-", label=f"after {name}")
    axes.plot(number, [r["matrix_mb"] for r in found], "--", color="gray", label="the matrix")
    axes.set(xlabel="cells", ylabel="MB", ylim=(0, None))


if __name__ == "__main__":
    main()
