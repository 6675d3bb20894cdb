"""Section C: what is said of new patients by a model that has nothing, or little, to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from attack_registry import calls, cohort, of_patients

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

NEW = 20
"""New patients."""
Pair = "tuple[ad.AnnData, ad.AnnData]"


def split(adata: ad.AnnData, n: int) -> Pair:
    """The first `n` patients to learn from, and the others."""
    number = adata.obs["patient"].str[1:].astype(int).to_numpy()
    return adata[number < n].copy(), adata[number >= n].copy()


def patients(n: int, *, signal: float = 0.0) -> Callable[[np.random.Generator], Pair]:
    """As many patients of each class."""
    return lambda rng: split(cohort(rng, n=n + NEW, signal=signal), n)


for n, before in ((8, ""), (16, ""), (24, ""), (40, "")):
    calls(f"no signal, {n} patients", before)(patients(n))
for n, before in ((8, "42 % of called samples wrong"), (16, "32 %"), (24, "5 %"), (40, "0 %")):
    calls(f"a signal, {n} patients", before)(patients(n, signal=0.4))


@calls("4 of 16 patients sensitive", "69 % of the sensitive called resistant")
def few_sensitive(rng: np.random.Generator) -> Pair:
    """Of the sensitive patients most are left out of training."""
    adata = cohort(rng, n=44, signal=0.4)
    number = adata.obs["patient"].str[1:].astype(int).to_numpy()
    keep = (number % 2 == 0) | (number < 8) | (number >= 24)
    return split(adata[keep].copy(), 24)


@calls("aliased with the platform", "236 of 240 cells called")
def aliased(rng: np.random.Generator) -> Pair:
    """Patients of each class were measured on a platform of their own."""
    label = np.arange(16 + NEW) % 2
    adata = cohort(rng, n=16 + NEW, batch=label)
    adata.obs["platform"] = of_patients(adata, np.where(label == 1, "one", "other"))
    return split(adata, 16)


@calls("new patients of another tissue", "called all the same")
def foreign(rng: np.random.Generator) -> Pair:
    """The expression of new patients has nothing to do with that of the training patients."""
    return split(cohort(rng, n=40, signal=1.0), 40)[0], split(cohort(rng, n=NEW, signal=1.0), 0)[1]


@calls("half the depth", "50 % of cells flagged")
def shallow(rng: np.random.Generator) -> Pair:
    """Counts of new patients are thinned to a half."""
    known, new = patients(40, signal=1.0)(rng)
    new.X.data = rng.binomial(new.X.data.astype(int), 0.5).astype(np.float32)
    new.X.eliminate_zeros()
    return known, new
