"""How far a model may be trusted: calibration, calls, known cells; fitted on held-out samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import expit, logit

from .._core.hashing import data_hash
from .._core.keys import RESPONSE_CLASSES
from .._core.versions import package_versions
from .._stats.bags import BagModel, fit_bags
from .._stats.calibration import Calibration, fit_calibration
from .._stats.conformal import Conformal, fit_conformal, fit_sample_calls
from .._stats.distances import finite_rows
from .._stats.metrics import classification_metrics, sample_scores
from .._stats.ood import OODReference
from .._stats.ood_fit import fit_ood
from .._stats.patients import SampleSpread, fit_spread, sample_means
from .._stats.prior_shift import ClassScores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._stats.folds import Fold
    from .cells import TrainingCells

MIN_REFERENCE = 20
"""Training cells below which nothing is called unusual."""
_CLIP = 1e-6
_AGREE = 0.9
Part = tuple[dict[str, Any], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Trust:
    """What is known about the scores of a model.

    Parameters
    ----------
    calibration
        From logits to P(sensitive).
    conformal
        Calls of cells by their logit.
    samples
        Calls of samples by the score that the head gives a sample as a whole.
    means
        Calls of samples by the mean P(sensitive) of their cells, where some of the cells are left out.
    classes
        Scores of held-out samples of each class, to estimate another prevalence; `None` without calibration.
    reference
        The training cells, to recognize cells unlike them; `None` with fewer than 20.
    spread
        How much samples of one class differ; `None` without calibration.
    bags
        A classifier of whole samples; `None` without calibration.
    """

    calibration: Calibration
    conformal: Conformal
    samples: Conformal
    means: Conformal
    classes: ClassScores | None = None
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
        sample_logits: tuple[np.ndarray, np.ndarray] | None = None,
        embed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        folds: Sequence[Fold] = (),
        depth: np.ndarray | None = None,
        thinned: Callable[..., list[np.ndarray]] | None = None,
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
            Error level of the calls.
        rng
            Seed.
        sample_logits
            Names of samples and the held-out score of each as a whole, where the head has one; the mean logit of the cells
            otherwise.
        embed
            Refits features that were learned from these cells; distances are then measured in spaces that never saw the
            sample, as a foreign cell will be.
        folds
            Those of the held-out logits: refits for them need not be made again.
        depth
            Counts of each cell, where known.
        thinned
            `thinned(train, rows, shares)` fits to some cells and embeds others with each of these shares of their counts.
        """
        held = np.isfinite(logits)
        calibration = fit_calibration(logits[held], y[held], groups[held], rng=rng)
        informative = calibration.informative
        conformal = fit_conformal(logits[held], y[held], groups[held], alpha=error_level, informative=informative)
        names, labels = sample_labels(y[held], groups[held])
        known, scores = sample_logits or sample_means(logits, groups)
        found = dict(zip(known.tolist(), scores.tolist()))
        whole = np.array([found.get(name, np.nan) for name in names.tolist()], dtype=np.float64)
        mean = sample_means(calibration.probability(logits[held]), groups[held], names)[1]
        samples, means = (
            fit_sample_calls(z[np.isfinite(z)], labels[np.isfinite(z)], alpha=error_level, informative=informative)
            for z in (whole, log_odds(mean))
        )
        classes = reference = spread = bags = None
        own = np.flatnonzero(finite_rows(values))
        if len(own) >= MIN_REFERENCE:
            refit = None if embed is None else lambda train, rows: embed(own[train], own[rows])
            counts = None if depth is None else depth[own]
            pairs = [(fold.train, fold.test) for fold in folds] if len(own) == len(values) else []
            thin = None
            if thinned is not None and depth is not None and len(own) == len(values):
                thin = thinned
            reference = fit_ood(
                values if len(own) == len(values) else values[own],
                groups[own],
                y=y[own],
                embed=refit,
                folds=pairs,
                depth=counts,
                thinned=thin,
                rng=rng,
            )
        if calibration.is_calibrated:
            prob = calibration.probability(logits[held])
            spread = fit_spread(prob, y[held], groups[held])
            classes = ClassScores.of(prob, y[held], groups[held])
            if not sample_scores(y[held], prob, groups[held]).n_mixed:
                bags = fit_bags(y[held], groups[held], logits=log_odds(prob))
        return cls(calibration, conformal, samples, means, classes, reference, spread, bags)

    @property
    def level(self) -> float:
        """Stated error among calls."""
        return self.conformal.held_out.alpha

    def statement(self) -> str:
        """What a reader may take from a call of a cell and from that of a sample."""
        calibration = self.calibration
        if calibration.is_calibrated and not calibration.informative:
            return f"Nothing is called: {calibration.reason}."
        return f"{self.conformal.held_out.statement('cells')} {self.samples.held_out.statement('samples')}"

    def worth(self, prevalences: Mapping[str, float]) -> list[dict[str, Any]]:
        """Predictive values of calls of cells and samples at each prevalence, one row for each kind of call."""
        rows = []
        for unit, calls in (("cell", self.conformal.held_out), ("sample", self.samples.held_out)):
            error = dict(zip(("expected_error", "expected_error_low", "expected_error_high"), calls.error()))
            for at, prevalence in prevalences.items():
                for call, (value, low, high) in calls.predictive_values(prevalence).items():
                    column = RESPONSE_CLASSES.index(call)
                    rows.append(
                        {
                            "unit": unit,
                            "call": call,
                            "made": bool((calls.sensitive, calls.resistant)[column]),
                            "held_out_called": float(calls.counts[:, column].sum()),
                            "held_out_wrong": float(calls.counts[1 - column, column]),
                            **error,
                            "at": at,
                            "prevalence": float(prevalence),
                            "predictive_value": value,
                            "predictive_value_low": low,
                            "predictive_value_high": high,
                        }
                    )
        return rows

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
    "samples": Conformal,
    "means": Conformal,
    "classes": ClassScores,
    "reference": OODReference,
    "spread": SampleSpread,
    "bags": BagModel,
}


def sample_labels(y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Names and labels of the samples of which nine tenths of the cells agree."""
    names, index = np.unique(groups, return_inverse=True)
    share = np.bincount(index, y, minlength=len(names)) / np.maximum(np.bincount(index, minlength=len(names)), 1)
    agree = np.maximum(share, 1 - share) >= _AGREE
    return names[agree], (share[agree] > 0.5).astype(np.int64)


def log_odds(prob: np.ndarray) -> np.ndarray:
    """Logit of a probability, kept finite."""
    return logit(np.clip(prob, _CLIP, 1 - _CLIP))


def describe_training(logits: np.ndarray, cells: TrainingCells, values: np.ndarray) -> dict[str, Any]:
    """Provenance and held-out metrics of a model, as JSON values."""
    y, groups = cells.y, cells.units
    held = np.isfinite(logits)
    metrics: dict[str, Any] = {}
    if held.any():
        by_cell = classification_metrics(y[held], expit(logits[held]))
        samples = sample_scores(y[held], expit(logits[held]), groups[held])
        metrics = {f"cell_{name}": _finite(value) for name, value in by_cell.items()}
        metrics |= {"samples_right": samples.n_right, "samples": len(samples.y), "samples_mixed": samples.n_mixed}
        metrics["sample_auroc"] = _finite(classification_metrics(samples.y, samples.prob)["auroc"])
    names = [np.unique(cells.samples[y == label]).tolist() for label in (1, 0)]
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
        "data_hash": data_hash(np.asarray(values, dtype=np.float32), y, cells.samples),
        "verdict": cells.verdict.to_dict(),
        **cells.keys,
        "versions": package_versions(),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
