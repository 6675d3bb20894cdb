"""Frames behind the plots of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._core.docs import doc_data, doc_key_added, doc_label_key, doc_modality, doc_params
from .._core.keys import RESISTANT, SENSITIVE, TRAIN_RESPONSE, PredictionKeys
from .._data.modalities import as_adata

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


@doc_params(data=doc_data, label_key=doc_label_key, key_added=doc_key_added, modality=doc_modality)
def predictions_df(
    data: AnnData | MuData, *, label_key: str | None = "response", key_added: str | None = None, modality: str = "rna"
) -> pd.DataFrame:
    """Get the predictions of :func:`~sc_drugresp.tl.predict_response`, one row per cell.

    Parameters
    ----------
    {data}
    {label_key}
    {key_added}
    {modality}

    Returns
    -------
    Columns `call`, `prob` (P(sensitive)), `low`, `high`, `ood`, `ood_score`, `disagreement` (several models) and
    `label` where there is one.

    Raises
    ------
    KeyError
        There are no predictions.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(12, unlabeled=0.3)
    >>> sdr.tl.predict_response(adata)
    >>> list(sdr.get.predictions_df(adata).columns)
    ['call', 'prob', 'low', 'high', 'ood', 'ood_score', 'label']
    """
    adata = as_adata(data, modality=modality)
    keys = PredictionKeys.of(key_added)
    if keys.call not in adata.obs:
        msg = f"No predictions {keys.call!r} in `.obs`. Run sc_drugresp.tl.predict_response(adata) first."
        raise KeyError(msg)
    names = ("call", "prob", "low", "high", "ood", "ood_score", "disagreement")
    columns = {name: getattr(keys, name) for name in names}
    out = pd.DataFrame({name: adata.obs[key] for name, key in columns.items() if key in adata.obs})
    if label_key is not None and label_key in adata.obs:
        out["label"] = adata.obs[label_key]
    return out


@doc_params(data=doc_data, label_key=doc_label_key, key_added=doc_key_added, modality=doc_modality)
def samples_df(
    data: AnnData | MuData, *, label_key: str | None = "response", key_added: str | None = None, modality: str = "rna"
) -> pd.DataFrame:
    """Get the samples of :func:`~sc_drugresp.tl.aggregate`, one row each.

    Parameters
    ----------
    {data}
    {label_key}
    {key_added}
    {modality}

    Returns
    -------
    The frame that `tl.aggregate` wrote, with a column `label` where all labeled cells of a sample agree.

    Raises
    ------
    KeyError
        Samples have not been aggregated yet.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(12, unlabeled=0.3)
    >>> sdr.tl.predict_response(adata)
    >>> sdr.tl.aggregate(adata, "patient")
    >>> int(sdr.get.samples_df(adata)["label"].notna().sum())
    8
    """
    adata = as_adata(data, modality=modality)
    keys = PredictionKeys.of(key_added)
    stored = adata.uns.get(keys.uns, {})
    if keys.samples not in stored:
        msg = "Samples have not been aggregated yet. Run sc_drugresp.tl.aggregate(adata, group_key) first."
        raise KeyError(msg)
    out = stored[keys.samples].copy()
    if label_key is not None and label_key in adata.obs and "group_key" in stored:
        labels = adata.obs[label_key].astype(object)
        groups = adata.obs[stored["group_key"]].astype(str)
        known = labels.isin([SENSITIVE, RESISTANT]).to_numpy()
        by_sample = labels[known].groupby(groups[known]).unique()
        agreed = by_sample.map(lambda found: found[0] if len(found) == 1 else np.nan)
        out["label"] = agreed.reindex(out.index)
    return out


@doc_params(data=doc_data, modality=doc_modality)
def history_df(data: AnnData | MuData, *, modality: str = "rna") -> pd.DataFrame:
    """Get loss and held-out scores of each epoch of the latest training.

    Parameters
    ----------
    {data}
    {modality}

    Returns
    -------
    Columns `epoch`, `loss`, `held_out_loss`, `held_out_auroc`; empty for a frozen encoder.

    Raises
    ------
    KeyError
        Nothing was trained on these data.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy()
    >>> model = sdr.tl.train_response(adata, model="pca", group_key="sample")
    >>> len(sdr.get.history_df(adata))
    0
    """
    adata = as_adata(data, modality=modality)
    if TRAIN_RESPONSE not in adata.uns:
        msg = "Nothing was trained on these data. Run sc_drugresp.tl.train_response(adata, ...) first."
        raise KeyError(msg)
    empty = pd.DataFrame(columns=["epoch", "loss", "held_out_loss", "held_out_auroc"])
    return adata.uns[TRAIN_RESPONSE].get("history", empty).copy()
