"""`tl.state_control`: whether a score predicts sensitivity or recognizes cells that were treated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import STATE_CONTROL
from .._core.log import logger, warn
from .._core.rng import Rng, seed_of
from .._data.modalities import Target, as_adata, observations
from .._data.obs import read_column, read_groups, read_labels, require_both_classes
from .._response.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import Filled, SlotName


@doc_params()
@checked
def state_control(
    data: AnnData | MuData,
    treatment_key: str,
    untreated: str | Annotated[Sequence[str], Filled()],
    *,
    use_rep: str | None = None,
    model: str | None = None,
    label_key: str = "response",
    group_key: str | None = None,
    layer: str | None = None,
    key_added: SlotName | None = None,
    modality: str = "rna",
    rng: Rng = 0,
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
    {key_added}
    {modality}
    {rng}
    {copy}

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Sets the following field:

    `.uns['state_control' | key_added]` : :class:`dict`
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
    from .._evaluate.state import state_control as control
    from .._response.cells import strict_folds
    from .._response.choose import Matrices, choose_features

    recipe = None if model is None else Recipe(model)
    if use_rep is not None and model is not None:
        msg = f"Give either `use_rep` or `model`, not both (found {use_rep!r} and {model!r})."
        raise ValueError(msg)
    seed, target, key = seed_of(rng), Target(data, modality, copy, key_added), key_added or STATE_CONTROL
    adata, obs = as_adata(data, modality=modality), observations(data, modality=modality)
    y = read_labels(obs, label_key)
    require_both_classes(y, label_key)
    treated, names = _treated(read_column(obs, treatment_key, "treatment_key"), untreated, treatment_key)
    group_key, groups = read_groups(obs, group_key)
    rows = np.flatnonzero(y >= 0)
    labels, samples = y[rows].astype(np.int64), groups[rows]
    features = choose_features(adata, Matrices(adata, rows, layer), use_rep=use_rep, recipe=recipe, rng=seed)
    folds = strict_folds(labels, samples, rng=seed)
    if not folds:
        warn("No sample can be held out with both classes still in training; the control cannot conclude anything.")
    found = control(features, labels, treated[rows], samples, folds)
    note = {
        "verdict": str(found.verdict),
        "reason": str(found.reason),
        "table": found.table(),
        "label_treatment_correlation": float(found.label_treatment_correlation),
        "n_cells": found.n_cells,
        "n_unknown": found.n_unknown,
        "params": {
            "treatment_key": treatment_key,
            "untreated": np.array(names, dtype=str),
            "label_key": label_key,
            "group_key": group_key,
            "use_rep": features.description["use_rep"],
            "rng": seed,
        },
    }
    out = target.write(uns={key: note})
    logger.info("added\n    %r, verdict %r (adata.uns)", key, str(found.verdict))
    return out


def _treated(column: pd.Series, untreated: str | Sequence[str], treatment_key: str) -> tuple[np.ndarray, list[str]]:
    """1 for treated cells, 0 for untreated ones, NaN where unknown; and the values that mean untreated.

    Raises
    ------
    ValueError
        No cell is untreated.
    """
    names = [untreated] if isinstance(untreated, str) else [str(name) for name in untreated]
    text = column.astype(str).to_numpy()
    if not np.isin(text, names).any():
        msg = f"`untreated` = {names} is no value of column {treatment_key!r}, which holds {sorted(set(text))[:8]}."
        raise ValueError(msg)
    return np.where(column.isna().to_numpy(), np.nan, (~np.isin(text, names)).astype(float)), names
