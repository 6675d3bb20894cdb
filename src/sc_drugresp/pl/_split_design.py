"""`pl.split_design`: which columns say the same thing as the label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import COLORS, RESPONSE_CLASSES
from ..get._read import EVALUATION
from ._style import PROBABILITY_CMAP, new_axes, short, wrap

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import SlotName

_COUNTS = ("n_cells", "n_sensitive", "n_resistant", "n_unlabeled", "share")
_MAX_ROWS = 60
_WRAP = 24
"""Longest line in a tile, in letters; longer names are wrapped, never cut."""


@doc_params()
@checked
def split_design(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna", ax: Axes | None = None
) -> Axes:
    """Draw the design as tiles: one row per sample, one column per factor, and the label.

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
    >>> sdr.pl.split_design(adata).get_title(loc="left")
    'verdict: UNDERPOWERED'
    """
    result = EVALUATION.read(data, key_added, modality)
    every = get.split_design_df(data, key_added=key_added, modality=modality)
    frame = every.nlargest(_MAX_ROWS, "n_cells") if len(every) > _MAX_ROWS else every
    share = frame["n_sensitive"] / (frame["n_sensitive"] + frame["n_resistant"]).clip(lower=1)
    frame = frame.assign(share=share).sort_values("share", ascending=False, kind="stable")
    aliased = set(result["aliasing"].query("aliased")["role"])
    columns = [column for column in frame if column not in _COUNTS]
    titles = [f"{short(column)}\n(aliased)" if column in aliased else short(column) for column in columns]
    texts = [[wrap(value, _WRAP) for value in frame[column]] for column in columns]
    tints = [_grays(frame[column].astype("category").cat.codes.to_numpy()) for column in columns]
    titles.append("label")
    texts.append([f"n={n}" for n in frame["n_cells"]])
    tints.append(PROBABILITY_CMAP(frame["share"].to_numpy()))
    letters = np.array(
        [2 + max(len(line) for text in [t, *c] for line in text.split("\n")) for t, c in zip(titles, texts)]
    )
    lines = 1 + max(text.count("\n") for column in texts for text in column)
    ax = new_axes(ax, 0.095 * letters.sum(), 0.9 + (0.1 + 0.14 * lines) * (len(frame) + 1))
    table = ax.table(  # shrinks its text until it fits, if the axes are somebody else's
        cellText=list(zip(*texts)),
        cellColours=list(zip(*tints)),
        colLabels=titles,
        colWidths=list(letters / letters.sum()),
        cellLoc="center",
        bbox=Bbox.unit(),
    )
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("white")
        cell.get_text().set_color("white" if row and column == len(columns) else "black")
    ax.axis("off")
    more = f", the {len(frame)} largest of {len(every)} rows" if len(every) > len(frame) else ""
    ax.set_title(f"verdict: {result['verdict']['code']}{more}", fontsize="medium", loc="left")
    handles = [Patch(color=COLORS[name], label=name) for name in RESPONSE_CLASSES]
    ax.legend(handles=handles, frameon=False, fontsize="small", loc="upper right", bbox_to_anchor=(1, 0), ncols=2)
    return ax


def _grays(codes: np.ndarray) -> np.ndarray:
    """A gray for each level, none too dark for black text."""
    return np.repeat(0.95 - 0.35 * (codes / max(codes.max(), 1))[:, None], 3, axis=1)
