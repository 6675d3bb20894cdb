"""A saved model on labeled cells that it was not trained on: its own probability and calls, nothing fitted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._core.hashing import data_hash
from .._core.keys import CALL_CLASSES
from .._response.answers import answer_from_models
from .._response.embedding import embed_like
from .._response.model import ResponseModel
from .._stats.folds import LeakError
from .deployed import UNCERTAIN, Deployed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from .._response.ensemble import Ensemble
    from .cohort import Cohort
    from .request import Request

_CODES = dict(zip(CALL_CLASSES, (1, 0, UNCERTAIN)))


@dataclass(frozen=True)
class External:
    """What a saved model says of the labeled cells.

    Parameters
    ----------
    name
        Row of the table.
    deployed
        Probabilities and calls, as :func:`~sc_drugresp.tl.predict_response` gives them; 0.5 for cells without an
        embedding.
    prevalence
        Share of sensitive cells that its probabilities assume.
    caution
        What is to be said against the score, in words.
    """

    name: str
    deployed: Deployed
    prevalence: float
    caution: str


def apply_saved(adata: AnnData, obs: pd.DataFrame, cohort: Cohort, request: Request) -> list[External]:
    """What each saved model says of the labeled cells.

    Raises
    ------
    LeakError
        A model was trained on these very cells.
    """
    models = [item if isinstance(item, ResponseModel) else ResponseModel.load(item) for item in request.saved]
    out = []
    for name, model in zip(_names(request.saved), models):
        answer = answer_from_models(
            adata,
            obs,
            model,
            group_key=cohort.unit_key or None,
            checkpoint=None,
            layer=request.layer,
            allow_aliased=True,  # what it would say is what is to be scored
        )
        caution = _seen_before(model, adata, obs, cohort, request)
        columns = answer.columns(None)
        prob = np.asarray(columns["prob"], dtype=float)[cohort.rows]
        calls = np.array([_CODES[call] for call in np.asarray(columns["call"])[cohort.rows]], dtype=np.int64)
        deployed = Deployed(np.where(np.isfinite(prob), prob, 0.5), calls, _sample_calls(answer, cohort))
        out.append(External(name, deployed, answer.prevalence, caution))
    return out


def _sample_calls(answer: Ensemble, cohort: Cohort) -> np.ndarray | None:
    """Call of the sample of each labeled cell; `None` where the model calls no samples."""
    samples = answer.fused.samples
    if samples is None or not cohort.unit_key:
        return None
    codes = np.select([samples.called[:, 0], samples.called[:, 1]], [1, 0], UNCERTAIN)
    known = dict(zip(samples.names.astype(str).tolist(), codes.tolist()))
    return np.array([known.get(str(unit), UNCERTAIN) for unit in cohort.units], dtype=np.int64)


def _names(saved: Sequence[ResponseModel | str]) -> list[str]:
    """The folder of a saved model, else the model that embeds for it; numbered where two would be the same."""
    names = []
    for item in saved:
        if isinstance(item, ResponseModel):
            names.append(f"{item.representation['model'] or item.representation['use_rep']} (trained)")
        else:
            names.append(Path(item).resolve().name)
    double, seen = Counter(names), Counter[str]()
    for i, name in enumerate(names):
        if double[name] > 1:
            seen[name] += 1
            names[i] = f"{name} {seen[name]}"
    return names


def _seen_before(model: ResponseModel, adata: AnnData, obs: pd.DataFrame, cohort: Cohort, request: Request) -> str:
    """Say in words which of the samples have the name of a training sample; refuse the very cells of the training."""
    info, how = model.info, model.representation
    key = str(info["group_key"]) if str(info["group_key"]) in obs else cohort.unit_key
    names = obs[key].astype(str).to_numpy()[cohort.rows] if key else cohort.units.astype(str)
    trained = {*info["groups_sensitive"], *info["groups_resistant"]}
    shared = sorted({*names} & {str(name) for name in trained})
    if not shared:
        return ""
    # Embedding again with a network takes long; names are all that is compared then.
    if how["kind"] == "baseline" or (how["use_rep"] in adata.obsm and not model.tuned):
        values = embed_like(model, adata, obs, layer=request.layer)[cohort.rows]
        digest = data_hash(np.asarray(values, dtype=np.float32), cohort.y, names)
        if digest == info["data_hash"] and not request.options.allow_leaks:
            msg = (
                "The model was trained on these very cells (same data hash), so that its score would say nothing about new "
                "samples. Give labeled cells of other samples, evaluate by cross-validation (`model=` with the name of the "
                "embedding), or pass allow_leaks=True."
            )
            raise LeakError(msg)
    some = f"{', '.join(shared[:3])}{' ...' if len(shared) > 3 else ''}"
    return (
        f"{len(shared)} of {len(set(names))} samples have the name of a training sample ({some}): if they are the same, the "
        "score is too high"
    )
