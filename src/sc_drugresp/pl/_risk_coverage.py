"""`pl.risk_coverage`: what is gained by leaving uncertain cells uncalled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import PercentFormatter

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from ._style import GUIDE_COLOR, MODEL_COLOR, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import SlotName


@doc_params()
@checked
def risk_coverage(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Draw the error rate among called cells against the share of cells that are called, most certain first.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.risk_coverage_df`.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> sdr.pl.risk_coverage(adata).get_xlabel()
    'share of cells called'
    """
    frame = get.risk_coverage_df(data, key_added=key_added, modality=modality)
    ax = new_axes(ax, 4.5, 3.6)
    ax.plot(frame["coverage"], frame["risk"], color=MODEL_COLOR, lw=1.8, label="most certain cells first")
    total = float(frame["risk"].iloc[-1])
    ax.axhline(total, color=GUIDE_COLOR, lw=0.8, ls=":", label=f"all cells called: {total:.0%} wrong")
    ax.set(xlim=(0, 1), ylim=(0, max(0.55, float(frame["risk"].max()) * 1.05)))
    ax.set(xlabel="share of cells called", ylabel="share of calls that are wrong")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.legend(frameon=False, fontsize="small")
    return ax
