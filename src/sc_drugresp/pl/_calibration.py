"""`pl.calibration`: whether probabilities mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from ..get._names import protocol_name
from ..get._read import EVALUATION
from ._style import GUIDE_COLOR, MODEL_COLOR, PROBABILITY_LABEL, legend_below, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import Bins, SlotName


@doc_params()
@checked
def calibration(
    data: AnnData | MuData,
    *,
    n_bins: Bins = 10,
    key_added: SlotName | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes:
    """Draw the observed share of sensitive cells against the calibrated probability in held-out samples.

    Calibrators were fitted to other samples, so that the plot shows what users of the model get.

    Parameters
    ----------
    {data}
    n_bins
        Largest number of bins; the bins have equal weight.
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.calibration_df`.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> sdr.pl.calibration(adata).get_ylabel()
    'observed share of sensitive cells'
    """
    frame = get.calibration_df(data, n_bins=n_bins, key_added=key_added, modality=modality)
    params = EVALUATION.read(data, key_added, modality)["params"]
    ax = new_axes(ax, 4.2, 4.4)
    ax.plot([0, 1], [0, 1], color=GUIDE_COLOR, lw=0.8, ls=":", label="perfect calibration")
    label = f"{protocol_name(params['prob_protocol'], params)}, 90 % interval over samples"
    ax.vlines(frame["predicted"], frame["observed_low"], frame["observed_high"], color=MODEL_COLOR, lw=1.4)
    ax.plot(frame["predicted"], frame["observed"], "o-", color=MODEL_COLOR, lw=1.4, ms=5, label=label)
    gap = float((frame["weight"] * (frame["predicted"] - frame["observed"]).abs()).sum())
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set(xlabel=f"predicted {PROBABILITY_LABEL}", ylabel="observed share of sensitive cells")
    ax.set_title(f"calibration, mean gap {gap:.2f}", fontsize="medium")
    legend_below(ax)
    return ax
