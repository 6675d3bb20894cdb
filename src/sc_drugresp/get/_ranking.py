"""Frames behind the plots of drug rankings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import UNCERTAIN
from ._read import RANKING

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import PositiveInt, SlotName

RankingLevel = Literal["group", "sample"]
_OF_THE_DRUG = ("targets", "gain_over_tissue", "drug_r", "screen_agreement")
_SAMPLE_COLUMNS = [
    "drug", "targets", "sample", "rank", "z", "low", "high", "call", "worst_z", "worst_group", "tissue_mean_z",
    "gain_over_tissue", "drug_r", "screen_agreement", "n_groups", "n_groups_left_out", "n_cells",
]  # fmt: skip


@doc_params()
@checked
def drug_ranking_df(
    data: AnnData | MuData,
    group: str | None = None,
    n: PositiveInt | None = None,
    *,
    level: RankingLevel = "group",
    answered: bool = False,
    key_added: SlotName | None = None,
    modality: str = "rna",
) -> pd.DataFrame:
    """Get the ranking of :func:`~sc_drugresp.tl.rank_drugs`, the most sensitive drug of each group or sample first.

    Parameters
    ----------
    {data}
    group
        Only this group, or this sample if `level='sample'`.
    n
        Only the first drugs of each group, without abstentions.
    level
        `'group'`, or `'sample'` for the mean over the clones of each sample, weighted by their cells.
    answered
        Leave out abstentions.
    {read_key}
    {modality}

    Returns
    -------
    Columns `drug`, `targets`, `group`, `rank`, `z` (lower is more sensitive), `P` (P(sensitive)), `low`, `high` (90 % interval of
    `z`), `call`, `tissue_mean_z`, `gain_over_tissue`, `drug_r`, `screen_agreement`, `abstain_reason`. By sample, `sample` stands
    in place of `group`, without `P` and abstentions; `worst_z` and `worst_group` are the worst clone, shrunk to the mean;
    `low` and `high` take the errors of a drug as shared by all clones; a drug is called where all clones agree.

    Raises
    ------
    KeyError
        There is no ranking, or no group, of this name.
    ValueError
        Unknown level, or `n` is no positive number.

    Examples
    --------
    {ranked}
    >>> sdr.get.drug_ranking_df(adata, "S01", n=3)["rank"].tolist()
    [1.0, 2.0, 3.0]
    """
    stored = RANKING.read(data, key_added, modality)
    frame = stored["table"] if level == "group" else _by_sample(stored)
    if group is not None:
        known = stored["groups"]["group" if level == "group" else "sample"].astype(str).unique()
        if str(group) not in known:
            msg = f"No {level} {group!r} in the ranking. There are: {', '.join(map(repr, known[:20]))}."
            raise KeyError(msg)
        frame = frame[frame[level].astype(str) == str(group)]
    if n is not None or answered:
        frame = frame[frame["z"].notna()]
    if n is not None:
        frame = frame[frame["rank"] <= n]
    return frame.reset_index(drop=True)


def _by_sample(stored: dict[str, Any]) -> pd.DataFrame:
    """The ranking of each sample over its clones, with the limits and naive rows of the groups, weighted in the same way."""
    table, groups = stored["table"], stored["groups"].astype({"group": str}).set_index("group")
    samples = stored["samples"].rename(columns={"mean_z": "z"})
    if samples.empty:
        return pd.DataFrame(columns=_SAMPLE_COLUMNS)
    rows = table[table["z"].notna()].astype({"group": str, "drug": str, "call": str})
    names = ["low", "high", "tissue_mean_z"]
    weight = groups["n_cells"].reindex(rows["group"]).to_numpy(dtype=float)
    rows = rows.assign(sample=groups["sample"].reindex(rows["group"]).astype(str).to_numpy(), weight=weight)
    rows[names] = rows[names].mul(weight, axis=0)
    by = rows.groupby(["sample", "drug"], sort=False)
    found = by[names].sum(min_count=1).div(by["weight"].sum(), axis=0)
    found["call"] = np.where(by["call"].nunique() == 1, by["call"].first(), UNCERTAIN)
    found = found.join(rows.drop_duplicates("drug").set_index("drug")[list(_OF_THE_DRUG)], on="drug")
    out = samples.astype({"sample": str, "drug": str}).merge(found.reset_index(), on=["sample", "drug"], how="left")
    out["rank"] = out.groupby("sample")["z"].rank(method="first")
    return out.sort_values(["sample", "rank"], kind="stable")[_SAMPLE_COLUMNS]
