"""`tl.state_control`: whether a score predicts sensitivity or recognizes cells that were treated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.docs import doc_copy, doc_data, doc_group_key, doc_label_key, doc_layer, doc_modality, doc_params
from .._core.keys import STATE_CONTROL
from .._core.log import logger, warn
from .._data.modalities import as_adata
from .._data.obs import read_column, read_groups, read_labels, require_both_classes
from .._response.features import representation
from .._response.trust import strict_folds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData


@doc_params(
    data=doc_data,
    label_key=doc_label_key,
    group_key=doc_group_key,
    layer=doc_layer,
    modality=doc_modality,
    copy=doc_copy,
)
def state_control(
    data: AnnData | MuData,
    treatment_key: str,
    untreated: str | Sequence[str],
    *,
    use_rep: str | None = None,
    model: str | None = None,
    label_key: str = "response",
    group_key: str | None = None,
    layer: str | None = None,
    modality: str = "rna",
    rng: int = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Tell recognition of the treated state from prediction of sensitivity.

    Many published scores separate cells before from cells after treatment, which is not a prediction. Here the direction
    of the treatment is estimated in the training samples of each fold and erased in closed form (LEACE
    :cite:p:`Belrose2023`); the AUROC is given as it is, after erasure, and in cells before treatment alone, beside the AUROC
    with which the response score tells treated cells.

    Parameters
    ----------
    {data}
    treatment_key
        Column of `.obs` with the treatment or time point of each cell.
    untreated
        Its values before treatment (vehicle, day 0, ...). Missing values are unknown; all others are treated.
    use_rep
        Key of `.obsm`; as in :func:`~sc_drugresp.tl.train_response`.
    model
        Name of a model to embed with. Without both, the latest embedding or `'pca'` is taken.
    {label_key}
    {group_key}
    {layer}
    {modality}
    rng
        Seed.
    {copy}

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Sets the following field:

    `.uns['state_control']` : :class:`dict`
        `verdict` (`state`, `mixed`, `pre-treatment signal` or `unknown`), `reason` in words, and `table` with the AUROCs
        and their 95 % intervals over samples.

    Raises
    ------
    ValueError
        One class only, or `untreated` names no value of the column.
    KeyError
        A column or embedding does not exist.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=8, cells_per_sample=20, n_genes=100, timepoints=True)
    >>> sdr.tl.state_control(adata, "timepoint", "pre", model="pca", group_key="patient")
    >>> sorted(adata.uns["state_control"]["table"].index)
    ['auroc', 'erased', 'pretreatment', 'treated', 'treated_erased']
    """
    from .._stats.erasure import state_control as control

    target = data.copy() if copy else data
    adata = as_adata(target, modality=modality)
    y = read_labels(adata.obs, label_key)
    require_both_classes(y, label_key)
    column = read_column(adata.obs, treatment_key, "treatment_key")
    names = [untreated] if isinstance(untreated, str) else [str(name) for name in untreated]
    text = column.astype(str).to_numpy()
    if not np.isin(text, names).any():
        msg = f"`untreated` = {names} is no value of column {treatment_key!r}, which holds {sorted(set(text))[:8]}."
        raise ValueError(msg)
    group_key, groups = read_groups(adata.obs, group_key)
    treated = np.where(column.isna().to_numpy(), np.nan, (~np.isin(text, names)).astype(float))
    rows = np.flatnonzero(y >= 0)
    rep = representation(adata, use_rep=use_rep, model=model, layer=layer, rng=rng)
    folds = strict_folds(y[rows], groups[rows], rng=rng)
    if not folds:
        warn("No sample can be held out with both classes still in training; the control cannot conclude anything.")
    found = control(rep.split(rows), y[rows].astype(np.int64), treated[rows], groups[rows], folds)
    values = found.to_dict()
    adata.uns[STATE_CONTROL] = {
        "verdict": str(found.verdict),
        "reason": str(found.reason),
        "table": found.table(),
        "label_treatment_correlation": float(found.label_treatment_correlation),
        "n_cells": values["n_cells"],
        "n_unknown": values["n_unknown"],
        "params": {
            "treatment_key": treatment_key,
            "untreated": np.array(names, dtype=str),
            "label_key": label_key,
            "group_key": group_key,
            "use_rep": rep.description["use_rep"],
            "rng": int(rng),
        },
    }
    logger.info("added\n    %r, verdict %r (adata.uns)", STATE_CONTROL, str(found.verdict))
    return target if copy else None
