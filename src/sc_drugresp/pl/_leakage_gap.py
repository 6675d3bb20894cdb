"""`pl.leakage_gap`: what a random split of cells adds to a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import get
from .._core.docs import doc_params
from ..get._names import RANDOM_CELLS, STRICT, model_names, protocol_name
from ..get._read import EVALUATION
from ._style import MODEL_COLOR, NAIVE_COLOR, guide, legend_below, name_rows, new_axes, row_text

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


@doc_params()
def leakage_gap(
    data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna", ax: Axes | None = None
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
    colors = [MODEL_COLOR if kind == "model" else NAIVE_COLOR for kind in frame["kind"]]
    at = np.arange(len(frame))[::-1]
    ax = new_axes(ax, 6.4, 1.2 + 0.3 * len(frame))
    ax.hlines(at, frame["leave_group_out"], frame["pooled"], colors=colors, lw=1.5)
    ax.scatter(
        frame["pooled"],
        at,
        s=32,
        facecolors="white",
        edgecolors=colors,
        zorder=2,
        label=protocol_name(RANDOM_CELLS, params),
    )
    strict = frame["leave_group_out"]
    if strict.notna().any():
        ax.scatter(strict, at, s=32, c=colors, zorder=3, label=protocol_name(STRICT, params))
    for y, gap in zip(at, frame["gap"]):
        row_text(ax, y, f"{gap:+.2f}" if np.isfinite(gap) else "nothing held out")
    guide(ax, 0.5)
    name_rows(ax, [names[name] for name in frame["model"]])
    ax.set(xlabel="AUROC by cell")
    ax.set_title("leakage gap (random split minus held out)", fontsize="medium")
    legend_below(ax, ncols=2)
    return ax
