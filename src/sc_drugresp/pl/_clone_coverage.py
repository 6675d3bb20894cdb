"""`pl.clone_coverage`: which clones single drugs and pairs of drugs reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.patches import Patch

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from .._response.reference_groups import SEPARATOR
from ..get._read import RANKING
from ._style import SERIES, legend_below, name_rows, new_axes, row_texts, short, width_of, wrap

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import PositiveInt, SlotName

QUARTER = -0.6745
"""Where the lowest quarter of a normal distribution of spread 1 ends."""
_REST, OTHERS_COLOR = "other clones", "#CFCFCF"


@doc_params()
@checked
def clone_coverage(
    data: AnnData | MuData,
    sample: str | None = None,
    n: PositiveInt = 5,
    *,
    below: float | None = None,
    key_added: SlotName | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes:
    """Draw the share of the cells of a sample that lie in clones which the best drugs and pairs of drugs reach.

    A drug reaches a clone if the clone lies in the quarter of cell lines that are predicted to respond most; a pair reaches what
    either drug reaches. No synergy is modelled.

    Parameters
    ----------
    {data}
    sample
        The sample. `None` takes the largest one that has an answer.
    n
        Number of single drugs, and of pairs if the ranking was made with `combine=2`: those with the lowest mean over clones.
    below
        `z` below which a clone is reached, for all drugs; 0 is the mean over the lines of the screen, and 1 their spread. `None`
        takes the lowest quarter of predictions: predictions of a ridge regression spread less than responses, by about the
        held-out correlation `drug_r`, so that their lowest quarter ends at `-0.67 * drug_r` (-0.27 at a correlation of 0.4).
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.drug_ranking_df` and, for pairs, in `.uns['drug_ranking']['pairs']`.

    Raises
    ------
    KeyError
        There is no ranking, or no sample, of this name.
    ValueError
        No drug has an answer in the sample.

    Examples
    --------
    {ranked}
    >>> ax = sdr.pl.clone_coverage(adata, n=3)
    >>> len(ax.get_yticklabels())
    3
    """
    stored = RANKING.read(data, key_added, modality)
    single = get.drug_ranking_df(data, sample, n, level="sample", key_added=key_added, modality=modality)
    if single.empty:
        msg = f"No drug has an answer{'' if sample is None else f' in sample {sample!r}'}, so no clone is reached."
        raise ValueError(msg)
    if sample is None:
        sample = str(single["sample"].iloc[int(single["n_cells"].to_numpy().argmax())])
        single = single[single["sample"] == sample]
    z, share = _clones(stored, str(sample))
    beyond = z.sub(_limits(stored, below), axis=0)
    rows: list[tuple[str, ...]] = [(str(drug),) for drug in single["drug"]]
    pairs = stored.get("pairs")
    if pairs is not None and len(pairs):
        best = pairs[pairs["sample"].astype(str) == sample].nsmallest(n, "mean_z")
        rows += [(str(a), str(b)) for a, b in zip(best["drug_1"], best["drug_2"])]
    names = ["\n+ ".join(map(short, row)) for row in rows]
    lines = 2 if len(rows) > len(single) else 1
    ax = new_axes(ax, 3.8 + width_of(names), 1.6 + 0.22 * lines * len(rows))
    at = name_rows(ax, names)
    colors = dict(zip(share.index, SERIES[:-1]))  # the last one is gray, as other clones are
    covered = []
    for y, row in zip(at, rows):
        reached = (beyond.loc[list(row)].min() < 0) & (share > 0)
        left = 0.0
        for clone in share.index[reached.to_numpy()]:
            ax.barh(y, share[clone], left=left, color=colors.get(clone, OTHERS_COLOR), edgecolor="white", height=0.62)
            left += share[clone]
        covered.append(f"{left:.0%}")
    row_texts(ax, covered)
    parts = {
        f"{str(clone).removeprefix(sample + SEPARATOR)} ({share[clone]:.0%})": color for clone, color in colors.items()
    }
    others = share.iloc[len(colors) :]
    if len(others):
        parts[f"{len(others)} {_REST} ({others.sum():.0%})"] = OTHERS_COLOR
    shown = [Patch(color=color, label=wrap(name)) for name, color in parts.items()]
    ax.set(xlim=(0, 1), xlabel="share of the cells, in clones " + _where(below))
    legend_below(ax, handles=shown, ncols=1 if width_of(map(wrap, parts)) > 2.2 else 2)
    silent = int((stored["groups"]["sample"].astype(str) == sample).sum()) - len(share)
    what = "best drugs and pairs, no synergy modelled" if len(rows) > len(single) else "best drugs, no synergy modelled"
    left_out = [f"{silent} clones without an answer left out"] if silent else []
    ax.set_title("\n".join([wrap(sample), what, *left_out]), fontsize="medium")
    return ax


def _limits(stored: dict[str, Any], below: float | None) -> pd.Series:
    """`z` below which a drug reaches a clone, by drug."""
    skill = stored["table"].astype({"drug": str}).drop_duplicates("drug").set_index("drug")["drug_r"].astype(float)
    return skill * QUARTER if below is None else skill * 0 + below


def _where(below: float | None) -> str:
    return f"with z below {below:g}" if below is not None else "in the lowest quarter of predicted z"


def _clones(stored: dict[str, Any], sample: str) -> tuple[pd.DataFrame, pd.Series]:
    """`z`, drugs by clones, and the share of the cells of each clone with an answer, the largest first."""
    groups = stored["groups"].astype({"group": str, "sample": str}).set_index("group")
    table = stored["table"].astype({"drug": str, "group": str})
    table = table[table["z"].notna() & table["group"].isin(groups.index[groups["sample"] == sample])]
    z = table.pivot(index="drug", columns="group", values="z")
    cells = groups.loc[z.columns, "n_cells"].astype(float).sort_values(ascending=False, kind="stable")
    return z[cells.index], cells / cells.sum()
