"""`pl.model_comparison` and `pl.history`: models over data sets, and a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import get
from .._core.docs import doc_data, doc_key_added, doc_modality, doc_params
from ._style import ACCENT, SERIES, new_axes, pretty

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def model_comparison(
    data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Draw the mean rank of each model over data sets; models joined by a bar are not told apart.

    The bar spans the critical difference of Nemenyi's test (Demšar, J Mach Learn Res 2006).

    Parameters
    ----------
    {data}
    {key_added}
    {modality}
    ax
        Axes to draw on.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        Nothing was evaluated.
    ValueError
        The evaluation has fewer than two models or two data sets.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=16, cells_per_sample=15, n_genes=100)
    >>> adata.obs["dataset"] = adata.obs["sample"].cat.codes.mod(2).astype(str)
    >>> sdr.tl.evaluate(adata, model=["pca", "hvg"], split="group", group_key="sample", baselines=False, n_boot=20)
    >>> sdr.pl.model_comparison(adata).get_xlabel()
    'mean rank of AUROC (1 is best)'
    """
    result = get._evaluation.evaluation(data, key_added, modality).get("comparison")
    if not result:
        msg = "A comparison needs at least two models and two data sets in one evaluation (see `dataset_key`)."
        raise ValueError(msg)
    ranks = result["ranks"].set_index("model").iloc[:, 0].sort_values()
    ax = new_axes(ax, 5.2, 1.2 + 0.3 * len(ranks))
    at = np.arange(len(ranks))[::-1]
    ax.hlines(at, 1, ranks, color="#DDDDDD", lw=1)
    ax.plot(ranks, at, "o", color=SERIES[0], ms=7)
    width = float(result["critical_difference"])
    if np.isfinite(width):
        for i, rank in enumerate(ranks):
            last = int(np.searchsorted(ranks.to_numpy(), rank + width, side="right")) - 1
            if last > i and (
                i == 0 or np.searchsorted(ranks.to_numpy(), ranks.iloc[i - 1] + width, side="right") - 1 < last
            ):
                ax.plot([rank, ranks.iloc[last]], [-0.8 - 0.25 * i] * 2, color="#222222", lw=3, solid_capstyle="round")
    ax.set(xlim=(0.8, len(ranks) + 0.2), yticks=at, xlabel="mean rank of AUROC (1 is best)")
    ax.set_yticklabels([pretty(name) for name in ranks.index], fontsize="small")
    title = f"{result['n_datasets']} data sets, critical difference {width:.2f}"
    p = float(result["friedman_p"])
    ax.set_title(title + (f", Friedman p = {p:.2g}" if np.isfinite(p) else ""), fontsize="medium")
    return ax


@doc_params(data=doc_data, modality=doc_modality)
def history(data: AnnData | MuData, *, modality: str = "rna", ax: Axes | None = None) -> Axes:
    """Draw the loss of each epoch of the latest training, and the held-out loss and AUROC.

    Parameters
    ----------
    {data}
    {modality}
    ax
        Axes to draw on.

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.history_df`.

    Raises
    ------
    KeyError
        Nothing was trained on these data.
    ValueError
        The latest training was of a frozen encoder, which has no epochs.

    Examples
    --------
    >>> import pandas as pd, sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=100)
    >>> row = dict(epoch=1, loss=0.7, held_out_loss=0.7, held_out_auroc=0.5)
    >>> adata.uns["train_response"] = dict(history=pd.DataFrame([row]))
    >>> sdr.pl.history(adata).get_xlabel()
    'epoch'
    """
    frame = get.history_df(data, modality=modality)
    if frame.empty:
        msg = "The latest training was of a frozen encoder, which has no epochs to draw."
        raise ValueError(msg)
    ax = new_axes(ax, 4.5, 3.4)
    ax.plot(frame["epoch"], frame["loss"], "o-", color=SERIES[0], label="training loss")
    if "held_out_loss" in frame:
        ax.plot(frame["epoch"], frame["held_out_loss"], "o-", color=SERIES[1], label="held-out loss")
        ax.plot(frame["epoch"], frame["held_out_auroc"], "o--", color=ACCENT, label="held-out AUROC")
    ax.set(xlabel="epoch", ylabel="loss, AUROC", xticks=frame["epoch"])
    ax.legend(frameon=False, fontsize="small")
    return ax
