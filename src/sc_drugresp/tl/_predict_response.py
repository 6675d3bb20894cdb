"""`tl.predict_response`: per-cell response, how sure, and whether the model knows such cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.docs import (
    doc_copy,
    doc_data,
    doc_group_key,
    doc_key_added,
    doc_label_key,
    doc_layer,
    doc_modality,
    doc_params,
)
from .._core.keys import PredictionKeys
from .._core.log import logger, warn
from .._data.counts import read_counts
from .._data.modalities import as_adata
from .._data.obs import read_groups, read_labels, require_both_classes
from .._response.features import depths, embed_for, representation
from .._response.predict import Member, apply_model, columns, combine, disagreement, summarize
from .._response.trust import log_odds
from ._train_response import fit_frozen, record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from .._response.model import ResponseModel


@doc_params(
    data=doc_data,
    label_key=doc_label_key,
    group_key=doc_group_key,
    layer=doc_layer,
    modality=doc_modality,
    key_added=doc_key_added,
    copy=doc_copy,
)
def predict_response(
    data: AnnData | MuData,
    model: ResponseModel | str | PathLike[str] | Sequence[ResponseModel | str | PathLike[str]] | None = None,
    *,
    label_key: str = "response",
    group_key: str | None = None,
    threshold: float | None = None,
    correct_prevalence: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    layer: str | None = None,
    key_added: str | None = None,
    modality: str = "rna",
    rng: int = 0,
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
    {label_key}
    {group_key}
    threshold
        Call cells by P(sensitive) against this value, without a stated error level. By default calls are conformal:
        both classes are kept in play unless the error level of the model excludes one.
    correct_prevalence
        Estimate the share of sensitive cells among these cells (EM of Saerens et al., 2002) and shift the probabilities
        to it; conformal calls do not change. Reported in `.uns`.
    checkpoint
        Folder with the files of the foundation model that the model needs.
    {layer}
    {key_added}
    {modality}
    rng
        Seed of the training without a model.
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
    `.uns['predicted_response']` : :class:`dict`
        Parameters, calibration, error level in words, and held-out metrics of the model.

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
    >>> sorted(adata.obs["predicted_response"].cat.categories)
    ['resistant', 'sensitive', 'uncertain']
    """
    if threshold is not None and not 0 < threshold < 1:
        msg = f"`threshold` must lie between 0 and 1, found {threshold!r}."
        raise ValueError(msg)
    target = data.copy() if copy else data
    adata = as_adata(target, modality=modality)
    members, trained = _members(
        adata, model, label_key=label_key, group_key=group_key, checkpoint=checkpoint, layer=layer, rng=rng
    )
    combined = combine(members)
    values = columns(combined, threshold)
    summary = summarize(members, combined, threshold) | {"trained_on_these_cells": trained is not None}
    if correct_prevalence:
        _correct_prevalence(adata, group_key, members, values, summary)
    keys = PredictionKeys.of(key_added)
    for name, column in values.items():
        adata.obs[getattr(keys, name)] = column
    if len(members) > 1:
        adata.obs[keys.disagreement] = disagreement(members)
    adata.uns[keys.uns] = summary
    if trained is not None:
        record(adata, trained)
    logger.info(
        "added\n    %r, the call (adata.obs)\n    %r, P(sensitive) (adata.obs)\n    %r, %r, its interval (adata.obs)\n"
        "    %r, out of distribution (adata.obs)\n    %r, how it was made (adata.uns)",
        keys.call,
        keys.prob,
        keys.low,
        keys.high,
        keys.ood,
        keys.uns,
    )
    return target if copy else None


def _members(
    adata: AnnData, model: Any, *, label_key: str, group_key: str | None, checkpoint: Any, layer: str | None, rng: int
) -> tuple[list[Member], ResponseModel | None]:
    """What each model says of every cell, and the model that was trained here, if any."""
    from .._response.model import ResponseModel

    if model is None:
        return _train_here(adata, label_key, group_key, layer, rng)
    given = list(model) if isinstance(model, list | tuple) else [model]
    if not given:
        msg = "`model` is an empty list; give at least one ResponseModel or the folder of a saved one."
        raise ValueError(msg)
    fitted = [item if isinstance(item, ResponseModel) else ResponseModel.load(item) for item in given]
    members = []
    depth = _depth(adata, layer)
    for item in fitted:
        embedding = embed_for(item, adata, checkpoint=checkpoint, layer=layer)
        names = _sample_names(adata, group_key or str(item.info["group_key"]))
        members.append(apply_model(item, embedding, item.logit(embedding), groups=names, depth=depth))
    return members, None


def _sample_names(adata: AnnData, group_key: str) -> np.ndarray | None:
    """Samples of the cells, where the column of the training data is there."""
    return adata.obs[group_key].astype(str).to_numpy() if group_key in adata.obs else None


def _train_here(
    adata: AnnData, label_key: str, group_key: str | None, layer: str | None, rng: int
) -> tuple[list[Member], ResponseModel]:
    y = _labels_or_explain(adata, label_key)
    group_key, groups = read_groups(adata.obs, group_key)
    rows = np.flatnonzero(y >= 0)
    rep = representation(adata, use_rep=None, model=None, layer=layer, rng=rng)
    keys = {"label_key": label_key, "group_key": group_key}
    trained, held_out = fit_frozen(
        rep, y[rows].astype(np.int64), groups[rows], rows, head="logistic", alpha=0.1, rng=rng, keys=keys
    )
    embedding = rep.all(rows)
    logits = trained.logit(embedding)
    logits[rows] = np.where(np.isfinite(held_out), held_out, logits[rows])  # never judge a sample by its own label
    return [apply_model(trained, embedding, logits, groups=groups, depth=_depth(adata, layer))], trained


def _depth(adata: AnnData, layer: str | None) -> np.ndarray | None:
    """Counts of each cell, where raw counts can be found."""
    try:
        return depths(read_counts(adata, layer=layer))
    except ValueError:
        return None


def _correct_prevalence(
    adata: AnnData, group_key: str | None, members: list[Member], values: dict[str, Any], summary: dict[str, Any]
) -> None:
    """Shift probabilities to the prevalence that the cells themselves suggest, and say so."""
    from .._stats.prior_shift import correct_prior

    calibration = members[0].trust.calibration
    if not summary["calibrated"]:
        warn("The prevalence was not corrected: the model is not calibrated.")
        return
    _, groups = read_groups(adata.obs, group_key)
    usable = np.isfinite(values["prob"])
    found = correct_prior(values["prob"][usable], groups[usable], train_prevalence=calibration.prevalence)
    shift = log_odds(np.array([found.prevalence, calibration.prevalence]))
    for name in ("low", "high"):
        values[name] = 1 / (1 + np.exp(-(log_odds(values[name]) + shift[0] - shift[1])))
    values["prob"] = values["prob"].copy()
    values["prob"][usable] = found.prob
    summary["prevalence"] = {key: value for key, value in found.to_dict().items() if value is not None}
    logger.info("%s", found.statement())


def _labels_or_explain(adata: AnnData, label_key: str) -> np.ndarray:
    y = read_labels(adata.obs, label_key) if label_key in adata.obs else np.full(adata.n_obs, -1)
    if (y < 0).all():
        what = f"column {label_key!r} has no labels" if label_key in adata.obs else f"there is no column {label_key!r}"
        msg = (
            f"No model was given and {what}. Either pass a trained model (`model=`: a ResponseModel from "
            "tl.train_response on labeled data, or the folder of a saved one), or label some cells: "
            "pp.harmonize_labels(adata, key, sensitive=..., resistant=...) writes .obs['response'], and prediction then "
            "learns from the labeled cells."
        )
        raise ValueError(msg)
    require_both_classes(y, label_key)
    return y
