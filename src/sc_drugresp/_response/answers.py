"""What response models say of the cells of an object: saved ones, or one that is trained on its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit

from .._core.log import logger, warn
from .._data.obs import read_groups, read_labels, require_both_classes
from .._stats.prior_shift import correct_prior
from .choose import Matrices, choose_features
from .embedding import embed_like
from .ensemble import Ensemble, open_models
from .predict import predict
from .train import train_frozen
from .trust import log_odds

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from .ensemble import ModelLike
    from .predict import Prediction


_EXAMPLES = ("erlotinib", "trametinib", "paclitaxel")
"""Drugs of the reference that comes with the package, for a message."""


def answer_from_models(
    adata: AnnData,
    obs: pd.DataFrame,
    given: ModelLike | Sequence[ModelLike],
    *,
    group_key: str | None,
    checkpoint: Any,
    layer: str | None,
) -> Ensemble:
    """Apply one or several models, each to its own embedding of the cells."""
    models = open_models(given)
    depth = Matrices(adata, np.arange(adata.n_obs), layer).depth()
    parts: list[Prediction] = []
    kept: dict[str, np.ndarray] = {}
    for i, model in enumerate(models):
        values = embed_like(model, adata, obs, checkpoint=checkpoint, layer=layer)
        key = group_key or str(model.info["group_key"])
        groups = obs[key].astype(str).to_numpy() if key in obs else None
        parts.append(predict(model.trust, values, model.logit(values), groups=groups, depth=depth))
        if model.tuned:
            slot = str(model.representation["use_rep"])
            kept[slot if slot not in kept else f"{slot}_{i}"] = values
    return Ensemble(models, parts, embeddings=kept)


def answer_from_labels(
    adata: AnnData,
    obs: pd.DataFrame,
    use_rep: str | None,
    *,
    label_key: str,
    group_key: str | None,
    layer: str | None,
    rng: int,
) -> Ensemble:
    """Train on the labeled cells of these data; labeled cells are judged by models that never saw their sample."""
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
    part = predict(trained.trust, values, logits, groups=groups, depth=depth)
    return Ensemble([trained], [part], trained_here=True)


def correct_prevalence(
    columns: dict[str, Any], obs: pd.DataFrame, group_key: str | None, ensemble: Ensemble
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shift probabilities to the prevalence that the cells themselves suggest; the columns, and what `.uns` says of it."""
    if not ensemble.calibrated:
        warn("The prevalence was not corrected: the model is not calibrated.")
        return columns, {}
    _, groups = read_groups(obs, group_key)
    usable = np.isfinite(columns["prob"])
    found = correct_prior(columns["prob"][usable], groups[usable], train_prevalence=ensemble.prevalence)
    logger.info("%s", found.statement())
    told = {key: value for key, value in found.to_dict().items() if value is not None}
    shift = logit(found.prevalence) - logit(ensemble.prevalence)
    limits = {name: expit(log_odds(columns[name]) + shift) for name in ("low", "high")}
    prob = columns["prob"].copy()
    prob[usable] = found.prob
    return columns | limits | {"prob": prob}, {"prevalence": told}


def _labels_or_explain(obs: pd.DataFrame, label_key: str) -> np.ndarray:
    y = read_labels(obs, label_key) if label_key in obs else np.full(len(obs), -1)
    if (y < 0).all():
        what = f"column {label_key!r} has no labels" if label_key in obs else f"there is no column {label_key!r}"
        msg = (
            f"No model and no drug were given, and {what}. Without labels, name the drug: drug='{_EXAMPLES[0]}' (or "
            f"{', '.join(map(repr, _EXAMPLES[1:]))} and some 500 others, see models.Reference.load().drugs) asks a screen of "
            "cell lines; tl.rank_drugs(adata) ranks all of them. Or pass a trained model (`model=`: a ResponseModel from "
            "tl.train_response on labeled data, or the folder of a saved one). Or label some cells: "
            "pp.harmonize_labels(adata, key, sensitive=..., resistant=...) writes .obs['response'], and prediction then "
            "learns from the labeled cells."
        )
        raise ValueError(msg)
    require_both_classes(y, label_key)
    return y
