"""Features that know the label or the test cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from .._stats.folds import Fold

_FITTED_SLOTS = ("x_pca", "x_umap", "x_tsne", "x_scvi", "x_scanvi", "x_harmony", "x_diffmap", "x_draw_graph", "x_lsi")
_TUNED = ("_lora", "_full")
_NEARLY = 0.999


def label_derived(values: Any, y: np.ndarray) -> str:
    """Say in words how a column reveals the label of each cell; empty if it does not.

    A column of numbers does when a threshold separates the classes, a column of names when each name has one class and
    a name stands for many cells. Missing values count as a value of their own.

    Parameters
    ----------
    values
        The column, for labeled cells.
    y
        1 sensitive, 0 resistant.
    """
    from sklearn.metrics import roc_auc_score

    array = np.asarray(values)
    if array.dtype.kind in "fiub":
        numbers = array.astype(np.float64)
        numbers = np.where(np.isnan(numbers), np.nanmin(numbers) - 1 if np.isfinite(numbers).any() else 0.0, numbers)
        if len(np.unique(numbers)) < 2:
            return ""
        auroc = float(roc_auc_score(y, numbers))
        strength = max(auroc, 1 - auroc)
        return f"its values alone separate the classes (AUROC {strength:.3f})" if strength >= _NEARLY else ""
    names, index = np.unique(array.astype(str), return_inverse=True)
    share = np.bincount(index, y) / np.bincount(index)
    if 1 < len(names) <= len(y) / 2 and np.isin(share, (0, 1)).all():
        return f"each of its {len(names)} values has one class only"
    return ""


def sets_cross_folds(sets: np.ndarray, folds: Sequence[Fold]) -> list[str]:
    """Folds in which cells embedded as one set stand in training and test."""
    return [fold.name for fold in folds if np.intersect1d(sets[fold.train], sets[fold.test]).size]


def fitted_elsewhere(use_rep: str) -> str:
    """What is known of an embedding that this package did not make, in words."""
    if use_rep.endswith(_TUNED):
        return "tuned: the encoder was trained on labels, perhaps those of the test cells; tune it in every fold with tl.Recipe"
    if use_rep.lower().startswith(_FITTED_SLOTS):
        return (
            "transductive: fitted to all cells, test cells included; use model='pca' or 'scvi', refitted in every fold"
        )
    return "made elsewhere: whether it was fitted to the test cells is not known"


def genes_chosen_before(adata: AnnData) -> list[str]:
    """A caution, in words, when the object holds only genes that were chosen on all of its cells."""
    chosen = "highly_variable" in adata.var and bool(np.asarray(adata.var["highly_variable"]).all())
    told = (
        "the object holds highly variable genes only, chosen on all cells; start from all genes, they are chosen again in "
        "every fold"
    )
    return [told] if chosen and adata.n_vars > 1 else []
