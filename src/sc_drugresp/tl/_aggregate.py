"""`tl.aggregate`: from cells to samples and patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from .._core.docs import doc_copy, doc_data, doc_key_added, doc_modality, doc_params
from .._core.keys import CALL_CLASSES, RESISTANT, SENSITIVE, UNCERTAIN, PredictionKeys
from .._core.log import logger
from .._data.modalities import as_adata
from .._data.obs import read_column, read_groups
from .._response.trust import log_odds

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

Score = Literal["mean", "worst_clone"]


@doc_params(data=doc_data, modality=doc_modality, key_added=doc_key_added, copy=doc_copy)
def aggregate(
    data: AnnData | MuData,
    group_key: str | None = None,
    *,
    score: Score = "mean",
    clone_key: str | None = None,
    mask_obs: str | None = None,
    key_added: str | None = None,
    modality: str = "rna",
    rng: int = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Score samples by the mean of their cells and by their worst clone, with intervals.

    A tumor survives through its least sensitive clone, so both scores are given, as in PERCEPTION
    :cite:p:`Sinha2024`: the mean P(sensitive), and the smallest mean of a clone with at least 5 % of the cells, shrunk to
    the sample by `n / (n + 20)`. Intervals join a bootstrap of cells with the spread between samples that the model saw
    among held-out training samples; without that spread a sample is `uncertain`.

    Parameters
    ----------
    {data}
    group_key
        Column of `.obs` that names the sample or patient. `None` looks for the usual names.
    score
        Which score decides the call.
    clone_key
        Column of `.obs` with the clone or cluster of each cell.
    mask_obs
        Boolean column of `.obs`: which cells count, for example the malignant ones.
    {key_added}
    {modality}
    rng
        Seed of the bootstrap.
    {copy}

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Sets the following field:

    `.uns['predicted_response' | key_added]['samples']` : :class:`pandas.DataFrame`
        One row per sample: `call`, `mean`, `mean_low`, `mean_high`, `worst`, `worst_low`, `worst_high`, `worst_clone`,
        `fraction_sensitive`, `fraction_ood`, `n_cells` and what the interval covers; `bag`, the score of a model of whole
        samples, if there were at least 30 of them in training. The score is P(sensitive).

    Raises
    ------
    KeyError
        Cells have no predictions yet, or a column does not exist.
    ValueError
        Unknown score, or `mask_obs` leaves no cell.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(12, unlabeled=0.3)
    >>> sdr.tl.predict_response(adata)
    >>> sdr.tl.aggregate(adata, "patient")
    >>> len(adata.uns["predicted_response"]["samples"])
    12
    """
    if score not in get_args(Score):
        msg = f"`score` must be one of {get_args(Score)}, found {score!r}."
        raise ValueError(msg)
    target = data.copy() if copy else data
    adata = as_adata(target, modality=modality)
    keys = PredictionKeys.of(key_added)
    if keys.prob not in adata.obs or keys.uns not in adata.uns:
        msg = f"No predictions {keys.prob!r} in `.obs`. Run sc_drugresp.tl.predict_response(adata) first."
        raise KeyError(msg)
    group_key, groups = read_groups(adata.obs, group_key)
    clones = None if clone_key is None else read_column(adata.obs, clone_key, "clone_key").astype(str).to_numpy()
    keep = np.ones(adata.n_obs, dtype=bool)
    if mask_obs is not None:
        keep = read_column(adata.obs, mask_obs, "mask_obs").to_numpy(dtype=bool)
        if not keep.any():
            msg = f"Column {mask_obs!r} (`mask_obs`) keeps no cell."
            raise ValueError(msg)
    table = _table(adata, keys, groups, clones, keep, score, rng)
    adata.uns[keys.uns] = {**adata.uns[keys.uns], keys.samples: table, "group_key": group_key}
    logger.info("added\n    %r, %d samples of %r (adata.uns[%r])", keys.samples, len(table), group_key, keys.uns)
    return target if copy else None


def _table(
    adata: AnnData,
    keys: PredictionKeys,
    groups: np.ndarray,
    clones: np.ndarray | None,
    keep: np.ndarray,
    score: Score,
    rng: int,
) -> pd.DataFrame:
    import pandas as pd

    from .._stats.bags import BagModel
    from .._stats.patients import SampleSpread, aggregate_samples

    saved = adata.uns[keys.uns].get("spread", {})
    spread = None
    if saved:
        between = saved["between_sd"]
        spread = SampleSpread(float(between), int(saved["df"]), int(saved["n_samples"]))
    prob = adata.obs[keys.prob].to_numpy(dtype=np.float64)[keep]
    names = groups[keep]
    table = aggregate_samples(prob, names, clones=None if clones is None else clones[keep], spread=spread, rng=rng)
    bags = adata.uns[keys.uns].get("bags")
    if bags:
        coef = {"coef": np.asarray(bags["coef"])}
        rows = np.isfinite(prob)
        fitted = BagModel.from_dict(dict(bags), coef)
        table["bag"] = fitted.probability(names[rows], logits=log_odds(prob[rows])).reindex(table.index)
    ood = adata.obs[keys.ood].to_numpy(dtype=bool)[keep]
    table["fraction_ood"] = pd.Series(ood).groupby(names).mean().reindex(table.index).to_numpy()
    base = "mean" if score == "mean" else "worst"
    low, high = table[f"{base}_low"].to_numpy(), table[f"{base}_high"].to_numpy()
    known = table["interval"].to_numpy() == "cells and samples"
    call = np.select([known & (low > 0.5), known & (high < 0.5)], [SENSITIVE, RESISTANT], UNCERTAIN)
    table.insert(0, "call", pd.Series(pd.Categorical(call, categories=list(CALL_CLASSES)), index=table.index))
    table["worst_clone"] = table["worst_clone"].astype(str)
    return table
