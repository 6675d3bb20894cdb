"""`pl.state_control`: what is left of a score without the treatment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import get
from .._core.docs import doc_data, doc_modality, doc_params
from ._style import NAIVE_COLOR, SERIES, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_NAMES = {
    "auroc": "response, as it is",
    "erased": "response, treatment erased",
    "pretreatment": "response, before treatment only",
    "treated": "treated cells, by the response score",
    "treated_erased": "treated cells, after erasure",
}


@doc_params(data=doc_data, modality=doc_modality)
def state_control(data: AnnData | MuData, *, modality: str = "rna", ax: Axes | None = None) -> Axes:
    """Draw the AUROC of the response as it is, with the treatment erased, and before treatment.

    Parameters
    ----------
    {data}
    {modality}
    ax
        Axes to draw on.

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.state_control_df`.

    Raises
    ------
    KeyError
        The control was not run.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=8, cells_per_sample=20, n_genes=100, timepoints=True)
    >>> sdr.tl.state_control(adata, "timepoint", "pre", model="pca", group_key="patient")
    >>> sdr.pl.state_control(adata).get_xlabel()
    'AUROC by cell'
    """
    frame = get.state_control_df(data, modality=modality).reindex(list(_NAMES))[::-1]
    ax = new_axes(ax, 5.6, 2.6)
    at = np.arange(len(frame))
    for row, (name, values) in zip(at, frame.iterrows()):
        color = NAIVE_COLOR if str(name).startswith("treated") else SERIES[0]
        if np.isfinite(values["value"]):
            error = np.nan_to_num([[values["value"] - values["low"]], [values["high"] - values["value"]]])
            ax.errorbar(values["value"], row, xerr=np.clip(error, 0, None), fmt="o", color=color, ms=5, lw=1.5)
        else:
            ax.text(0.5, float(row), "too few samples", ha="center", va="center", fontsize="small", color=color)
    ax.axvline(0.5, color="#777777", lw=0.8, ls=":")
    ax.set(xlim=(0, 1), ylim=(-0.6, len(frame) - 0.4), yticks=at, xlabel="AUROC by cell")
    ax.set_yticklabels([_NAMES[str(name)] for name in frame.index], fontsize="small")
    ax.set_title(f"verdict: {frame.attrs['verdict']}", fontsize="medium", loc="left")
    return ax
