"""Clean designs, which must keep their verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from attack_registry import clean, cohort, of_patients

if TYPE_CHECKING:
    import anndata as ad


def size(rng: np.random.Generator) -> int:
    """Patients of a clean cohort."""
    return int(rng.choice([12, 14, 16, 20, 24]))


def technical(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """Add columns of the kind that a sequencing core delivers, dealt out at random."""
    n = adata.obs["patient"].nunique()
    for name, levels in {"site": 2, "chemistry": 2, "lane": 4, "seq_run": 3, "operator": 3}.items():
        adata.obs[name] = of_patients(adata, rng.integers(0, levels, n).astype(str))
    adata.obs["age"] = of_patients(adata, rng.integers(30, 85, n))
    adata.obs["sex"] = of_patients(adata, rng.choice(["f", "m"], n))
    adata.obs["pct_counts_mt"] = rng.beta(2, 20, adata.n_obs) + of_patients(adata, rng.beta(2, 20, n))
    return adata


@clean("balanced batches, cell types")
def balanced(rng: np.random.Generator) -> ad.AnnData:
    """Two batches with as many patients of each class."""
    n = size(rng)
    batch = np.arange(n) // 2 % 2
    adata = cohort(rng, n=n, cells=30, batch=batch)
    adata.obs["batch"] = of_patients(adata, batch.astype(str))
    mix = [rng.choice(["T", "B", "tumor"], 30, p=rng.dirichlet([3, 3, 3])) for _ in range(n)]
    adata.obs["cell_type"] = np.concatenate(mix)
    return adata


@clean("eight technical columns at random")
def random_columns(rng: np.random.Generator) -> ad.AnnData:
    """Depth varies between patients, too."""
    n = size(rng)
    return technical(cohort(rng, n=n, cells=30, depth=np.exp(0.3 * rng.normal(size=n))), rng)


@clean("one cell type, patients all but the same")
def near_identical(rng: np.random.Generator) -> ad.AnnData:
    """Cells of different patients are as alike as counting allows."""
    return cohort(rng, n=size(rng), cells=30, patient_effect=0.02)


@clean("two samples of each patient")
def replicates(rng: np.random.Generator) -> ad.AnnData:
    """Replicates, named as samples of their patient."""
    adata = technical(cohort(rng, n=size(rng), cells=30), rng)
    adata.obs["sample"] = adata.obs["patient"].astype(str) + np.where(np.arange(adata.n_obs) % 2, "a", "b")
    return adata


@clean("true signal")
def with_signal(rng: np.random.Generator) -> ad.AnnData:
    """A tenth of the genes goes with response, and nothing else does."""
    n = size(rng)
    adata = cohort(rng, n=n, cells=30, signal=1.0, depth=np.exp(0.3 * rng.normal(size=n)))
    adata.obs["batch"] = of_patients(adata, (np.arange(n) // 2 % 2).astype(str))
    return adata
