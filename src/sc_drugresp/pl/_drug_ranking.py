"""`pl.drug_ranking`: the drugs of one group or sample, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import CALL_CLASSES, COLORS
from ..get._read import RANKING
from ._style import NAIVE_COLOR, Z_LABEL, forest, legend_below, new_axes, short, width_of, wrap

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import PositiveInt, SlotName
    from ..get._ranking import RankingLevel


@doc_params()
@checked
def drug_ranking(
    data: AnnData | MuData,
    group: str | None = None,
    n: PositiveInt = 20,
    *,
    level: RankingLevel = "group",
    key_added: SlotName | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes:
    """Draw the drugs to which a group of cells or a sample should be most sensitive, with 90 % intervals.

    A gray tick is the mean of cell lines of the stated tissue: what one would say without looking at the cells. The title counts
    the drugs without an answer.

    Parameters
    ----------
    {data}
    group
        The group, or the sample if `level='sample'`. `None` takes the largest one that has an answer.
    n
        Largest number of drugs.
    level
        `'group'`, or `'sample'` for the mean over the clones of a sample.
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.drug_ranking_df`.

    Raises
    ------
    KeyError
        There is no ranking, or no group, of this name.
    ValueError
        The group has no answer for any drug; the message says why.

    Examples
    --------
    {ranked}
    >>> ax = sdr.pl.drug_ranking(adata, "S01")
    >>> len(ax.get_yticklabels())
    20
    """
    options: dict[str, Any] = {"level": level, "key_added": key_added, "modality": modality}
    stored = RANKING.read(data, key_added, modality)
    every = get.drug_ranking_df(data, group, answered=True, **options)
    if every.empty:
        raise ValueError(_why_none(stored["groups"], group, level))
    if group is None:
        cells = stored["groups"].astype({level: str}).groupby(level)["n_cells"].sum()
        group = cells[cells.index.isin(every[level].astype(str))].idxmax()
        every = every[every[level].astype(str) == group]
    frame = every.nsmallest(n, "rank").rename(columns={"z": "value"})
    names = [short(drug) for drug in frame["drug"]]
    ax = new_axes(ax, 3.6 + width_of(names), 1.5 + 0.24 * len(frame))
    at = forest(ax, frame, names, [COLORS[str(call)] for call in frame["call"]], chance=0)
    ax.plot(frame["tissue_mean_z"], at, "|", color=NAIVE_COLOR, ms=11, mew=2, zorder=3)
    for call in CALL_CLASSES:
        if (frame["call"].astype(str) == call).any():
            ax.plot([], [], "o-", color=COLORS[call], ms=5, label=call)
    if frame["tissue_mean_z"].notna().any():
        ax.plot([], [], "|", color=NAIVE_COLOR, ms=9, mew=2, label="mean of the tissue")
    ax.set_xlabel(Z_LABEL)
    legend_below(ax, ncols=2)
    silent = stored["table"]["drug"].nunique() - len(every)
    lines = [wrap(str(group)), f"{len(frame)} of {len(every)} drugs with an answer; {silent} without one"]
    if not np.isfinite(frame["low"]).any():
        lines.append("no interval: the platform is not known")
    ax.set_title("\n".join(lines), fontsize="medium")
    return ax


def _why_none(groups: pd.DataFrame, group: str | None, level: str) -> str:
    own = groups if group is None else groups[groups[level].astype(str) == str(group)]
    reasons = [str(reason) for reason in own["abstain_reason"].unique() if reason]
    where = "" if group is None else f" in {level} {group!r}"
    why = "; ".join(reasons) or "none of the drugs that were asked for can be predicted"
    return f"No drug has an answer{where}: {why}."
