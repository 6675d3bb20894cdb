"""The metrics table of an evaluation, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.log import logger
from .._stats.intervals import MACRO
from .naive import (
    FITTED_NAIVE,
    constant_scores,
    naive_head,
    permuted_scores,
    prevalence_prediction,
    refit_p_value,
)
from .run import OutOfFold, cross_validate, score_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._stats.folds import Fold
    from .inputs import Design
    from .run import Features

STRICT, POOLED, FEW_SHOT = "leave_group_out", "pooled", "few_shot"
RANDOM_CELLS = (POOLED, "scdrugmap_pooled")
N_REFITS = 10
PLAIN: dict[str, Any] = {"C": 1.0}
"""The penalty of a random split of cells: scikit-learn's, as the field uses it, not tuned over samples."""


@dataclass(frozen=True)
class Run:
    """The folds of one protocol; `removed` copies of test cells were taken out of training.

    `remake` makes them again for other labels, where they depend on labels.
    """

    folds: list[Fold]
    removed: int = 0
    remake: Callable[[np.ndarray], list[Fold]] | None = None

    def for_labels(self, y: np.ndarray) -> list[Fold]:
        """The folds that other labels would have had."""
        return self.remake(y) if self.remake else self.folds


def runs_removed(runs: dict[str, Run]) -> int:
    """Copies of test cells taken out of training, over all protocols."""
    return sum(run.removed for run in runs.values())


@dataclass
class Table:
    """Rows of the metrics table as they are made, and out-of-fold predictions by (model, protocol)."""

    design: Design
    n_boot: int
    n_permutations: int
    n_refits: int
    rng: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    predictions: dict[tuple[str, str], OutOfFold] = field(default_factory=dict)

    def add_model(self, features: Features, protocol: str, run: Run, *, head: str, caution: str) -> None:
        head = getattr(features, "head", head)  # an encoder tuned in the folds brings its own
        for shots in sorted({fold.n_labeled for fold in run.folds}):
            folds = [fold for fold in run.folds if fold.n_labeled == shots]
            options: dict[str, Any] = PLAIN if protocol in RANDOM_CELLS and head == "logistic" else {}
            out = cross_validate(features, self.design.y, self.design.units, folds, head=head, rng=self.rng, **options)
            for note in out.notes:
                logger.warning("%s, %s: %s", features.name, protocol, note)
            added = self._score(features.name, protocol, out.prob, n_labeled=shots, caution=caution)
            self.predictions[features.name, protocol] = out
            if self.n_refits and protocol != FEW_SHOT:
                null = permuted_scores(
                    features,
                    self.design.y,
                    self.design.units,
                    self.design.datasets,
                    run.for_labels,
                    head=head,
                    n=self.n_refits,
                    rng=self.rng,
                    **options,
                )
                for row in added:
                    if row["metric"] == "auroc":
                        of = null["auroc" if row["level"] == "cell" else "auroc_sample"]
                        macro = row["dataset"] == MACRO
                        row["p_value"] = refit_p_value(row["value"], of) if macro else np.nan

    def add_naive(self, naive: dict[str, Features], protocol: str, run: Run) -> None:
        design = self.design
        tested = np.unique(np.concatenate([fold.test for fold in run.folds]))
        y, datasets = design.y[tested], design.datasets[tested]
        for name, metrics in constant_scores(y, datasets).items():
            for metric, value in metrics.items():
                self._row("constant", protocol, name, metric, value, n_groups=len(np.unique(design.units[tested])))
        prob = np.full(len(design.y), np.nan)
        prob[tested] = prevalence_prediction(y, datasets)
        self._score("prevalence", protocol, prob, kind="naive")
        for name in FITTED_NAIVE:
            head, options = naive_head(name)
            options = PLAIN if protocol in RANDOM_CELLS and head == "logistic" else options
            out = cross_validate(naive[name], design.y, design.units, run.folds, head=head, rng=self.rng, **options)
            self._score(name, protocol, out.prob, kind="naive")
        scores = permuted_scores(
            naive["permuted_labels"],
            design.y,
            design.units,
            design.datasets,
            run.for_labels,
            n=N_REFITS,
            rng=self.rng,
            **(PLAIN if protocol in RANDOM_CELLS else {"tune": False}),
        )
        for metric, values in scores.items():
            if metric == "auroc_sample":
                continue
            known = values[np.isfinite(values)]
            spread = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
            value = float(known.mean()) if len(known) else np.nan
            n_groups = len(np.unique(design.units[tested]))
            self._row("permuted_labels", protocol, MACRO, metric, value, *map(float, spread), n_groups=n_groups)

    def _score(
        self, model: str, protocol: str, prob: np.ndarray, *, kind: str = "model", n_labeled: int = 0, caution: str = ""
    ) -> list[dict[str, Any]]:
        design = self.design
        rows = score_rows(
            model,
            protocol,
            design.y,
            prob,
            design.units,
            design.datasets,
            kind=kind,
            n_labeled=n_labeled,
            n_boot=self.n_boot,
            n_permutations=0 if protocol in RANDOM_CELLS else self.n_permutations,
            rng=self.rng,
        )
        added = [{**row, "caution": caution} for row in rows]
        self.rows += added
        return added

    def _row(
        self,
        model: str,
        protocol: str,
        dataset: str,
        metric: str,
        value: float,
        low: float = np.nan,
        high: float = np.nan,
        *,
        n_groups: int,
    ) -> None:
        self.rows.append(
            {
                "model": model,
                "kind": "naive",
                "protocol": protocol,
                "n_labeled": 0,
                "dataset": dataset,
                "level": "cell",
                "metric": metric,
                "value": value,
                "low": low,
                "high": high,
                "n_groups": n_groups,
                "p_value": np.nan,
                "caution": "",
            }
        )
