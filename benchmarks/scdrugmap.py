"""scDrugMap's protocol (arXiv 2505.05612) beside the strict one: `python benchmarks/scdrugmap.py FILE.h5ad [MODEL ...]`.

80 % of the cells at random by `torch.utils.data.random_split` with seed 24, its head (512-512-2, AdamW 1e-4, 10 epochs,
batches of 128), accuracy, AUROC, precision, recall and F1. Cells of one sample stand in training and test, so the score
is that of recognizing samples; the strict score, a constant answer and labels dealt out at random stand beside it.
"""

from __future__ import annotations

import argparse

import anndata as ad
import numpy as np
import torch

import sc_drugresp as sdr

SEED, TRAIN = 24, 0.8
METRICS = ["accuracy", "auroc", "precision", "recall", "f1"]


def scdrugmap_test_cells(n: int) -> np.ndarray:
    """Rows that scDrugMap's split tests."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SEED)).numpy()
    return np.sort(order[int(TRAIN * n) :])


def main(arguments: list[str] | None = None) -> None:
    """Print one row per model and protocol."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="AnnData with raw counts and `sensitive` / `resistant` in .obs['response']")
    parser.add_argument("models", nargs="*", default=["pca"], help="models to embed with (default: pca)")
    parser.add_argument("--checkpoint", help="folder with the files of the (one) foundation model")
    given = parser.parse_args(arguments)
    adata = ad.read_h5ad(given.file)
    labeled = np.flatnonzero(adata.obs["response"].notna().to_numpy())
    fold = np.full(adata.n_obs, None, dtype=object)
    fold[labeled[scdrugmap_test_cells(len(labeled))]] = "seed 24"
    adata.obs["scdrugmap"] = fold
    recipes = [sdr.tl.Recipe(name, checkpoint=given.checkpoint) for name in given.models]
    options = sdr.tl.EvaluationOptions(n_boot=0, n_permutations=0, allow_leaks=True)
    sdr.tl.evaluate(adata, model=recipes, split="scdrugmap", head="mlp", options=options, key_added="scdrugmap")
    sdr.tl.evaluate(adata, model=recipes, head="mlp", options=options, key_added="strict")
    for key, words in (("scdrugmap", "scDrugMap's split of cells"), ("strict", "held-out samples")):
        frame = sdr.get.metrics_df(adata, protocol="leave_group_out", level="cell", key_added=key)
        table = frame[frame["metric"].isin(METRICS)].pivot_table(index="model", columns="metric", values="value")
        print(f"\n{words} (verdict {adata.uns[key]['verdict']['code']})")
        print(table.reindex(columns=METRICS).round(3).to_string() if len(table) else "no such score is possible")


if __name__ == "__main__":
    main()
