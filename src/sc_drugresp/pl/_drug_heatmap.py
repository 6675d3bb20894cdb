"""`pl.drug_heatmap`: drugs by clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from matplotlib.patches import Patch

from .. import get
from .._core.arguments import checked
from .._core.docs import doc_params
from .._response.reference_groups import SEPARATOR
from ..get._read import RANKING
from ._style import PROBABILITY_CMAP, Z_LABEL, new_axes, short, width_of, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from .._core.kinds import Filled, PositiveInt, SlotName

NO_ANSWER = "#8F8F8F"
"""Darker than the middle of the scale."""


@doc_params()
@checked
def drug_heatmap(
    data: AnnData | MuData,
    n: PositiveInt = 30,
    *,
    drugs: Annotated[Sequence[str], Filled()] | None = None,
    key_added: SlotName | None = None,
    modality: str = "rna",
    ax: Axes | None = None,
) -> Axes:
    """Draw `z` of drugs in every group of cells; gray where there is no answer.

    Parameters
    ----------
    {data}
    n
        Number of drugs: those with the lowest mean over groups.
    drugs
        These drugs instead, in this order, named as in the ranking.
    {read_key}
    {modality}
    {ax}

    Returns
    -------
    The axes. The numbers are in :func:`~sc_drugresp.get.drug_ranking_df`.

    Raises
    ------
    KeyError
        There is no ranking of this name, or no such drug in it.
    ValueError
        No drug was named and none has an answer; the message says why.

    Examples
    --------
    {ranked}
    >>> sdr.pl.drug_heatmap(adata, n=5).images[0].get_array().shape
    (5, 2)
    """
    stored = RANKING.read(data, key_added, modality)
    table = get.drug_ranking_df(data, key_added=key_added, modality=modality)
    order = stored["groups"]["group"].astype(str).tolist()
    wide = table.astype({"drug": str, "group": str}).pivot(index="drug", columns="group", values="z")[order]
    if drugs is None:
        mean = wide.mean(axis=1).dropna()
        if mean.empty:
            reasons = "; ".join(str(reason) for reason in table["abstain_reason"].unique()[:3])
            msg = f"No drug has an answer in any group: {reasons}."
            raise ValueError(msg)
        wide = wide.loc[mean.nsmallest(n).index]
    else:
        absent = [drug for drug in drugs if drug not in wide.index]
        if absent:
            msg = f"No drug {str(absent[0])!r} (`drugs`) in the ranking. It holds {', '.join(map(repr, wide.index[:10]))} ..."
            raise KeyError(msg)
        wide = wide.loc[list(drugs)]
    values = np.ma.masked_invalid(wide.to_numpy(dtype=float))
    names = [short(name) for name in wide.index]
    samples = stored["groups"]["sample"].astype(str).unique()
    shown = [name.removeprefix(samples[0] + SEPARATOR) for name in order] if len(samples) == 1 else order
    shown = [short(name) for name in shown]
    ax = new_axes(ax, 2.2 + width_of(names) + 0.28 * len(order), 1.9 + 0.2 * len(names) + 0.7 * width_of(shown))
    limit = max(float(np.abs(values).max()), 1e-9) if values.count() else 1.0
    cmap = PROBABILITY_CMAP.reversed()  # a low z is sensitive
    cmap.set_bad(NO_ANSWER)
    image = ax.imshow(values, cmap=cmap, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(names)), names, fontsize="small", parse_math=False)
    ax.set_xticks(range(len(order)), shown, fontsize="small", rotation=90, parse_math=False)
    if shown != order:
        ax.set_xlabel(f"clones of {wrap(samples[0])}")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(
        image, ax=ax, label=Z_LABEL.replace(" (", "\n("), shrink=min(1.0, 8 / max(len(names), 1)), aspect=12
    )
    silent = int(np.ma.getmaskarray(values).sum())
    if silent:
        ax.legend(
            handles=[Patch(color=NO_ANSWER, label=f"no answer ({silent})")], frameon=False, fontsize="small",
            loc="lower left", bbox_to_anchor=(0, 1),
        )  # fmt: skip
    return ax
