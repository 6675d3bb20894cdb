"""`pl.split_design`: which columns say the same thing as the label."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Patch, Rectangle

from .. import get
from .._core.docs import doc_params
from .._core.keys import COLORS, RESISTANT, RESPONSE_CLASSES, SENSITIVE
from ..get._read import EVALUATION
from ._style import new_axes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_COUNTS = ("n_cells", "n_sensitive", "n_resistant", "n_unlabeled")
_MAX_ROWS = 60
_WRAP = 24
"""Longest line in a tile, in letters; longer names are wrapped, never cut."""
_LETTER, _LINE = 0.075, 0.14
"""Inches that a letter is wide and a line is high, at the size of the text in a tile."""
_FONT = 7.0


@doc_params()
def split_design(
    data: AnnData | MuData, *, key_added: str | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Draw the design as tiles: one row per sample, one column per factor, and the share of sensitive cells.

    A factor that changes only where the label changes is marked as aliased: a model may learn that factor instead.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.split_design_df`; beyond 60 rows the largest are drawn.

    Raises
    ------
    {no_evaluation}

    Examples
    --------
    {evaluated}
    >>> [tick.get_text() for tick in sdr.pl.split_design(adata).get_xticklabels()][-1]
    'label'
    """
    result = EVALUATION.read(data, key_added, modality)
    every = get.split_design_df(data, key_added=key_added, modality=modality)
    frame = every.nlargest(_MAX_ROWS, "n_cells") if len(every) > _MAX_ROWS else every
    share: pd.Series = frame["n_sensitive"] / np.maximum(frame["n_sensitive"] + frame["n_resistant"], 1)
    order = np.argsort(-share.to_numpy(), kind="stable")
    frame, share = frame.iloc[order], share.iloc[order]
    roles = [name for name in frame.columns if name not in _COUNTS]
    texts = [[textwrap.fill(str(value), _WRAP) for value in frame[role]] for role in roles]
    aliased = set(result["aliasing"].query("aliased")["role"])
    titles = [f"{role}\n(aliased)" if role in aliased else role for role in roles]
    widths = [_width([*column, *title.split("\n")]) for column, title in zip(texts, titles)]
    lines = max((text.count("\n") + 1 for column in texts for text in column), default=1)
    edges = np.concatenate([[0], np.cumsum([*widths, 0.9])])
    height = 0.1 + _LINE * lines
    size: dict[str, Any] = {"fontsize": _FONT, "ha": "center", "va": "center"}
    if ax is not None:  # somebody else's axes may be too small for full-size text
        box = ax.get_window_extent()
        size["fontsize"] *= min(
            1, box.width / ax.figure.dpi / edges[-1], box.height / ax.figure.dpi / height / len(frame)
        )
    ax = new_axes(ax, edges[-1] + 0.4, 1.0 + height * len(frame))
    for left, width, role, column in zip(edges, widths, roles, texts):
        levels = {name: i for i, name in enumerate(frame[role].unique())}
        for row, (value, text) in enumerate(zip(frame[role], column)):
            tint = 0.93 - 0.38 * (levels[value] / max(len(levels) - 1, 1))
            ax.add_patch(_tile(left, row, width, (tint, tint, tint)))
            ax.text(left + width / 2, row + 0.5, text, **size)
    for row, (value, n) in enumerate(zip(share, frame["n_cells"])):
        ax.add_patch(_tile(edges[-2], row, 0.9, COLORS[RESISTANT]))
        ax.add_patch(_tile(edges[-2], row, 0.9 * value, COLORS[SENSITIVE]))
        ax.text(edges[-2] + 0.45, row + 0.5, f"n={n}", color="white", weight="bold", **size)
    ax.set(xlim=(0, edges[-1]), ylim=(len(frame), 0), yticks=[])
    ax.set_xticks((edges[:-1] + edges[1:]) / 2, [*titles, "label"], fontsize=size["fontsize"] + 1)
    ax.xaxis.tick_top()
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    more = f", the {len(frame)} largest of {len(every)} rows" if len(every) > len(frame) else ""
    ax.set_title(f"verdict: {result['verdict']['code']}{more}", fontsize="medium", loc="left")
    handles = [Patch(color=COLORS[name], label=name) for name in RESPONSE_CLASSES]
    ax.legend(handles=handles, frameon=False, fontsize="small", loc="upper right", bbox_to_anchor=(1, 0), ncols=2)
    return ax


def _width(texts: list[str]) -> float:
    """Inches that the longest line needs."""
    return 0.25 + _LETTER * max(len(line) for text in texts for line in text.split("\n"))


def _tile(x: float, row: int, width: float, color: Any) -> Rectangle:
    return Rectangle((x, row), width, 1, facecolor=color, edgecolor="white", lw=1)
