"""`pl.split_design`: which columns say the same thing as the label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Patch, Rectangle

from .. import get
from .._core.docs import doc_data, doc_key_added, doc_modality, doc_params
from .._core.keys import RESISTANT, SENSITIVE
from ._style import COLORS, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_COUNTS = ("n_cells", "n_sensitive", "n_resistant", "n_unlabeled")
_MAX_ROWS = 60


@doc_params(data=doc_data, key_added=doc_key_added, modality=doc_modality)
def split_design(
    data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Draw the design as tiles: one row per sample, one column per factor, and the share of sensitive cells.

    A column whose tiles change only where the label changes is aliased with it: a model may learn that factor instead.

    Parameters
    ----------
    {data}
    {key_added}
    {modality}
    ax
        Axes to draw on.

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.split_design_df`; beyond 60 rows the largest are drawn.

    Raises
    ------
    KeyError
        Nothing was evaluated.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
    >>> sdr.tl.evaluate(adata, model="pca", baselines=False, n_boot=20, n_permutations=0)
    >>> [tick.get_text() for tick in sdr.pl.split_design(adata).get_xticklabels()][-1]
    'label'
    """
    frame = get.split_design_df(data, key_added=key_added, modality=modality)
    result = get._evaluation.evaluation(data, key_added, modality)
    frame = frame.nlargest(_MAX_ROWS, "n_cells") if len(frame) > _MAX_ROWS else frame
    labeled = (frame["n_sensitive"] + frame["n_resistant"]).to_numpy()
    share = frame["n_sensitive"].to_numpy() / np.maximum(labeled, 1)
    frame, share = frame.iloc[np.argsort(-share, kind="stable")], np.sort(share)[::-1]
    roles = [name for name in frame.columns if name not in _COUNTS]
    ax = new_axes(ax, 1.8 + 1.0 * (len(roles) + 1), 1.4 + 0.24 * len(frame))
    for x, role in enumerate(roles):
        levels = {name: i for i, name in enumerate(frame[role].unique())}
        for row, name in enumerate(frame[role]):
            tint = 0.93 - 0.38 * (levels[name] / max(len(levels) - 1, 1))
            ax.add_patch(_tile(x, row, (tint, tint, tint)))
            ax.text(x + 0.5, row + 0.5, str(name)[:12], ha="center", va="center", fontsize="x-small")
    for row, (value, n) in enumerate(zip(share, frame["n_cells"])):
        x = len(roles)
        ax.add_patch(_tile(x, row, COLORS[RESISTANT]))
        ax.add_patch(_tile(x, row, COLORS[SENSITIVE], width=value))
        ax.text(x + 0.5, row + 0.5, f"n={n}", ha="center", va="center", fontsize="x-small", color="white")
    ax.set(xlim=(0, len(roles) + 1), ylim=(len(frame), 0), yticks=[])
    ax.set_xticks(np.arange(len(roles) + 1) + 0.5, [*roles, "label"], fontsize="small")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_title(f"verdict: {result['verdict']['code']}", fontsize="medium", loc="left")
    handles = [Patch(color=COLORS[name], label=name) for name in (SENSITIVE, RESISTANT)]
    ax.legend(handles=handles, frameon=False, fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return ax


def _tile(x: float, row: int, color: Any, width: float = 1.0) -> Rectangle:
    return Rectangle((x, row), width, 1, facecolor=color, edgecolor="white", lw=1)
