"""What response models say of the cells of an object: saved ones, or one that is trained on its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit

from .._core.log import logger, warn
from .._data.obs import read_groups, read_labels, require_both_classes
from .._stats.prior_shift import ClassScores, correct_prior
from .cells import read_training_cells
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
    allow_aliased: bool,
) -> Ensemble:
    """Apply one or several models, each to its own embedding of the cells."""
    models = open_models(given)
    depth = Matrices(adata, np.arange(adata.n_obs), layer).depth()
    parts: list[Prediction] = []
    kept: dict[str, np.ndarray] = {}
    keys: list[str] = []
    for i, model in enumerate(models):
        values = embed_like(model, adata, obs, checkpoint=checkpoint, layer=layer)
        key = group_key or str(model.info["group_key"])
        groups = read_groups(obs, key)[1] if group_key is not None or key in obs else None
        found = None if groups is None else model.sample_logit(values, groups)
        parts.append(predict(model.trust, values, model.logit(values), groups=groups, depth=depth, sample_scores=found))
        keys.append(key if groups is not None else "")
        if model.tuned:
            slot = str(model.representation["use_rep"])
            kept[slot if slot not in kept else f"{slot}_{i}"] = values
    return Ensemble(models, parts, embeddings=kept, group_key=keys[0], allow_aliased=allow_aliased)


def answer_from_labels(
    adata: AnnData,
    obs: pd.DataFrame,
    use_rep: str | None,
    *,
    label_key: str,
    group_key: str | None,
    layer: str | None,
    rng: int,
    allow_aliased: bool,
) -> Ensemble:
    """Train on the labeled cells of these data; labeled cells are judged by models that never saw their sample."""
    y = _labels_or_explain(obs, label_key)
    group_key, groups = read_groups(obs, group_key)
    rows = np.flatnonzero(y >= 0)
    matrices = Matrices(adata, rows, layer)
    labels = y[rows].astype(np.int64)
    cells = read_training_cells(
        obs.iloc[rows], labels, groups[rows], matrices, label_key=label_key, group_key=group_key
    )
    features = choose_features(adata, matrices, use_rep=use_rep, recipe=None, rng=rng)
    values = features.everything()
    depth = matrices.depth()
    trained, out = train_frozen(
        features,
        cells,
        head="logistic",
        error_level=0.1,
        rng=rng,
        depth=None if depth is None else depth[rows],
    )
    logits = trained.logit(values)
    logits[rows] = np.where(np.isfinite(out.logit), out.logit, logits[rows])
    names, scores = trained.sample_logit(values, groups)
    of_unit = dict(zip(out.samples.tolist(), out.sample_logit.tolist()))
    known = {name: of_unit[unit] for name, unit in zip(cells.samples.tolist(), cells.units.tolist())}
    held_out = np.array([known.get(name, np.nan) for name in names.tolist()], dtype=np.float64)
    scores = np.where(np.isfinite(held_out), held_out, scores)
    part = predict(trained.trust, values, logits, groups=groups, depth=depth, sample_scores=(names, scores))
    return Ensemble([trained], [part], trained_here=True, group_key=group_key, allow_aliased=allow_aliased)


def correct_prevalence(
    columns: dict[str, Any], obs: pd.DataFrame, group_key: str | None, ensemble: Ensemble
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shift probabilities to the prevalence that the cells themselves suggest; the columns, and what `.uns` says of it."""
    _, groups = read_groups(obs, group_key)
    usable = np.isfinite(columns["prob"])
    classes = [model.trust.classes for model in ensemble.models]
    if not ensemble.calibrated or not usable.any() or any(known is None for known in classes):
        reason = "the model is not calibrated" if usable.any() else "there are no probabilities"
        warn(f"The prevalence was not corrected: {reason}.")
        return columns, {"prevalence": {"method": "em", "refused": reason}}
    found = correct_prior(
        columns["prob"][usable],
        groups[usable],
        train_prevalence=ensemble.prevalence,
        classes=_together([known for known in classes if known is not None]),
    )
    told = {key: value for key, value in found.to_dict().items() if value is not None}
    if found.refused:
        warn(found.statement())
        return columns, {"prevalence": told}
    logger.info("%s", found.statement())
    shift = float(logit(found.prevalence) - logit(ensemble.prevalence))
    limits = {name: expit(log_odds(columns[name]) + shift) for name in ("low", "high")}
    prob = columns["prob"].copy()
    prob[usable] = found.prob
    return columns | limits | {"prob": prob}, {"prevalence": told | {"shift": shift}}


def _together(classes: list[ClassScores]) -> ClassScores:
    """Of several models: mean scores, and the least sure covariance, for their errors go together."""
    worst = max(classes, key=lambda known: float(np.trace(known.covariance)))
    means = np.mean([known.means for known in classes], axis=0)
    return ClassScores(np.min([known.n for known in classes], axis=0), means, worst.covariance)


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
