"""How far a model may be trusted: calibration, conformal thresholds, known cells; fitted on held-out samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import expit, logit

from .._core.hashing import data_hash
from .._core.versions import package_versions
from .._stats.bags import BagModel, fit_bags
from .._stats.calibration import Calibration, fit_calibration
from .._stats.conformal import Conformal, fit_conformal
from .._stats.metrics import classification_metrics, sample_scores
from .._stats.ood import OODReference
from .._stats.ood_fit import fit_ood
from .._stats.patients import SampleSpread, fit_spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._stats.folds import Fold

MIN_REFERENCE = 20
"""Training cells below which nothing is called unusual."""
_CLIP = 1e-6
Part = tuple[dict[str, Any], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Trust:
    """What is known about the scores of a model.

    Parameters
    ----------
    calibration
        From logits to P(sensitive).
    conformal
        Logits from which a class is excluded.
    reference
        The training cells, to recognize cells unlike them; `None` with fewer than 20.
    spread
        How much samples of one class differ; `None` without calibration.
    bags
        A classifier of whole samples; `None` without calibration.
    """

    calibration: Calibration
    conformal: Conformal
    reference: OODReference | None = None
    spread: SampleSpread | None = None
    bags: BagModel | None = None

    @classmethod
    def fit(
        cls,
        logits: np.ndarray,
        y: np.ndarray,
        groups: np.ndarray,
        values: np.ndarray,
        *,
        error_level: float,
        rng: int,
        embed: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
        folds: Sequence[Fold] = (),
        depth: np.ndarray | None = None,
    ) -> Self:
        """Fit all parts.

        Parameters
        ----------
        logits
            Held-out logits of the labeled cells; NaN where a sample could not be held out.
        y, groups
            Label (1 sensitive, 0 resistant) and sample of each labeled cell.
        values
            Their features, shape `(n_cells, dim)`.
        error_level
            Error level of the conformal calls.
        rng
            Seed.
        embed
            Refits features that were learned from these cells; distances are then measured in spaces that never saw the
            sample, as a foreign cell will be.
        folds
            Those of the held-out logits: refits for them need not be made again.
        depth
            Counts of each cell, where known.
        """
        held = np.isfinite(logits)
        calibration = fit_calibration(logits[held], y[held], groups[held], rng=rng)
        conformal = fit_conformal(logits[held], y[held], groups[held], alpha=error_level)
        reference = spread = bags = None
        own = np.flatnonzero(np.isfinite(values).all(axis=1))
        if len(own) >= MIN_REFERENCE:
            refit = None if embed is None else lambda train, test: embed(own[train], own[test])
            known = None if depth is None else depth[own]
            pairs = [(fold.train, fold.test) for fold in folds] if len(own) == len(values) else []
            reference = fit_ood(values[own], groups[own], y=y[own], embed=refit, folds=pairs, depth=known, rng=rng)
        if calibration.is_calibrated:
            prob = calibration.probability(logits[held])
            spread = fit_spread(prob, y[held], groups[held])
            if not sample_scores(y[held], prob, groups[held]).n_mixed:
                bags = fit_bags(y[held], groups[held], logits=log_odds(prob))
        return cls(calibration, conformal, reference, spread, bags)

    def parts(self) -> dict[str, Part]:
        """JSON values and arrays of each part, by its name."""
        found = {name: getattr(self, name) for name in PARTS}
        return {name: (part.to_dict(), part.arrays()) for name, part in found.items() if part is not None}

    @classmethod
    def from_parts(cls, parts: Mapping[str, Part]) -> Self:
        """Rebuild from what :meth:`parts` gave."""
        return cls(**{name: kind.from_dict(*parts[name]) for name, kind in PARTS.items() if name in parts})


PARTS: dict[str, Any] = {
    "calibration": Calibration,
    "conformal": Conformal,
    "reference": OODReference,
    "spread": SampleSpread,
    "bags": BagModel,
}


def log_odds(prob: np.ndarray) -> np.ndarray:
    """Logit of a probability, kept finite."""
    return logit(np.clip(prob, _CLIP, 1 - _CLIP))


def describe_training(logits: np.ndarray, y: np.ndarray, groups: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Provenance and held-out metrics of a model, as JSON values."""
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
        "data_hash": data_hash(np.asarray(values, dtype=np.float32), y, groups),
        "versions": package_versions(),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
