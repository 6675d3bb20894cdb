"""Section B: cells, patients and labels that stand on both sides of a fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from attack_registry import CELLS, PATIENTS, attack, cohort
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable

    from attack_registry import Call


def added(adata: ad.AnnData, part: ad.AnnData, extra: int, rng: np.random.Generator) -> ad.AnnData:
    """Both objects together, the second with a few counts more in every cell."""
    counts = part.X.toarray()
    for row in counts:
        row[rng.choice(len(row), extra, replace=False)] += 1
    part.X = sparse.csr_matrix(counts)
    return ad.concat([adata, part], index_unique="-")


@attack("B", "copies of cells plus 3 counts under other patients", "OK, 0.94")
def copies(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """A third of the cells of each patient also stands under the next patient of its class."""
    adata = cohort(rng)
    part = adata[rng.random(adata.n_obs) < 0.34].copy()
    number = part.obs["patient"].str[1:].astype(int)
    part.obs["patient"] = [f"P{(i + 2) % PATIENTS:02d}" for i in number]
    return added(adata, part, 3, rng), {}


@attack("B", "copies of whole patients plus 3 counts", "")
def copied_patients(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Every patient a second time, under another name."""
    adata = cohort(rng)
    part = adata.copy()
    part.obs["patient"] = "X" + part.obs["patient"].astype(str)
    return added(adata, part, 3, rng), {}


def two_names(k: int, n: int) -> Callable[[np.random.Generator], tuple[ad.AnnData, Call]]:
    """The first `k` of `n` patients under two names each."""

    def make(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
        adata = cohort(rng, n=n, cells=2 * CELLS)
        number = adata.obs["patient"].str[1:].astype(int).to_numpy()
        other = (number < k) & (np.arange(adata.n_obs) % 2 == 1)
        adata.obs["patient"] = np.where(other, "X" + adata.obs["patient"].astype(str), adata.obs["patient"])
        return adata, {}

    return make


attack("B", "every patient under two names", "OK, 0.82")(two_names(8, 8))
attack("B", "6 of 14 patients under two names", "OK, 0.65")(two_names(6, 14))


@attack("B", "50 genes chosen on all data", "OK, 0.81")
def chosen(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """The genes that differ most between the classes, of 2,000."""
    adata = cohort(rng, genes=2000)
    y = (adata.obs["response"] == "sensitive").to_numpy()
    logged = np.log1p(adata.X.toarray())
    names = adata.obs["patient"].to_numpy()
    means = np.array([logged[names == name].mean(axis=0) for name in np.unique(names)])
    label = np.array([y[names == name][0] for name in np.unique(names)])
    gap = means[label].mean(axis=0) - means[~label].mean(axis=0)
    return adata[:, np.argsort(-np.abs(gap))[:50]].copy(), {}


@attack("B", "a label-derived dimension in `.obsm`", "OK, 1.00")
def smuggled(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Ten dimensions of noise; one is shifted by the label."""
    adata = cohort(rng)
    values = rng.normal(size=(adata.n_obs, 10))
    values[:, 3] += 3 * (adata.obs["response"] == "sensitive")
    adata.obsm["X_external"] = values
    return adata, {"use_rep": "X_external", "model": None}


@attack("B", "a proxy of AUROC 0.92 in `obs_features`", "passes", obs_features=("proxy",))
def proxy(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """A noisy copy of the label, cell by cell."""
    adata = cohort(rng)
    adata.obs["proxy"] = 2.0 * (adata.obs["response"] == "sensitive") + rng.normal(size=adata.n_obs)
    return adata, {"model": None}


@attack("B", "`cross_dataset` with shared patients", "", few_shot=())
def shared(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Half of the patients of one data set also stand in the other."""
    adata = cohort(rng, n=12, cells=2 * CELLS)
    number = adata.obs["patient"].str[1:].astype(int).to_numpy()
    second = np.where((number >= 4) & (number < 8), np.arange(adata.n_obs) % 2 == 1, number >= 8)
    adata.obs["dataset"] = np.where(second, "two", "one")
    return adata, {"protocol": "cross_dataset"}
