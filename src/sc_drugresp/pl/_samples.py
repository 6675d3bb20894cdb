"""`pl.samples`: a forest plot of samples or patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import CALL_CLASSES, COLORS
from ..get._read import PREDICTION
from ._style import PROBABILITY_LABEL, forest, legend_below, new_axes, short

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import SlotName

Score = Literal["mean", "worst"]
_TITLES = {"mean": "mean of the cells", "worst": "worst clone"}


@doc_params()
@checked
def samples(
    data: AnnData | MuData,
    *,
    score: Score = "mean",
    label_key: str | None = "response",
    key_added: SlotName | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes:
    """Draw P(sensitive) of each sample with its interval, ordered by score.

    Colors are the calls of :func:`~sc_drugresp.tl.aggregate`, made by the score that was chosen there.

    Parameters
    ----------
    {data}
    score
        `'mean'` of the cells, or the `'worst'` clone.
    {label_key}
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.samples_df`.

    Raises
    ------
    KeyError
        Samples have not been aggregated yet.
    ValueError
        There is no such score.

    Examples
    --------
    {predicted}
    >>> sdr.tl.aggregate(adata, "patient")
    >>> ax = sdr.pl.samples(adata)
    >>> ax.get_xlabel()
    'P(sensitive)'
    """
    frame = get.samples_df(data, label_key=label_key, key_added=key_added, modality=modality)
    frame = frame.sort_values(score, ascending=False)
    scores = frame.rename(columns={score: "value", f"{score}_low": "low", f"{score}_high": "high"})
    names = [f"{short(name)} (n={n})" for name, n in zip(frame.index, frame["n_cells"])]
    ax = new_axes(ax, 5.4, 1.4 + 0.24 * len(frame))
    at = forest(ax, scores, names, [COLORS[call] for call in frame["call"]])
    for call in CALL_CLASSES:
        if (frame["call"] == call).any():
            ax.plot([], [], "o-", color=COLORS[call], ms=5, label=f"called {call}")
    if "label" in frame:
        tints = [COLORS.get(label, "none") for label in frame["label"]]
        ax.scatter(np.full(len(frame), 1.05), at, marker="s", s=28, c=tints, clip_on=False)
        ax.annotate("label", (1.05, 1), xycoords="axes fraction", ha="center", va="bottom", fontsize="small")
    ax.set(xlim=(0, 1), xlabel=PROBABILITY_LABEL)
    legend_below(ax, ncols=3)
    title = f"{_TITLES[score]}; interval over {' / '.join(sorted(frame['interval'].unique()))}"
    called_by = PREDICTION.read(data, key_added, modality).get("call_score", score)
    if called_by != score:
        title += f"\ncalls by the {_TITLES[called_by]}"
    ax.set_title(title, fontsize="medium")
    return ax
