"""Train a head on features that are there: cross-validate over samples, fit, calibrate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import SENSITIVE
from .._core.log import warn
from .._core.progress import progress_bar
from .._core.threads import one_thread
from .._stats.groups import encode_groups, spread_rows
from .crossfit import cross_validate
from .features import FittedFeatures
from .fit import MIN_FOR_AUTO, enough_for_auto
from .fitters import MOST_CELLS, HeadSetting, fit_setting
from .model import ResponseModel
from .trust import Trust, describe_training

if TYPE_CHECKING:
    from .cells import TrainingCells
    from .crossfit import OutOfFold
    from .features import FixedFeatures
    from .heads import HeadChoice


@one_thread()
def train_frozen(
    features: FixedFeatures | FittedFeatures,
    cells: TrainingCells,
    *,
    head: HeadChoice,
    error_level: float,
    rng: int,
    depth: np.ndarray | None = None,
) -> tuple[ResponseModel, OutOfFold]:
    """Train on the labeled cells; also returns their held-out logits and those of their samples.

    Parameters
    ----------
    features
        What the head learns from.
    cells
        The labeled cells.
    head, error_level, rng
        As in :func:`~sc_drugresp.tl.train_response`.
    depth
        Counts of each labeled cell, where known.
    """
    y, groups, folds = cells.y, cells.units, cells.folds(rng)
    with progress_bar(total=len(folds), desc="cross-validating", unit=" folds") as bar:
        out = cross_validate(features, y, groups, folds, head=head, rng=rng, advance=bar.update)
    values = features.labeled()
    if features.description["kind"] == "slot":
        cells = cells.weigh(features.name, values)
    # With the penalty of the folds: what is calibrated on their logits must hold for those of this head.
    shown = spread_rows(np.arange(len(y)), encode_groups(groups)[0] * 2 + y, MOST_CELLS)
    fitted = fit_setting(out.setting or HeadSetting(), values[shown], y[shown], groups[shown], rng=rng)
    embed = features.refit if isinstance(features, FittedFeatures) else None
    logits, scores = cells.known(out)
    trust = Trust.fit(
        logits,
        y,
        groups,
        values,
        error_level=error_level,
        rng=rng,
        sample_logits=scores,
        embed=embed,
        folds=folds,
        depth=depth,
        thinned=features.thinned if isinstance(features, FittedFeatures) and features.thins else None,
    )
    info = describe_training(logits, cells, values) | {
        "mode": "frozen",
        "error_level": error_level,
        "rng": rng,
        "head": {"asked": head, **out.selection},
    }
    if not info["n_held_out_groups"]:
        warn(
            "No sample could be left out with both classes still in training, so there is no held-out score and "
            "probabilities are not calibrated. More samples of each class are needed."
        )
    if head == "auto" and not enough_for_auto(y, groups):
        warn(
            f"head='auto' needs {MIN_FOR_AUTO} samples of each class to compare heads and took its default, "
            f"{fitted.kind!r}."
        )
    return ResponseModel(fitted, features.description, info, trust, features.embedder), out


def training_record(model: ResponseModel) -> dict[str, Any]:
    """Parameters, held-out metrics and history, as `.uns` keeps them."""
    import pandas as pd

    info = model.info
    out: dict[str, Any] = {
        "params": {name: info[name] for name in ("label_key", "group_key", "mode", "error_level", "rng")}
        | {"head": model.head.kind, "use_rep": model.representation["use_rep"]},
        "head": info.get("head", {"head": model.head.kind}),
        "metrics": {name: value for name, value in info["metrics"].items() if value is not None},
        "verdict": str(info["verdict"]["code"]),
        "verdict_reason": str(info["verdict"]["reason"]),
        "n_cells": info["n_cells"],
        "n_groups": info["n_groups"],
        "score": f"P({SENSITIVE})",
    }
    if info.get("comparison"):
        out["comparison"] = pd.DataFrame(info["comparison"])
    if model.history:
        out["history"] = pd.DataFrame(model.history)
    return out
