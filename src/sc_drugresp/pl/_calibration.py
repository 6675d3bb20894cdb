"""`pl.calibration` and `pl.risk_coverage`: whether probabilities mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import get
from .._core.docs import doc_data, doc_key_added, doc_modality, doc_params
from ._style import PROBABILITY_LABEL, SERIES, new_axes, percent_axis

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def calibration(
    data: AnnData | MuData,
    *,
    n_bins: int = 10,
    key_added: str | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes:
    """Draw the observed share of sensitive cells against the predicted probability in held-out samples.

    Parameters
    ----------
    {data}
    n_bins
        Most bins of equal weight.
    {key_added}
    {modality}
    ax
        Axes to draw on.

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.calibration_df`.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> sdr.pl.calibration(adata).get_ylabel()
    'observed share of sensitive cells'
    """
    frame = get.calibration_df(data, n_bins=n_bins, key_added=key_added, modality=modality)
    ax = new_axes(ax, 4.2, 4.0)
    ax.plot([0, 1], [0, 1], color="#777777", lw=0.8, ls=":")
    error = np.nan_to_num(
        np.clip([frame["observed"] - frame["observed_low"], frame["observed_high"] - frame["observed"]], 0, None)
    )
    ax.errorbar(frame["predicted"], frame["observed"], yerr=error, fmt="o-", color=SERIES[0], lw=1.4, ms=5)
    gap = float((frame["weight"] * (frame["predicted"] - frame["observed"]).abs()).sum())
    ax.text(0.03, 0.94, f"mean gap {gap:.2f}\n90 % limits over samples", fontsize="small", va="top")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set(xlabel=f"predicted {PROBABILITY_LABEL}", ylabel="observed share of sensitive cells")
    ax.set_title("calibration in held-out samples", fontsize="medium")
    return ax


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def risk_coverage(
    data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Draw the error among called cells against the share of cells that are called, most certain first.

    Parameters
    ----------
    {data}
    {key_added}
    {modality}
    ax
        Axes to draw on.

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.risk_coverage_df`.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> sdr.pl.risk_coverage(adata).get_xlabel()
    'share of cells called'
    """
    frame = get.risk_coverage_df(data, key_added=key_added, modality=modality)
    ax = new_axes(ax, 4.5, 3.6)
    ax.plot(frame["coverage"], frame["risk"], color=SERIES[0], lw=1.8, label="most certain first")
    total = float(frame["risk"].iloc[-1])
    ax.axhline(total, color="#777777", lw=0.8, ls=":", label=f"all cells called: {total:.0%} wrong")
    ax.set(xlim=(0, 1), ylim=(0, max(0.55, float(frame["risk"].max()) * 1.05)))
    ax.set(xlabel="share of cells called", ylabel="share of calls that are wrong")
    percent_axis(ax, "x")
    percent_axis(ax, "y")
    ax.legend(frameon=False, fontsize="small")
    return ax
