"""`tl.predict_response`: per-cell response, how sure, and whether the model knows such cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._data.counts import as_adata
from .._docs import doc_copy, doc_data, doc_group_key, doc_key_added, doc_label_key, doc_layer, doc_modality, doc_params
from .._keys import CALL_CLASSES, RESISTANT, SENSITIVE, UNCERTAIN, PredictionKeys
from .._logging import logger, warn
from ._inputs import read_groups, read_labels, require_both_classes
from ._represent import embed_for, representation
from ._train_response import fit_frozen, record
from ._trust import read_states

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from ..models._response import ResponseModel


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
    model: ResponseModel | str | PathLike[str] | None = None,
    *,
    label_key: str = "response",
    group_key: str | None = None,
    threshold: float | None = None,
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
        A :class:`~sc_drugresp.models.ResponseModel`, or the folder of a saved one. `None` trains on the labeled cells.
    {label_key}
    {group_key}
    threshold
        Call cells by P(sensitive) against this value, without a stated error level. By default calls are conformal:
        both classes are kept in play unless the error level of the model excludes one.
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
    >>> adata = sdr.datasets.toy(unlabeled=0.3)
    >>> sdr.tl.predict_response(adata)
    >>> sorted(adata.obs["predicted_response"].cat.categories)
    ['resistant', 'sensitive', 'uncertain']
    """
    if threshold is not None and not 0 < threshold < 1:
        msg = f"`threshold` must lie between 0 and 1, found {threshold!r}."
        raise ValueError(msg)
    target = data.copy() if copy else data
    adata = as_adata(target, modality=modality)
    fitted, embedding, logits, trained_here = _model_and_logits(
        adata, model, label_key=label_key, group_key=group_key, checkpoint=checkpoint, layer=layer, rng=rng
    )
    columns, summary = _predict(fitted, embedding, logits, threshold)
    keys = PredictionKeys.of(key_added)
    for name, values in columns.items():
        adata.obs[getattr(keys, name)] = values
    adata.uns[keys.uns] = summary | {"trained_on_these_cells": trained_here, "model": _model_summary(fitted)}
    if trained_here:
        record(adata, fitted)
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


def _model_and_logits(
    adata: AnnData, model: Any, *, label_key: str, group_key: str | None, checkpoint: Any, layer: str | None, rng: int
) -> tuple[ResponseModel, np.ndarray, np.ndarray, bool]:
    """The model, the embedding and logit of every cell, and whether the model was trained here."""
    from ..models._response import ResponseModel

    if model is not None:
        fitted = model if isinstance(model, ResponseModel) else ResponseModel.load(model)
        embedding = embed_for(fitted, adata, checkpoint=checkpoint, layer=layer)
        return fitted, embedding, fitted.logit(embedding), False
    y = _labels_or_explain(adata, label_key)
    group_key, groups = read_groups(adata, group_key)
    rows = np.flatnonzero(y >= 0)
    rep = representation(adata, use_rep=None, model=None, layer=layer, rng=rng)
    keys = {"label_key": label_key, "group_key": group_key}
    fitted, held_out = fit_frozen(
        rep, y[rows].astype(np.int64), groups[rows], rows, head="logistic", alpha=0.1, rng=rng, keys=keys
    )
    embedding = rep.all(rows)
    logits = fitted.logit(embedding)
    logits[rows] = np.where(np.isfinite(held_out), held_out, logits[rows])  # never judge a sample by its own label
    return fitted, embedding, logits, True


def _labels_or_explain(adata: AnnData, label_key: str) -> np.ndarray:
    y = read_labels(adata, label_key) if label_key in adata.obs else np.full(adata.n_obs, -1)
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


def _predict(
    model: ResponseModel, embedding: np.ndarray, logits: np.ndarray, threshold: float | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns of `.obs` and the entries of `.uns`."""
    import pandas as pd

    calibration, conformal, reference = read_states(model)
    usable = np.isfinite(logits)
    prob, low, high = (np.full(len(logits), np.nan) for _ in range(3))
    prob[usable] = calibration.probability(logits[usable])
    low[usable], high[usable] = calibration.interval(logits[usable])
    call = np.full(len(logits), UNCERTAIN, dtype=object)
    unlike = ~usable
    if threshold is not None:
        call[usable] = np.where(prob[usable] >= threshold, SENSITIVE, RESISTANT)
    else:
        call[usable], empty = conformal.calls(logits[usable])
        unlike[usable] |= empty
        if not conformal.available:
            warn(f"All calls are 'uncertain': {conformal.reason}. Probabilities are given; `threshold=` calls by them.")
    score = np.full(len(logits), np.nan)
    if reference is not None and usable.any():
        found = reference.score(embedding[usable])
        score[usable] = found.score
        unlike[usable] |= found.flag
    columns = {
        "call": pd.Categorical(call, categories=list(CALL_CLASSES)),
        "prob": prob,
        "low": low,
        "high": high,
        "ood": unlike,
        "ood_score": score,
    }
    summary = {
        "score": f"P({SENSITIVE})",
        "calls": "threshold" if threshold is not None else "conformal",
        "threshold": np.nan if threshold is None else float(threshold),
        "alpha": float(conformal.alpha),
        "statement": conformal.statement() if threshold is None else "Calls by a threshold; no error level is stated.",
        "calibrated": bool(calibration.is_calibrated),
        "calibration": calibration.reason or f"{calibration.method} on {calibration.n_samples} held-out samples",
        "n_cells": len(logits),
        "n_without_embedding": int((~usable).sum()),
        "n_out_of_distribution": int(unlike.sum()),
    }
    return columns, summary


def _model_summary(model: ResponseModel) -> dict[str, Any]:
    info = model.info
    return {
        "use_rep": model.representation["use_rep"],
        "name": model.representation["model"],
        "mode": info["mode"],
        "head": model.head.kind,
        "label_key": info["label_key"],
        "group_key": info["group_key"],
        "n_cells": info["n_cells"],
        "n_groups": info["n_groups"],
        "n_held_out_groups": info["n_held_out_groups"],
        "data_hash": info["data_hash"],
        "metrics": {name: value for name, value in info["metrics"].items() if value is not None},
    }
