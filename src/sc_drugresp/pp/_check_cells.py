"""Findings of `check` about what the cells are: blood and stroma among them, cells under treatment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._data.compartments import assign_compartments, compartments
from .._data.counts import read_counts
from .._data.treatment import treated_cells

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from ._findings import Findings

MANY = 0.2
"""Share of immune or stromal cells from which on it is a warning."""
_LEAST_MARKERS = 10


def check_compartments(findings: Findings, adata: AnnData, layer: str | None) -> None:
    """Say which compartments the cells belong to, by marker genes; a warning where many are not of the tumor."""
    try:
        found = assign_compartments(read_counts(adata, layer=layer, expect="any"))
    except ValueError:  # missing values or a scaled matrix, which have findings of their own
        return
    if found.n_markers.sum() < _LEAST_MARKERS:
        return
    shares = found.shares()
    other = float(1 - found.parenchymal.mean())
    listed = ", ".join(f"{share:.0%} {name}" for name, share in list(shares.items())[:4])
    message = f"By marker genes: {listed}."
    if other < MANY:
        findings.info("cell-types", "cells", message)
        return
    kinds = {item.name: item.kind for item in compartments()}
    most = next(name for name in shares if kinds.get(name) in {"immune", "stromal"})
    message += f" {other:.0%} show markers of blood or stroma, most often of a {most}: a prediction for the tumor must not rest on them."
    fix = (
        "Look at pp.suggest_malignant(adata), confirm it, and pass the column as malignant_key=. In leukemia, lymphoma and "
        "myeloma the malignant cells are blood cells themselves."
    )
    findings.warning("cell-types", "cells", message, fix)


def check_treatment(findings: Findings, obs: pd.DataFrame) -> None:
    """Say which cells were taken under treatment, by the words of `.obs`."""
    treated, words = treated_cells(obs)
    if not treated.any():
        return
    told = "; ".join(f"{name}: {', '.join(map(repr, values[:3]))}" for name, values in words.items())
    message = f"{int(treated.sum())} of {len(treated)} cells seem to be from under or after treatment ({told})."
    fix = (
        "Such cells show what the drug did to them, not how they would have responded: use cells from before treatment."
    )
    findings.warning("treated-cells", "obs", message, fix)
