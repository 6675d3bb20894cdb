"""When a reference must not answer, and why."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from ..names import drug_key, known_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from .pseudobulk import Pseudobulk

MIN_R, MIN_R_WITHIN = 0.3, 0.15
"""Held-out correlation of a drug, over all lines and within lineages, below which its predictions are not given."""
MIN_CELLS = 10
MIN_GENES = 0.5
"""Share of the genes of the model that the data must have."""


@cache
def _genotypes() -> dict[str, str]:
    rows = (files(__package__) / "tables" / "genotype.tsv").read_text(encoding="utf-8").splitlines()
    pairs = (row.split("\t") for row in rows if not row.startswith("#"))
    return {drug_key(name): marker for drug, marker in pairs for name in (drug, *known_names(drug))}


def drug_reasons(drugs: pd.DataFrame) -> list[str]:
    """Why a drug cannot be predicted from expression, `''` where it can.

    Parameters
    ----------
    drugs
        Cards of drugs: index `drug`, columns `r`, `r_within_tissue` and `synonyms`.
    """
    out = []
    for drug, r, inner, synonyms in zip(drugs.index, drugs["r"], drugs["r_within_tissue"], drugs["synonyms"]):
        names = [drug_key(str(name), salt=False) for name in (drug, *str(synonyms).split("|"))]
        marker = next((_genotypes()[name] for name in names if name in _genotypes()), None)
        if marker is not None:
            out.append(f"needs mutation: {marker}")
        elif not r >= MIN_R:
            out.append(f"drug not predictable: r {r:.2f} in held-out lines, {MIN_R} needed")
        elif inner < MIN_R_WITHIN:
            out.append(f"drug not predictable within a tissue: r {inner:.2f} in held-out lines, {MIN_R_WITHIN} needed")
        else:
            out.append("")
    return out


def group_reasons(bulk: Pseudobulk, contradictions: Sequence[str]) -> list[str]:
    """Why nothing can be said of a group, `''` where something can.

    Parameters
    ----------
    bulk
        The groups.
    contradictions
        From :func:`~sc_drugresp._reference.lineage.contradiction`, one per group.
    """
    share = float(np.mean(bulk.seen))
    genes = f"too few genes: {share:.0%} of the model's, {MIN_GENES:.0%} needed" if share < MIN_GENES else ""
    few = [f"too few cells: {n}, {MIN_CELLS} needed" if n < MIN_CELLS else "" for n in bulk.n_cells.tolist()]
    return ["; ".join(filter(None, parts)) for parts in zip(contradictions, few, [genes] * len(few))]
