"""`tl.train_response`: from labeled cells to a `ResponseModel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .._core.docs import doc_data, doc_group_key, doc_label_key, doc_layer, doc_modality, doc_params
from .._core.keys import TRAIN_RESPONSE
from .._core.log import logger, warn
from .._data.modalities import as_adata
from .._data.obs import read_groups, read_labels, require_both_classes
from .._response.features import Representation, representation

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from .._response.model import ResponseModel

Mode = Literal["frozen", "lora", "full"]
HeadName = Literal["logistic", "mlp"]


@doc_params(data=doc_data, label_key=doc_label_key, group_key=doc_group_key, layer=doc_layer, modality=doc_modality)
def train_response(
    data: AnnData | MuData,
    *,
    use_rep: str | None = None,
    model: str | None = None,
    label_key: str = "response",
    group_key: str | None = None,
    mode: Mode = "frozen",
    head: HeadName = "logistic",
    checkpoint: str | PathLike[str] | None = None,
    layer: str | None = None,
    start: ResponseModel | None = None,
    alpha: float = 0.1,
    modality: str = "rna",
    rng: int = 0,
    **options: Any,
) -> ResponseModel:
    """Learn drug response from labeled cells.

    Every sample weighs the same within its class, and both classes weigh the same. Held-out scores come from heads that
    never saw the sample they score; calibration and conformal thresholds are computed from them, sample by sample.
    Baselines (`pca`, `hvg`, `scvi`) are refitted in every fold.

    Parameters
    ----------
    {data}
    use_rep
        Key of `.obsm` with an embedding. An embedding that :func:`~sc_drugresp.tl.embed` fitted to these cells is
        fitted anew, so that it can be used on other data.
    model
        Name of a model to embed with, instead of `use_rep`. Without both, the latest embedding or `'pca'` is taken.
    {label_key}
    {group_key}
    mode
        `'frozen'` trains a head on the embedding; `'lora'` and `'full'` also tune the encoder.
    head
        `'logistic'` (L2, standardized embedding) or `'mlp'` (scDrugMap's).
    checkpoint
        Folder with the files of a foundation model.
    {layer}
    start
        A model trained elsewhere to continue from (few-shot transfer): its tuned weights, its adapter (with the rank it
        has) and its head are the beginning. Only for `'lora'` and `'full'`.
    alpha
        Error level of the calls: at most this share of samples of a class should get a wrong call.
    {modality}
    rng
        Seed.
    options
        For `'frozen'`: options of the model. For `'lora'` and `'full'`: see
        :class:`~sc_drugresp.tl.FineTuning`; what is left are options of the model.

    Returns
    -------
    A :class:`~sc_drugresp.models.ResponseModel`. Its score is P(sensitive). Sets the following field:

    `.uns['train_response']` : :class:`dict`
        Parameters, held-out metrics and, for tuned encoders, the history of epochs.

    Raises
    ------
    ValueError
        One class only, unknown labels, unknown mode or head, too few samples to tune, or no raw counts where the model
        needs them.
    KeyError
        A column or embedding does not exist.
    TypeError
        There is no such option.
    FileNotFoundError
        The files of the foundation model are not there.
    RuntimeError
        Training diverged.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy()
    >>> model = sdr.tl.train_response(adata, model="pca", group_key="sample")
    >>> model.info["n_groups"]
    8
    """
    for name, value, allowed in (("mode", mode, get_args(Mode)), ("head", head, get_args(HeadName))):
        if value not in allowed:
            msg = f"`{name}` must be one of {allowed}, found {value!r}."
            raise ValueError(msg)
    if mode != "frozen" and use_rep is not None:
        msg = f"mode={mode!r} tunes a model on counts: give `model`, not `use_rep` (found {use_rep!r})."
        raise ValueError(msg)
    if start is not None and mode == "frozen":
        msg = "`start` continues a tuned model; use mode='lora' or 'full', or train on both data sets together."
        raise ValueError(msg)
    if not 0 < alpha < 0.5:
        msg = f"`alpha` must lie between 0 and 0.5, found {alpha!r}."
        raise ValueError(msg)
    adata = as_adata(data, modality=modality)
    y = read_labels(adata.obs, label_key)
    require_both_classes(y, label_key)
    group_key, groups = read_groups(adata.obs, group_key)
    rows = np.flatnonzero(y >= 0)
    if mode != "frozen":
        from .._response.tune.response import finetune_response

        tuned = finetune_response(
            adata,
            model,
            y,
            groups,
            mode=mode,
            head=head,
            checkpoint=checkpoint,
            layer=layer,
            alpha=alpha,
            rng=rng,
            keys={"label_key": label_key, "group_key": group_key},
            start=start,
            options=options,
        )
        record(adata, tuned)
        return tuned
    codes = np.unique(groups, return_inverse=True)[1]
    rep = representation(
        adata, use_rep=use_rep, model=model, checkpoint=checkpoint, layer=layer, groups=codes, rng=rng, options=options
    )
    trained, _ = fit_frozen(
        rep,
        y[rows].astype(np.int64),
        groups[rows],
        rows,
        head=head,
        alpha=alpha,
        rng=rng,
        keys={"label_key": label_key, "group_key": group_key},
    )
    record(adata, trained)
    return trained


def fit_frozen(
    rep: Representation,
    y: np.ndarray,
    groups: np.ndarray,
    rows: np.ndarray,
    *,
    head: HeadName,
    alpha: float,
    rng: int,
    keys: dict[str, str],
) -> tuple[ResponseModel, np.ndarray]:
    """Cross-fit, fit, calibrate; `rows` are the labeled cells. Also returns their held-out logits."""
    from .._response.crossfit import cross_fit
    from .._response.fit import fit_head
    from .._response.model import ResponseModel
    from .._response.trust import describe_training, fit_states, strict_folds

    embed = rep.split(rows)
    logits = cross_fit(head, embed, y, groups, strict_folds(y, groups, rng=rng), rng=rng)
    values = rep.all(rows)[rows]
    fitted = fit_head(head, values, y, groups, rng=rng)
    refit = embed if rep.values is None else None
    states = fit_states(logits, y, groups, values, alpha=alpha, rng=rng, embed=refit, depth=rep.depth(rows))
    info = describe_training(logits, y, groups, values) | keys | {"mode": "frozen", "alpha": alpha, "rng": rng}
    if not info["n_held_out_groups"]:
        warn(
            "No sample could be left out with both classes still in training, so there is no held-out score and "
            "probabilities are not calibrated. More samples of each class are needed."
        )
    embedder = rep.embedder if rep.description["kind"] == "baseline" else None
    return ResponseModel(fitted, rep.description, info, states, embedder), logits


def record(adata: AnnData, model: ResponseModel) -> None:
    """Note parameters, metrics and history in `.uns`."""
    import pandas as pd

    adata.uns[TRAIN_RESPONSE] = {
        "params": {name: model.info[name] for name in ("label_key", "group_key", "mode", "alpha", "rng")}
        | {"head": model.head.kind, "use_rep": model.representation["use_rep"]},
        "metrics": {name: value for name, value in model.info["metrics"].items() if value is not None},
        "n_cells": model.info["n_cells"],
        "n_groups": model.info["n_groups"],
        "score": "P(sensitive)",
    }
    if model.info.get("comparison"):
        adata.uns[TRAIN_RESPONSE]["comparison"] = pd.DataFrame(model.info["comparison"])
    if model.history:
        adata.uns[TRAIN_RESPONSE]["history"] = pd.DataFrame(model.history)
    logger.info("added\n    %r, parameters and held-out metrics (adata.uns)", TRAIN_RESPONSE)
