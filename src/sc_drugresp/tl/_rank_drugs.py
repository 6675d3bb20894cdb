"""`tl.rank_drugs`: which drugs of a screen a tumor should respond to, clone by clone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import DrugRankingKeys
from .._core.log import logger
from .._core.rng import Rng, seed_of
from .._data.modalities import Target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import Filled, SlotName
    from .._response.reference_answers import ReferenceLike


@doc_params()
@checked
def rank_drugs(
    data: AnnData | MuData | str | PathLike[str],
    *,
    groupby: str | None = None,
    sample_key: str | None = None,
    combine: Literal[2] | None = None,
    drugs: Annotated[Sequence[str], Filled()] | None = None,
    combinations: bool = False,
    reference: ReferenceLike = None,
    malignant_key: str | None = None,
    cancer: str | None = None,
    chemistry: str | None = None,
    layer: str | None = None,
    key_added: SlotName | None = None,
    modality: str = "rna",
    rng: Rng = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Rank the drugs of a screen for each cluster or clone of malignant cells, and for each sample. No labels are needed.

    The cells of a group are added up, standardized, moved by the shift of the platform and given to one ridge regression per
    drug that was fitted to cell lines. Over the clones of a sample the mean by abundance ranks the drugs, and the worst
    clone, shrunk to the mean, stands beside it. Drugs and groups for which expression cannot tell get a reason instead of
    a number. How good that is, and how much of it the tissue alone would give, is in :doc:`/benchmarks/reference`.

    Parameters
    ----------
    {cells}
    groupby
        Column of `.obs` with clusters or clones. `None` clusters the cells by Leiden (scanpy); nothing of that is written.
    sample_key
        Column of `.obs` with the sample. `None` takes `groupby` if it is one of the usual names (`patient`, `sample`, ...), and
        the first of these without `groupby`; else all groups are clones of one tumor.
    combine
        2 also ranks pairs of drugs by the clones that they cover, if they cover more than the better drug alone; no synergy is
        modelled.
    drugs
        Rank these drugs alone, named in any spelling; `None` takes all of the reference.
    combinations
        Also rank the mixtures of several drugs that a screen has measured. They are left out unless asked for here or named in
        `drugs`: a mixture mostly ranks by its stronger part.
    {reference}
    {malignant_key}
    {cancer}
    {chemistry}
    {layer}
    {key_added}
    {modality}
    {rng}
    {copy}

    Returns
    -------
    `None`, the changed copy if `copy=True`, or the opened object if `data` is a path. Sets the following fields:

    `.uns['drug_ranking' | key_added]` : :class:`dict`
        `table` (drug, targets, group, rank, z, P, low, high, call, tissue_mean_z, gain_over_tissue, drug_r, screen_agreement,
        abstain_reason; a lower `z` means more sensitive, `low` and `high` are its 90 % interval), `samples` (`mean_z`,
        `worst_z` and `worst_group` of each drug), `pairs` with `combine=2`, `groups`, `reference`, `statement`, `warnings`,
        `params`. See :func:`~sc_drugresp.get.drug_ranking_df`.
    `.obsm['drug_scores' | key_added + '_scores']` : :class:`numpy.ndarray` (dtype `float32`)
        `z` of the group of each cell, one column for each of `.uns['drug_ranking']['drugs']`; NaN where there is no answer. With
        500 drugs these are 2 kB a cell: name `drugs` where there are millions of cells.

    Raises
    ------
    KeyError
        A column does not exist.
    FileNotFoundError
        There is no such file.
    ValueError
        There is no such drug, cancer or reference, no malignant cell, or no gene of the reference.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=2)
    >>> sdr.tl.rank_drugs(adata, groupby="sample", cancer="breast", chemistry="dropseq")
    >>> adata.uns["drug_ranking"]["table"]["group"].nunique()
    2
    """
    seed, target = seed_of(rng), Target(data, modality, copy, key_added)
    adata, obs = target.adata, target.obs

    from .._response import reference_answers as answers
    from ..names import is_combination

    model = answers.open_reference(reference)
    if drugs is None:
        chosen = [drug for drug in model.drugs.index.astype(str) if combinations or not is_combination(drug)]
    else:
        chosen = [model.match(drug) for drug in drugs]
    who: dict[str, Any] = {"groupby": groupby, "sample_key": sample_key, "malignant_key": malignant_key}
    who |= {"cancer": cancer, "chemistry": chemistry}
    answer, _ = answers.ask_reference(adata, obs, model, layer=layer, rng=seed, **who)
    table = answer.table[answer.table["drug"].isin(chosen)].reset_index(drop=True)
    table["rank"] = table.groupby("group")["z"].rank(method="first").astype("Int64")
    answered = set(table.loc[table["abstain_reason"] == "", "drug"])
    usable = [drug for drug in chosen if drug in answered]
    params = {name: "" if value is None else value for name, value in who.items()}
    params |= {
        "rng": seed,
        "layer": layer or "",
        "combine": combine or 0,
        "combinations": combinations,
        "drugs": np.array([] if drugs is None else list(drugs), dtype=str),
    }
    found = {
        "table": _storable(table),
        "groups": answer.group_table().rename_axis("group").reset_index(),
        "samples": answers.rank_samples(answer, usable),
        **answer.describe(),
        "params": params,
    }
    if combine:
        found["pairs"] = answers.rank_sample_pairs(answer, usable)
    scores = answers.scores_of_cells(answer, usable)
    keys = DrugRankingKeys.of(key_added)
    found["drugs"] = np.array(usable, dtype=str)
    out = target.write(uns={keys.uns: found}, obsm={keys.scores: scores})
    logger.info(
        "added\n    %r, %d drugs for %d groups (adata.uns)\n    %r, their scores (adata.obsm)",
        *(keys.uns, len(usable), len(answer.groups.names), keys.scores),
    )
    return out


def _storable(table: Any) -> Any:
    """A table whose ranks files can hold: NaN where there is none."""
    return table.assign(rank=table["rank"].astype(float))
