"""How far a model may be trusted: fitted after training, applied in prediction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from .._stats.bags import BagModel, fit_bags
from .._stats.calibration import Calibration, fit_calibration
from .._stats.conformal import Conformal, fit_conformal
from .._stats.folds import leave_group_out
from .._stats.metrics import classification_metrics, sample_scores
from .._stats.ood import OODReference, fit_ood
from .._stats.patients import SampleSpread, fit_spread

if TYPE_CHECKING:
    from .._stats.groups import State
    from .model import ResponseModel
    from .types import Embed

CALIBRATION, CONFORMAL, REFERENCE, SPREAD, BAGS = "calibration", "conformal", "ood", "spread", "bags"
MIN_REFERENCE = 20
States = dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]]


def strict_folds(y: np.ndarray, groups: np.ndarray, *, rng: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds that hold out whole samples, as `tl.evaluate` does; those that leave one class to learn from are left out."""
    if len(np.unique(groups)) < 2:
        return []
    folds = leave_group_out(y, groups, rng=rng)
    return [(fold.train, fold.test) for fold in folds if len(np.unique(y[fold.train])) == 2]


def fit_states(
    logits: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    values: np.ndarray,
    *,
    alpha: float,
    rng: int,
    embed: Embed | None = None,
    depth: np.ndarray | None = None,
) -> States:
    """Calibration, conformal thresholds and the reference of known cells, as `ResponseModel` keeps them.

    Parameters
    ----------
    logits
        Held-out logits of the labeled cells; NaN where a sample could not be held out.
    y, groups
        Label (1 sensitive, 0 resistant) and sample of each labeled cell.
    values
        Their embedding, shape `(n_cells, dim)`.
    embed
        Refits an embedding that was learned from these cells; distances are then measured in spaces that never saw the
        sample, as a foreign cell will be.
    depth
        Counts of each cell, where known.
    """
    held = np.isfinite(logits)
    calibration = fit_calibration(logits[held], y[held], groups[held], rng=rng)
    conformal = fit_conformal(logits[held], y[held], groups[held], alpha=alpha)
    usable = np.isfinite(values).all(axis=1)
    fitted: dict[str, State] = {CALIBRATION: calibration, CONFORMAL: conformal}
    if usable.sum() >= MIN_REFERENCE:
        own = np.flatnonzero(usable)
        refit = None if embed is None else lambda train, test: embed(own[train], own[test])
        fitted[REFERENCE] = fit_ood(
            values[own], groups[own], y=y[own], embed=refit, depth=None if depth is None else depth[own], rng=rng
        )
    if calibration.is_calibrated:
        prob = calibration.probability(logits[held])
        fitted[SPREAD] = fit_spread(prob, y[held], groups[held])
        if not sample_scores(y[held], prob, groups[held]).n_mixed:
            fitted[BAGS] = fit_bags(y[held], groups[held], logits=log_odds(prob))
    return {name: (state.to_dict(), state.arrays()) for name, state in fitted.items()}


@dataclass(frozen=True)
class Trust:
    """The fitted states of a model."""

    calibration: Calibration
    conformal: Conformal
    reference: OODReference | None
    spread: SampleSpread | None
    bags: BagModel | None


def read_states(model: ResponseModel) -> Trust:
    """Rebuild the fitted states of a model."""
    calibration = Calibration.from_dict(*model.states[CALIBRATION])
    conformal = Conformal.from_dict(*model.states[CONFORMAL])
    reference = OODReference.from_dict(*model.states[REFERENCE]) if REFERENCE in model.states else None
    spread = SampleSpread.from_dict(*model.states[SPREAD]) if SPREAD in model.states else None
    bags = BagModel.from_dict(*model.states[BAGS]) if BAGS in model.states else None
    return Trust(calibration, conformal, reference, spread, bags)


def log_odds(prob: np.ndarray) -> np.ndarray:
    """Logit of a probability, kept finite."""
    clipped = np.clip(prob, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def describe_training(logits: np.ndarray, y: np.ndarray, groups: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Provenance and held-out metrics of a model, as JSON values."""
    from scipy.special import expit

    held = np.isfinite(logits)
    metrics: dict[str, Any] = {}
    if held.any():
        cells = classification_metrics(y[held], expit(logits[held]))
        samples = sample_scores(y[held], expit(logits[held]), groups[held])
        metrics = {f"cell_{name}": _finite(value) for name, value in cells.items()}
        metrics |= {"samples_right": samples.n_right, "samples": len(samples.y), "samples_mixed": samples.n_mixed}
        metrics["sample_auroc"] = _finite(classification_metrics(samples.y, samples.prob)["auroc"])
    names = [np.unique(groups[y == label]).tolist() for label in (1, 0)]
    return {
        "n_cells": len(y),
        "n_sensitive": int(y.sum()),
        "n_resistant": int((1 - y).sum()),
        "n_groups": len(np.unique(groups)),
        "groups_sensitive": names[0],
        "groups_resistant": names[1],
        "n_held_out_groups": len(np.unique(groups[held])),
        "dim": int(values.shape[1]),
        "metrics": metrics,
        "data_hash": data_hash(values, y, groups),
        "versions": {name: version(name) for name in ("sc-drugresp", "anndata", "numpy", "scikit-learn", "torch")},
    }


def data_hash(values: np.ndarray, y: np.ndarray, groups: np.ndarray) -> str:
    """SHA-256 of what was learned from: embedding, labels and samples."""
    digest = hashlib.sha256(np.ascontiguousarray(values, dtype=np.float32).tobytes())
    digest.update(np.ascontiguousarray(y, dtype=np.int8).tobytes())
    digest.update("\n".join(map(str, groups)).encode())
    return digest.hexdigest()


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
