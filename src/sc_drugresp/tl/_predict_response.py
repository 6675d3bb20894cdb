"""`tl.predict_response`: per-cell response, how sure, and whether the model knows such cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.checks import check_share
from .._core.docs import (
    doc_copy,
    doc_data,
    doc_group_key,
    doc_key_added,
    doc_label_key,
    doc_layer,
    doc_modality,
    doc_params,
    doc_rng,
)  # fmt: skip
from .._core.keys import TRAIN_RESPONSE, PredictionKeys, color_key, colors_of
from .._core.log import logger, warn
from .._core.rng import Rng, seed_of
from .._data.modalities import Target, as_adata, observations
from .._data.obs import read_groups, read_labels, require_both_classes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from .._response.ensemble import Ensemble
    from .._response.model import ResponseModel

    ModelLike = ResponseModel | str | PathLike[str]


@doc_params(
    data=doc_data,
    label_key=doc_label_key,
    group_key=doc_group_key,
    layer=doc_layer,
    modality=doc_modality,
    key_added=doc_key_added,
    rng=doc_rng,
    copy=doc_copy,
)
def predict_response(
    data: AnnData | MuData,
    model: ModelLike | Sequence[ModelLike] | None = None,
    *,
    use_rep: str | None = None,
    label_key: str = "response",
    group_key: str | None = None,
    threshold: float | None = None,
    correct_prevalence: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    layer: str | None = None,
    key_added: str | None = None,
    modality: str = "rna",
    rng: Rng = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Predict for every cell whether the drug will hit it.

    Without a model, and with labels for some cells, it trains on the labeled cells (the latest embedding that
    :func:`~sc_drugresp.tl.embed` wrote, else PCA), cross-validates over samples, and predicts all cells: labeled cells by
    a model that never saw their sample, the others by the final one.

    Parameters
    ----------
    {data}
    model
        A :class:`~sc_drugresp.models.ResponseModel`, or the folder of a saved one. Several are fused: the mean of their
        calibrated logits, with their disagreement as uncertainty. `None` trains on the labeled cells.
    use_rep
        Key of `.obsm` with the embedding to train on, without a model.
    {label_key}
    {group_key}
    threshold
        Call cells by P(sensitive) against this value, without a stated error level. By default calls are conformal:
        a cell stays `uncertain` unless conformal prediction excludes one class.
    correct_prevalence
        Estimate the share of sensitive cells among these cells (EM of Saerens et al., 2002) and shift the probabilities
        to it; conformal calls do not change. Reported in `.uns`.
    checkpoint
        Folder with the files of the foundation model that the model needs.
    {layer}
    {key_added}
    {modality}
    {rng}
    {copy}

    Returns
    -------
    `None`, or the changed copy if `copy=True`. The score is P(sensitive). Sets the following fields:

    `.obs['predicted_response' | key_added]` : :class:`pandas.Series` (dtype `category`)
        `sensitive`, `resistant` or `uncertain`.
    `.obs['predicted_response_prob']` : :class:`pandas.Series` (dtype `float64`)
        P(sensitive); NaN for cells without an embedding.
    `.obs['predicted_response_low']`, `.obs['predicted_response_high']` : :class:`pandas.Series` (dtype `float64`)
        90 % interval of the calibrated probability; NaN when the model is uncalibrated.
    `.obs['predicted_response_ood']` : :class:`pandas.Series` (dtype `bool`)
        Whether the cell is unlike the cells that were learned from.
    `.obs['predicted_response_ood_score']` : :class:`pandas.Series` (dtype `float64`)
        Distance to known cells, 1 at the threshold.
    `.obs['predicted_response_disagreement']` : :class:`pandas.Series` (dtype `float64`)
        Only with several models: standard deviation of their P(sensitive).
    `.obsm['X_<model>_lora']`, `.obsm['X_<model>_full']` : :class:`numpy.ndarray` (dtype `float32`)
        Only with a tuned model: its embedding.
    `.uns['predicted_response']` : :class:`dict`
        Parameters, calibration, error level in words, and held-out metrics of the model.
    `.uns['predicted_response_colors']`, `.uns['<label_key>_colors']` : :class:`numpy.ndarray`
        Colors for scanpy's plots, the same for calls and labels; those of labels only where there are none yet.

    Raises
    ------
    ValueError
        There is neither a model nor a label, or the embedding does not fit the model.
    KeyError
        A column or embedding does not exist.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(12, unlabeled=0.3)
    >>> sdr.tl.predict_response(adata)
    >>> adata.obs["predicted_response"].cat.categories.tolist()
    ['sensitive', 'resistant', 'uncertain']
    """
    if threshold is not None:
        check_share("threshold", threshold)
    if model is not None and use_rep is not None:
        msg = (
            f"`use_rep` chooses what to train on without a model, but a model was given; leave out use_rep={use_rep!r}."
        )
        raise ValueError(msg)
    seed, target = seed_of(rng), Target(data, modality, copy)
    adata, obs = as_adata(data, modality=modality), observations(data, modality=modality)
    trained, embeddings = None, {}
    if model is None:
        ensemble, trained = _train_here(adata, obs, use_rep, label_key, group_key, layer, seed)
    else:
        ensemble, embeddings = _apply(adata, obs, model, group_key, checkpoint, layer)
    fused = ensemble.fused
    columns = fused.columns(threshold)
    summary = ensemble.summary(threshold) | {"trained_on_these_cells": trained is not None}
    if correct_prevalence:
        columns, found = _correct_prevalence(obs, group_key, ensemble, columns)
        summary |= found
    if (spread := ensemble.disagreement()) is not None:
        columns["disagreement"] = spread

    data, adata = target.open()
    keys = PredictionKeys.of(key_added)
    for name, column in columns.items():
        adata.obs[getattr(keys, name)] = column
    for name, values in embeddings.items():
        adata.obsm[name] = values
    adata.uns[keys.uns] = summary
    for key in (keys.call, label_key):
        if key == keys.call or color_key(key) not in adata.uns:
            colors = colors_of(adata.obs, key)
            if colors is not None:
                adata.uns[color_key(key)] = np.array(colors, dtype=object)
    if trained is not None:
        from .._response.train import record

        record(adata, trained, TRAIN_RESPONSE)
    logger.info(
        "added\n    %r, the call (adata.obs)\n    %r, P(sensitive) (adata.obs)\n    %r, %r, its interval (adata.obs)\n"
        "    %r, out of distribution (adata.obs)\n    %r, how it was made (adata.uns)",
        *(keys.call, keys.prob, keys.low, keys.high, keys.ood, keys.uns),
    )
    return data if copy else None


def _apply(
    adata: AnnData, obs: pd.DataFrame, model: Any, group_key: str | None, checkpoint: Any, layer: str | None
) -> tuple[Ensemble, dict[str, np.ndarray]]:
    """What the models say of every cell, and the embeddings of tuned encoders by the slot they go to."""
    from .._response.embedding import embed_like
    from .._response.ensemble import Ensemble, open_models
    from .._response.features import Matrices

    models = open_models(model)
    values = [embed_like(item, adata, obs, checkpoint=checkpoint, layer=layer) for item in models]
    logits = [item.logit(x) for item, x in zip(models, values)]
    columns = [group_key or str(item.info["group_key"]) for item in models]
    groups = [obs[key].astype(str).to_numpy() if key in obs else None for key in columns]
    depth = Matrices(adata, np.arange(adata.n_obs), layer).depth()
    kept: dict[str, np.ndarray] = {}
    for i, (item, x) in enumerate(zip(models, values)):
        if item.tuned:
            slot = str(item.representation["use_rep"])
            kept[slot if slot not in kept else f"{slot}_{i}"] = x
    return Ensemble.of(models, values, logits, groups=groups, depth=depth), kept


def _train_here(
    adata: AnnData,
    obs: pd.DataFrame,
    use_rep: str | None,
    label_key: str,
    group_key: str | None,
    layer: str | None,
    rng: int,
) -> tuple[Ensemble, ResponseModel]:
    """Train on the labeled cells of these data, and judge no sample by its own label."""
    from .._response.ensemble import Ensemble
    from .._response.features import Matrices, choose_features
    from .._response.train import train_frozen

    y = _labels_or_explain(obs, label_key)
    group_key, groups = read_groups(obs, group_key)
    rows = np.flatnonzero(y >= 0)
    matrices = Matrices(adata, rows, layer)
    features = choose_features(adata, matrices, use_rep=use_rep, recipe=None, rng=rng)
    depth = matrices.depth()
    trained, held_out = train_frozen(
        features,
        y[rows].astype(np.int64),
        groups[rows],
        head="logistic",
        error_level=0.1,
        rng=rng,
        keys={"label_key": label_key, "group_key": group_key},
        depth=None if depth is None else depth[rows],
    )
    values = features.everything()
    logits = trained.logit(values)
    logits[rows] = np.where(np.isfinite(held_out), held_out, logits[rows])
    return Ensemble.of([trained], [values], [logits], groups=[groups], depth=depth), trained


def _correct_prevalence(
    obs: pd.DataFrame, group_key: str | None, ensemble: Ensemble, columns: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shift probabilities to the prevalence that the cells themselves suggest, and say so."""
    from .._response.ensemble import shift_prevalence
    from .._stats.prior_shift import correct_prior

    if not ensemble.calibrated:
        warn("The prevalence was not corrected: the model is not calibrated.")
        return columns, {}
    _, groups = read_groups(obs, group_key)
    usable = np.isfinite(columns["prob"])
    found = correct_prior(columns["prob"][usable], groups[usable], train_prevalence=ensemble.prevalence)
    logger.info("%s", found.statement())
    told = {key: value for key, value in found.to_dict().items() if value is not None}
    return shift_prevalence(columns, found, ensemble.prevalence), {"prevalence": told}


def _labels_or_explain(obs: pd.DataFrame, label_key: str) -> np.ndarray:
    y = read_labels(obs, label_key) if label_key in obs else np.full(len(obs), -1)
    if (y < 0).all():
        what = f"column {label_key!r} has no labels" if label_key in obs else f"there is no column {label_key!r}"
        msg = (
            f"No model was given and {what}. Either pass a trained model (`model=`: a ResponseModel from "
            "tl.train_response on labeled data, or the folder of a saved one), or label some cells: "
            "pp.harmonize_labels(adata, key, sensitive=..., resistant=...) writes .obs['response'], and prediction then "
            "learns from the labeled cells."
        )
        raise ValueError(msg)
    require_both_classes(y, label_key)
    return y
