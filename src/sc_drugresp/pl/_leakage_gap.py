"""`pl.leakage_gap`: what a random split of cells adds to a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from ..get._names import RANDOM_CELLS, STRICT, model_names, protocol_name
from ..get._read import EVALUATION
from ._style import GUIDE_COLOR, legend_below, model_colors, name_rows, new_axes, row_texts, short

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import SlotName


@doc_params()
@checked
def leakage_gap(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Join the AUROC of a random split of cells (open) with that of held-out samples (filled), one row per model.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.leakage_gap_df`.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> sdr.pl.leakage_gap(adata).get_xlabel()
    'AUROC by cell'
    """
    frame = get.leakage_gap_df(data, key_added=key_added, modality=modality).dropna(subset=["pooled"])
    params = EVALUATION.read(data, key_added, modality)["params"]
    names = model_names(frame["model"])
    colors = model_colors(frame["kind"])
    ax = new_axes(ax, 6.4, 1.2 + 0.3 * len(frame))
    at = name_rows(ax, [short(names[name]) for name in frame["model"]])
    strict, random = frame["leave_group_out"], frame["pooled"]
    ax.hlines(at, strict, random, colors=colors, lw=1.5)
    ax.scatter(random, at, s=32, c="white", edgecolors=colors, zorder=2, label=protocol_name(RANDOM_CELLS, params))
    if strict.notna().any():
        ax.scatter(strict, at, s=32, c=colors, zorder=3, label=protocol_name(STRICT, params))
    row_texts(ax, [f"{gap:+.2f}" if np.isfinite(gap) else "nothing held out" for gap in frame["gap"]])
    ax.axvline(0.5, color=GUIDE_COLOR, lw=0.8, ls=":", zorder=0)
    ax.set(xlabel="AUROC by cell")
    ax.set_title("leakage gap (random split minus held out)", fontsize="medium")
    legend_below(ax, ncols=2)
    return ax
