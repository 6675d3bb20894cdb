"""Frames behind the plots of predictions and samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import REFERENCE, RESPONSE_CLASSES, PredictionKeys
from .._data.modalities import observations
from .._data.obs import has_labels
from .._data.predictions import read_predictions
from ._read import PREDICTION

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import SlotName


@doc_params()
@checked
def predictions_df(
    data: AnnData | MuData,
    *,
    label_key: str | None = "response",
    key_added: SlotName | None = None,
    modality: str = "rna",
) -> pd.DataFrame:
    """Get the predictions of :func:`~sc_drugresp.tl.predict_response`, one row per cell.

    Parameters
    ----------
    {data}
    {label_key}
    {read_key}
    {modality}

    Returns
    -------
    Columns `call`, `prob` (P(sensitive)), `low`, `high`, `ood`, `ood_score`, `disagreement` (several models) and
    `label` where there is one.

    Raises
    ------
    KeyError
        There are no predictions of this name, or no column `label_key` (unless it is the default).

    Examples
    --------
    {predicted}
    >>> list(sdr.get.predictions_df(adata).columns)
    ['call', 'prob', 'low', 'high', 'ood', 'ood_score', 'label']
    """
    obs = observations(data, modality=modality)
    out = read_predictions(obs, key_added)
    if has_labels(obs, label_key):
        out["label"] = obs[label_key]
    return out


@doc_params()
@checked
def samples_df(
    data: AnnData | MuData,
    *,
    label_key: str | None = "response",
    key_added: SlotName | None = None,
    modality: str = "rna",
) -> pd.DataFrame:
    """Get the samples of :func:`~sc_drugresp.tl.aggregate`, one row each.

    Parameters
    ----------
    {data}
    {label_key}
    {read_key}
    {modality}

    Returns
    -------
    The frame that `tl.aggregate` wrote, with a column `label` where all labeled cells of a sample agree.

    Raises
    ------
    KeyError
        Samples have not been aggregated yet, or there is no column `label_key` (unless it is the default).

    Examples
    --------
    {predicted}
    >>> sdr.tl.aggregate(adata, "patient")
    >>> int(sdr.get.samples_df(adata)["label"].notna().sum())
    8
    """
    stored = PREDICTION.read(data, key_added, modality)
    if not {PredictionKeys().samples, "group_key"} <= set(stored):
        msg = "Samples have not been aggregated yet. Run sc_drugresp.tl.aggregate(adata, group_key) first."
        raise KeyError(msg)
    out = stored[PredictionKeys().samples].copy()
    obs = observations(data, modality=modality)
    if has_labels(obs, label_key) and stored["group_key"] in obs:
        known = obs[obs[label_key].isin(RESPONSE_CLASSES)]
        labels = known[label_key].astype(str).groupby(known[stored["group_key"]].astype(str))
        out["label"] = labels.first().where(labels.nunique() == 1).reindex(out.index)
    return out


@doc_params()
@checked
def predictive_values_df(
    data: AnnData | MuData, *, key_added: SlotName | None = None, modality: str = "rna"
) -> pd.DataFrame:
    """Get what calls of cells and samples are worth, estimated on held-out samples.

    Coverage says how many of the sensitive samples are not called resistant. A reader of a call wants to know the reverse: how
    many of those called resistant are. That depends on the prevalence.

    Parameters
    ----------
    {data}
    {read_key}
    {modality}

    Returns
    -------
    One row for each model, `unit` (cell, sample), `call` and prevalence of sensitive samples (`at`: that in training, and the
    `prevalence` that :func:`~sc_drugresp.tl.predict_response` was given): whether such calls are `made`, how many held-out
    samples were called and how many of them wrongly, the expected error among all calls of that unit, and the share of right
    ones among these calls, both with 90 % limits. Cells count as parts of their sample. NaN where nothing would be called.

    Raises
    ------
    KeyError
        There are no predictions of this name, or no column `label_key` (unless it is the default).

    Examples
    --------
    {predicted}
    >>> table = sdr.get.predictive_values_df(adata)
    >>> table[["unit", "call"]].drop_duplicates().values.tolist()
    [['cell', 'sensitive'], ['cell', 'resistant'], ['sample', 'sensitive'], ['sample', 'resistant']]
    """
    stored = PREDICTION.read(data, key_added, modality)
    if stored.get("kind") == REFERENCE:
        msg = f"The predictions {key_added or PREDICTION.default!r} were made by a reference, whose calls have no predictive values."
        raise KeyError(msg)
    frame: pd.DataFrame = stored["predictive_values"]
    return frame.copy()
