"""Cohorts without biology, and the register of attacks on them and of clean designs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENTS, CELLS, GENES = 16, 40, 300
Call = dict[str, Any]
"""Further arguments of `tl.evaluate`."""


@dataclass(frozen=True)
class Attack:
    """How a cohort is made, and what the first version said of it (from the audit of version 0.1)."""

    section: str
    name: str
    make: Callable[[np.random.Generator], tuple[ad.AnnData, Call]]
    before: str
    options: dict[str, Any] = field(default_factory=dict)


ATTACKS: list[Attack] = []
CALLS: dict[str, tuple[str, Callable[[np.random.Generator], tuple[ad.AnnData, ad.AnnData]]]] = {}
CLEAN: dict[str, Callable[[np.random.Generator], ad.AnnData]] = {}


def attack(section: str, name: str, before: str, **options: Any) -> Callable[[Any], Any]:
    """Register an attack of a section; `options` go to `EvaluationOptions`."""

    def add(make: Any) -> Any:
        ATTACKS.append(Attack(section, name, make, before, options))
        return make

    return add


def calls(name: str, before: str) -> Callable[[Any], Any]:
    """Register patients to learn from and new ones, with what the first version said of the new ones."""

    def add(make: Any) -> Any:
        CALLS[name] = before, make
        return make

    return add


def clean(name: str) -> Callable[[Any], Any]:
    """Register a clean design."""

    def add(make: Any) -> Any:
        CLEAN[name] = make
        return make

    return add


def cohort(
    rng: np.random.Generator,
    *,
    n: int = PATIENTS,
    cells: int = CELLS,
    genes: int = GENES,
    batch: np.ndarray | None = None,
    batch_effect: float = 0.6,
    patient_effect: float = 0.3,
    depth: np.ndarray | None = None,
    signal: float = 0.0,
) -> ad.AnnData:
    """Counts of patients that differ from each other, and by batch; labels say nothing unless there is a `signal`.

    Parameters
    ----------
    rng
        Generator.
    n, cells, genes
        Patients, cells of each, genes.
    batch
        Batch of each patient.
    batch_effect, patient_effect
        Standard deviation of log expression between batches and between patients.
    depth
        Factor of the counts of each patient.
    signal
        Difference of log expression in a tenth of the genes.
    """
    y = np.arange(n) % 2
    unit = np.repeat(np.arange(n), cells)
    level = rng.normal(0, 1.2, genes) + patient_effect * rng.normal(size=(n, genes))
    if batch is not None:
        level = level + batch_effect * rng.normal(size=(int(batch.max()) + 1, genes))[batch]
    level[:, : genes // 10] += signal * y[:, None]
    share = np.exp(level)
    share /= share.sum(axis=1, keepdims=True)
    total = 600 * np.exp(0.4 * rng.normal(size=len(unit))) * (1 if depth is None else depth[unit])
    counts = rng.poisson(share[unit] * total[:, None]).astype(np.float32)
    obs = pd.DataFrame(
        {
            "patient": [f"P{i:02d}" for i in unit],
            "response": np.where(y[unit] == 1, "sensitive", "resistant"),
        },
        index=[f"c{i}" for i in range(len(unit))],
    )
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(genes)]))


def of_patients(adata: ad.AnnData, values: np.ndarray) -> np.ndarray:
    """One value per patient, given to its cells."""
    return np.asarray(values)[np.unique(adata.obs["patient"], return_inverse=True)[1]]


LABEL = np.arange(PATIENTS) % 2
