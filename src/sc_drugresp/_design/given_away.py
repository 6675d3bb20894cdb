"""What gives the labels away before anything is split: an embedding made elsewhere, genes chosen beforehand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .association import best_dimension

if TYPE_CHECKING:
    from anndata import AnnData

    from .._data import CountSource
    from .units import UnitTable

_FITTED_SLOTS = ("x_pca", "x_umap", "x_tsne", "x_scvi", "x_scanvi", "x_harmony", "x_diffmap", "x_draw_graph", "x_lsi")
_TUNED = ("_lora", "_full")
_NEARLY_PATIENTS, _CLEARLY = 0.95, 0.01
_FEW_GENES, _MOST_CHOSEN = 1_000, 10_000
_GENE_LEVEL, _MOST_DIFFER, _FEWEST_UNITS = 0.05, 0.5, 4
_CHOSEN = re.compile(r"score|p_?val|log_?fold|log2?fc|rank|selected|marker|select")


def knows_labels(values: np.ndarray, table: UnitTable) -> str:
    """Say in words that a dimension of an embedding tells the label of patients; empty if none does.

    Parameters
    ----------
    values
        Embedding of the labeled cells, shape `(n, dim)`.
    table
        The patients.
    """
    auroc, p_value = best_dimension(values, table)
    if auroc < _NEARLY_PATIENTS or p_value > _CLEARLY:
        return ""
    return f"a dimension of it tells the label over patients (AUROC {auroc:.2f}, p = {p_value:.2g} counting all dimensions)"


def fitted_elsewhere(use_rep: str) -> str:
    """What is known of an embedding that this package did not make, in words."""
    if use_rep.endswith(_TUNED):
        return "tuned: the encoder was trained on labels, perhaps those of the test cells; tune it in every fold with tl.Recipe"
    if use_rep.lower().startswith(_FITTED_SLOTS):
        return (
            "transductive: fitted to all cells, test cells included; use model='pca' or 'scvi', refitted in every fold"
        )
    return "made elsewhere: whether it was fitted to the test cells is not known"


def chosen_by_label(source: CountSource, table: UnitTable) -> str:
    """Say in words that the genes of a small object were chosen with the labels: most of them differ between the classes.

    Parameters
    ----------
    source
        Reader of the labeled cells.
    table
        The patients.
    """
    from scipy.stats import mannwhitneyu

    n_genes = len(source.names)
    if n_genes >= _FEW_GENES or min(np.bincount(table.labels, minlength=2)) < _FEWEST_UNITS:
        return ""
    means = np.zeros((len(table), n_genes))
    for start, block in source.blocks():
        rows = table.row_of_cell[start : start + block.shape[0]]
        keep = np.flatnonzero(rows >= 0)
        members = sparse.csr_matrix((np.ones(len(keep)), (rows[keep], keep)), shape=(len(table), block.shape[0]))
        means += (members @ block).toarray()
    total = np.abs(means).sum(axis=1, keepdims=True)
    means /= np.where(total > 0, total, 1)
    varying = means.std(axis=0) > 0
    p_values = mannwhitneyu(means[table.labels == 1][:, varying], means[table.labels == 0][:, varying]).pvalue
    share = float(np.mean(p_values < _GENE_LEVEL)) if varying.any() else 0.0
    if share < _MOST_DIFFER:
        return ""
    return (
        f"{share:.0%} of the {n_genes} genes differ between the classes over patients (p < {_GENE_LEVEL}): they seem to have been "
        "chosen with the labels, so that the score of test patients is too high"
    )


def genes_chosen_before(adata: AnnData) -> list[str]:
    """Cautions, in words, when the object seems to hold only genes that were chosen on all of its cells."""
    if adata.n_vars < 2:
        return []
    again = "start from all genes, they are chosen again in every fold"
    if "highly_variable" in adata.var and bool(np.asarray(adata.var["highly_variable"]).all()):
        return [f"the object holds highly variable genes only, chosen on all cells; {again}"]
    if "hvg" in adata.uns and adata.n_vars <= _MOST_CHOSEN and "highly_variable" not in adata.var:
        return [f".uns['hvg'] and {adata.n_vars} genes: variable genes seem to have been chosen on all cells; {again}"]
    scored = [str(name) for name in adata.var.columns if _CHOSEN.search(str(name).lower())]
    if adata.n_vars < _FEW_GENES:
        named = f" (.var holds {', '.join(map(repr, scored))})" if scored else ""
        told = f"if they were chosen with these cells, and above all with their labels, scores are too high; {again}"
        return [f"the object holds {adata.n_vars} genes only{named}: {told}"]
    return []
