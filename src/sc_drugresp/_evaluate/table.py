"""The metrics table of an evaluation, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.log import logger
from .._response.crossfit import OutOfFold, cross_validate
from .._stats.intervals import MACRO
from .naive import PERMUTED, constant_scores, permuted_scores, prevalence_prediction, refit_p_value
from .options import FEW_SHOT, POOLED
from .scores import score_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from .candidates import Candidate
    from .cohort import Cohort
    from .naive import NaiveBaseline
    from .options import EvaluationOptions
    from .protocols import Run

N_PERMUTED = 10
"""Models learned from labels dealt out at random, behind the row `permuted_labels`."""
PLAIN: dict[str, Any] = {"C": 1.0}
"""The penalty of a random split of cells: scikit-learn's, as the field uses it, not tuned over samples."""


@dataclass
class Table:
    """Rows of the metrics table as they are made, and out-of-fold predictions by (model, protocol)."""

    cohort: Cohort
    options: EvaluationOptions
    rng: int
    advance: Callable[[int], Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    predictions: dict[tuple[str, str], OutOfFold] = field(default_factory=dict)

    def add_model(self, candidate: Candidate, protocol: str, run: Run, *, head: str) -> None:
        """Score a model under a protocol, for each number of labeled samples of the target."""
        features = candidate.features
        wanted: Any = getattr(features, "head", head)  # an encoder tuned in the folds brings its own
        options: dict[str, Any] = PLAIN if protocol == POOLED and wanted == "logistic" else {}
        for shots in sorted({fold.n_labeled for fold in run.folds}):
            folds = [fold for fold in run.folds if fold.n_labeled == shots]
            out = self._cross_validate(features, folds, wanted, options)
            for note in out.notes:
                logger.warning("%s, %s: %s", candidate.name, protocol, note)
            added = self._score(candidate.name, protocol, out.prob, n_labeled=shots, caution=candidate.caution)
            self.predictions[candidate.name, protocol] = out
            if self.options.n_refits and protocol != FEW_SHOT:
                self._refit(features, run, wanted, options, added)

    def add_naive(self, baselines: dict[str, NaiveBaseline], protocol: str, run: Run) -> None:
        """Score every naive baseline under a protocol."""
        cohort = self.cohort
        tested = np.unique(np.concatenate([fold.test for fold in run.folds]))
        y, datasets = cohort.y[tested], cohort.datasets[tested]
        n_groups = len(np.unique(cohort.units[tested]))
        for name, metrics in constant_scores(y, datasets).items():
            for metric, value in metrics.items():
                self._row("constant", protocol, name, metric, value, n_groups=n_groups)
        prob = np.full(len(cohort.y), np.nan)
        prob[tested] = prevalence_prediction(y, datasets)
        self._score("prevalence", protocol, prob, kind="naive")
        for name, row in baselines.items():
            options = PLAIN if protocol == POOLED and row.head == "logistic" else dict(row.options)
            if name == PERMUTED:
                self._permuted(row, protocol, run, options, n_groups)
                continue
            out = self._cross_validate(row.features, run.folds, row.head, options)
            self._score(name, protocol, out.prob, kind="naive")

    def _cross_validate(self, features: Any, folds: Any, head: Any, options: dict[str, Any]) -> OutOfFold:
        cohort = self.cohort
        return cross_validate(
            features, cohort.y, cohort.units, folds, head=head, rng=self.rng, advance=self.advance, **options
        )

    def _null(self, features: Any, run: Run, head: Any, n: int, options: dict[str, Any]) -> dict[str, np.ndarray]:
        """Scores of models learned from labels dealt out at random."""
        cohort = self.cohort
        return permuted_scores(
            features, cohort.y, cohort.units, cohort.datasets, run.for_labels, head=head, n=n, rng=self.rng, **options
        )

    def _refit(self, features: Any, run: Run, head: Any, options: dict[str, Any], added: list[dict[str, Any]]) -> None:
        """Replace the p-values of AUROC by those from refits."""
        null = self._null(features, run, head, self.options.n_refits, options)
        for row in added:
            if row["metric"] == "auroc":
                of = null["auroc" if row["level"] == "cell" else "auroc_sample"]
                row["p_value"] = refit_p_value(row["value"], of) if row["dataset"] == MACRO else np.nan

    def _permuted(self, row: NaiveBaseline, protocol: str, run: Run, options: dict[str, Any], n_groups: int) -> None:
        for metric, values in self._null(row.features, run, row.head, N_PERMUTED, options).items():
            if metric == "auroc_sample":
                continue
            known = values[np.isfinite(values)]
            spread = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
            value = float(known.mean()) if len(known) else np.nan
            self._row(PERMUTED, protocol, MACRO, metric, value, *map(float, spread), n_groups=n_groups)

    def _score(
        self, model: str, protocol: str, prob: np.ndarray, *, kind: str = "model", n_labeled: int = 0, caution: str = ""
    ) -> list[dict[str, Any]]:
        cohort, options = self.cohort, self.options
        rows = score_rows(
            model,
            protocol,
            cohort.y,
            prob,
            cohort.units,
            cohort.datasets,
            kind=kind,
            n_labeled=n_labeled,
            n_boot=options.n_boot,
            n_permutations=0 if protocol == POOLED else options.n_permutations,
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
        fixed = {"kind": "naive", "n_labeled": 0, "level": "cell", "p_value": np.nan, "caution": ""}
        named = {"model": model, "protocol": protocol, "dataset": dataset, "metric": metric}
        self.rows.append({**named, **fixed, "value": value, "low": low, "high": high, "n_groups": n_groups})
