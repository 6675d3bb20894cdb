"""Section A: something else goes with the label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from attack_registry import LABEL, PATIENTS, attack, cohort, of_patients

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad
    from attack_registry import Call


def named(name: str, words: tuple[str, str]) -> Callable[[np.random.Generator], tuple[ad.AnnData, Call]]:
    """A column that is the label under another name, with a batch effect."""

    def make(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
        adata = cohort(rng, batch=LABEL)
        adata.obs[name] = np.where(of_patients(adata, LABEL) == 1, *words)
        return adata, {}

    return make


for column, pair in {
    "platform": ("10x v3", "Smart-seq2"),
    "site": ("Basel", "Boston"),
    "chemistry": ("v2", "v3"),
    "condition": ("treated", "vehicle"),
    "seq_run": ("R1", "R2"),
    "group_code": ("x", "y"),
}.items():
    attack("A", f"`{column}` equal to the label", "" if column == "group_code" else "OK, 1.00")(named(column, pair))


def swapped(k: int) -> Callable[[np.random.Generator], tuple[ad.AnnData, Call]]:
    """A batch that agrees with the label in all but `k` patients."""

    def make(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
        batch = LABEL.copy()
        batch[:k] = 1 - batch[:k]
        adata = cohort(rng, batch=batch)
        adata.obs["batch"] = of_patients(adata, np.char.add("B", batch.astype(str)))
        adata.obs["cell_type"] = rng.choice(["T", "B", "tumor"], adata.n_obs)
        return adata, {}

    return make


attack("A", "batch agrees in 15 of 16", "OK, 0.90")(swapped(1))
attack("A", "batch agrees in 14 of 16", "OK, 0.79")(swapped(2))


@attack("A", "two batches per class", "OK, 0.95")
def two_batches(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Four batches, each of one class."""
    batch = 2 * LABEL + np.arange(PATIENTS) // 2 % 2
    adata = cohort(rng, batch=batch)
    adata.obs["batch"] = of_patients(adata, np.char.add("B", batch.astype(str)))
    return adata, {}


@attack("A", "two columns, only together the label", "")
def together(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Site and chemistry say nothing alone; each combination has one class."""
    site = np.arange(PATIENTS) // 2 % 2
    chemistry = site ^ LABEL
    adata = cohort(rng, batch=2 * site + chemistry)
    adata.obs["site"] = of_patients(adata, np.array(["Basel", "Boston"])[site])
    adata.obs["chemistry"] = of_patients(adata, np.array(["v2", "v3"])[chemistry])
    return adata, {}


@attack("A", "date of processing, as text", "")
def dates(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Every patient on a day of its own, sensitive ones later."""
    adata = cohort(rng, batch=LABEL)
    days = pd.Timestamp("2021-01-04") + pd.to_timedelta(np.arange(PATIENTS) + 60 * LABEL, unit="D")
    adata.obs["processed_on"] = of_patients(adata, days.strftime("%Y-%m-%d").to_numpy())
    return adata, {}


@attack("A", "date of processing, as numbers", "")
def numbers(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """The same as numbers."""
    adata = cohort(rng, batch=LABEL)
    adata.obs["day"] = of_patients(adata, np.arange(PATIENTS) + 60.0 * LABEL)
    return adata, {}


@attack("A", "boolean column with missing values", "")
def boolean(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Frozen or fresh; missing for a tenth of the cells."""
    adata = cohort(rng, batch=LABEL)
    frozen = pd.Series(of_patients(adata, LABEL == 1), index=adata.obs_names).astype("boolean")
    frozen[rng.random(adata.n_obs) < 0.1] = pd.NA
    adata.obs["frozen"] = frozen
    return adata, {}


@attack("A", "sensitive patients sequenced half as deep, in no column", "")
def shallow(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Depth alone tells the classes apart."""
    return cohort(rng, depth=np.where(LABEL == 1, 0.5, 1.0)), {}
