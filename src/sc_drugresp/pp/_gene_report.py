"""How many genes, and how much of the counts, were recognized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import genes as gene_tools
from .._core.keys import GeneKeys
from .._data.matrices import gene_columns
from ._scan import scan

if TYPE_CHECKING:
    from anndata import AnnData


WARN_BELOW, FAIL_BELOW = 0.8, 0.5
"""Share of the counts that must lie in genes that were recognized."""
_LISTED = 200
"""Names listed in a report; the numbers beside them are complete."""


def identifiers(var: Any, uns: Any, gene_key: str | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Names and second identifiers of the genes.

    What an earlier call translated to another species is no evidence of what the genes are.
    """
    keys = GeneKeys()
    before = uns.get(keys.uns)
    told = [before.get(name) for name in ("organism", "target")] if isinstance(before, Mapping) else []
    translated = all(isinstance(name, str) for name in told) and len(set(told)) > 1
    return gene_columns(var, gene_key, skip=(keys.symbol, keys.ensembl_id) if translated else ())


def gene_report(adata: AnnData, names: np.ndarray, found: gene_tools.Resolution, layer: str | None) -> dict[str, Any]:
    """What `.uns['harmonize_genes']` says."""
    scanned = scan(adata, layer, "adding up genes", names)
    own = found.status != "other_species"
    weights, basis = np.ones(len(names)), "genes"
    if scanned is not None and scanned.weights(names)[0][own].any():
        weights, basis = scanned.weights(names)
    groups = gene_tools.gene_groups(names, found)
    repeated = names[found.matched & (np.bincount(groups)[groups] > 1)]

    def listed(status: str) -> np.ndarray:
        chosen = np.flatnonzero(found.status == status)
        return names[chosen[np.argsort(-weights[chosen], kind="stable")][:_LISTED]].astype(object)

    return {
        "organism": found.organism,
        "target": found.target,
        "release": found.release,
        "sources": dict(found.sources) or {"hgnc": "not used: no file at hand"},
        "n_genes": len(found),
        "n_matched": int(found.matched.sum()),
        "status": found.counts(),
        "share_of_counts": float(weights[found.matched].sum() / weights[own].sum()) if own.any() else 0.0,
        "share_basis": basis,
        "share_other_species": float(weights[~own].sum() / weights.sum()),
        "n_duplicated": len(repeated),
        "duplicated": np.sort(repeated)[:_LISTED].astype(object),
        "ambiguous": listed("ambiguous"),
        "lost": listed("lost"),
    }
