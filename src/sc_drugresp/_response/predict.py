"""Apply one or several response models to embedded cells: arrays in, columns out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import CALL_CLASSES, RESISTANT, SENSITIVE, UNCERTAIN
from .._core.log import warn
from .trust import Trust, log_odds, read_states

if TYPE_CHECKING:
    from .model import ResponseModel


@dataclass
class Member:
    """What one model says of every cell."""

    model: ResponseModel
    trust: Trust
    usable: np.ndarray
    prob: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sets: np.ndarray
    ood: np.ndarray
    ood_score: np.ndarray
    reasons: dict[str, int]


def apply_model(
    model: ResponseModel,
    embedding: np.ndarray,
    logits: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    depth: np.ndarray | None = None,
) -> Member:
    """Probability, interval, conformal set and distance of every cell; NaN where there is no embedding.

    With `groups`, whole samples that lie apart are recognized as well; with `depth`, cells outside the usual range.
    """
    trust = read_states(model)
    n, usable = len(logits), np.isfinite(logits)
    prob, low, high, score = (np.full(n, np.nan) for _ in range(4))
    sets, ood = np.ones((n, 2), dtype=bool), ~usable
    reasons: dict[str, int] = {}
    if usable.any():
        prob[usable] = trust.calibration.probability(logits[usable])
        low[usable], high[usable] = trust.calibration.interval(logits[usable])
        sets[usable] = trust.conformal.sets(logits[usable])
        if trust.reference is not None:
            found = trust.reference.score(
                embedding[usable],
                groups=None if groups is None else groups[usable],
                depth=None if depth is None else depth[usable],
            )
            score[usable], ood[usable] = found.score, found.flag
            reasons = count_reasons(found.reasons())
    ood = ood | ~sets.any(axis=1)
    return Member(model, trust, usable, prob, low, high, sets, ood, score, reasons)


def count_reasons(texts: np.ndarray) -> dict[str, int]:
    """How many cells are flagged for each reason; a cell may have several."""
    names, n = np.unique([reason for text in texts if text for reason in str(text).split("; ")], return_counts=True)
    return {str(name).replace("/", " or "): int(count) for name, count in zip(names, n)}


def combine(members: list[Member]) -> Member:
    """Late fusion: mean of the calibrated logits; a class is excluded only where every member excludes it.

    The union of prediction sets keeps the error level of its members. A cell is out of distribution if it is so for
    most of them.
    """
    if len(members) == 1:
        return members[0]
    usable = np.all([member.usable for member in members], axis=0)
    prob, low, high = (
        _expit(np.mean([log_odds(getattr(member, name)) for member in members], axis=0))
        for name in ("prob", "low", "high")
    )
    sets = np.any([member.sets for member in members], axis=0)
    ood = np.mean([member.ood for member in members], axis=0) > 0.5
    score = np.median([member.ood_score for member in members], axis=0)
    return Member(
        members[0].model, members[0].trust, usable, prob, low, high, sets, ood | ~usable, score, members[0].reasons
    )


def disagreement(members: list[Member]) -> np.ndarray:
    """Standard deviation of P(sensitive) between members, shape `(n_cells,)`."""
    return np.std([member.prob for member in members], axis=0)


def columns(member: Member, threshold: float | None) -> dict[str, Any]:
    """Values of `.obs` by the field of `PredictionKeys`."""
    import pandas as pd

    call = np.full(len(member.prob), UNCERTAIN, dtype=object)
    single = member.sets.sum(axis=1) == 1
    call[single] = np.where(member.sets[single, 0], SENSITIVE, RESISTANT)
    if threshold is not None:
        call = np.where(member.prob >= threshold, SENSITIVE, RESISTANT).astype(object)
    call[~member.usable] = UNCERTAIN
    return {
        "call": pd.Categorical(call, categories=list(CALL_CLASSES)),
        "prob": member.prob,
        "low": member.low,
        "high": member.high,
        "ood": member.ood,
        "ood_score": member.ood_score,
    }


def summarize(members: list[Member], combined: Member, threshold: float | None) -> dict[str, Any]:
    """What goes to `.uns`: how calls were made and how far they can be trusted."""
    available = all(member.trust.conformal.available for member in members)
    lacking = next((m.trust.conformal.reason for m in members if not m.trust.conformal.available), "")
    if threshold is None and not available and combined.usable.any():
        warn(f"All calls are 'uncertain': {lacking}. Probabilities are given; `threshold=` calls by them.")
    calibration = members[0].trust.calibration
    how = calibration.reason or f"{calibration.method} on {calibration.n_samples} held-out samples"
    statement = members[0].trust.conformal.statement()
    out: dict[str, Any] = {
        "score": f"P({SENSITIVE})",
        "calls": "threshold" if threshold is not None else "conformal",
        "alpha": float(max(member.trust.conformal.alpha for member in members)),
        "statement": statement if threshold is None else "Calls by a threshold; no error level is stated.",
        "calibrated": all(member.trust.calibration.is_calibrated for member in members),
        "calibration": how,
        "n_cells": len(combined.prob),
        "n_without_embedding": int((~combined.usable).sum()),
        "n_out_of_distribution": int(combined.ood.sum()),
        "out_of_distribution": combined.reasons,
        "models": {str(i): _describe(member.model) for i, member in enumerate(members)},
    }
    if threshold is not None:
        out["threshold"] = float(threshold)
    spread = members[0].trust.spread
    if spread is not None and np.isfinite(spread.between_sd):
        out["spread"] = {"between_sd": spread.between_sd, "df": int(spread.df), "n_samples": int(spread.n_samples)}
    bags = members[0].trust.bags
    if bags is not None and bags.available and len(members) == 1:
        out["bags"] = bags.to_dict() | bags.arrays()
    return out


def _describe(model: ResponseModel) -> dict[str, Any]:
    info = model.info
    return {
        "use_rep": model.representation["use_rep"],
        "name": model.representation["model"],
        "head": model.head.kind,
        **{name: info[name] for name in ("mode", "label_key", "group_key", "n_cells", "n_groups", "n_held_out_groups")},
        "data_hash": info["data_hash"],
        "metrics": {name: value for name, value in info["metrics"].items() if value is not None},
    }


def _expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
