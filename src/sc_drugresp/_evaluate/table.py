"""The metrics table of an evaluation, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.log import logger
from .._response.crossfit import OutOfFold, cross_validate_repeats, mean_of
from .._stats.intervals import MACRO
from .._stats.metrics import CALIBRATION_METRICS
from .calls import call_metric_rows
from .deployed import Deployed, deploy
from .naive import PERMUTED, constant_scores, permuted_scores, prevalence_prediction, refit_p_value
from .options import FEW_SHOT, POOLED
from .scores import Truth, call_rows, score_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._stats.folds import Fold
    from .calls import Calls
    from .candidates import Candidate
    from .cohort import Cohort
    from .naive import NaiveBaseline
    from .options import EvaluationOptions
    from .protocols import Run

N_PERMUTED = 10
"""Models learned from labels dealt out at random, behind the row `permuted_labels`."""
PLAIN: dict[str, Any] = {"C": 1.0}
"""The penalty of a random split of cells: scikit-learn's, as the field uses it, not tuned over samples."""


@dataclass(frozen=True)
class Scored:
    """What was found for the cells: the scores that rank them, the fold that tested them, and what users would have got.

    `selection` says which head that was, and how it was chosen.
    """

    score: np.ndarray
    fold: np.ndarray
    deployed: Deployed
    selection: dict[str, Any] = field(default_factory=dict)


@dataclass
class Table:
    """Rows of the metrics table as they are made, and what was found for the cells by (model, protocol)."""

    cohort: Cohort
    options: EvaluationOptions
    rng: int
    advance: Callable[[int], Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    found: dict[tuple[str, str], Scored] = field(default_factory=dict)
    _fitted: dict[tuple[Any, ...], tuple[Any, list[OutOfFold]]] = field(default_factory=dict)

    def add_model(self, candidate: Candidate, protocol: str, run: Run, *, head: str) -> None:
        """Score a model under a protocol, for each number of labeled samples of the target."""
        features = candidate.features
        tuned = getattr(
            features, "head", None
        )  # an encoder tuned in the folds brings its own, and is too slow to repeat
        options: dict[str, Any] = PLAIN if protocol == POOLED and (tuned or head) == "logistic" else {}
        for shots in sorted({fold.n_labeled for fold in run.folds}):
            repeats = [[fold for fold in folds if fold.n_labeled == shots] for folds in run.repeats]
            outs = self._cross_validate(features, repeats[:1] if tuned else repeats, tuned or head, options)
            for note in dict.fromkeys(note for out in outs for note in out.notes):
                logger.warning("%s, %s: %s", candidate.name, protocol, note)
            shown = {"kind": candidate.kind, "n_labeled": shots, "caution": candidate.caution}
            added = self._add(candidate.name, protocol, outs, repeats[0], **shown)
            if self.options.n_refits and protocol != FEW_SHOT and candidate.kind == "model":
                self._refit(features, run, tuned or head, options, added)

    def add_naive(self, baselines: dict[str, NaiveBaseline], protocol: str, run: Run) -> None:
        """Score every naive baseline under a protocol."""
        cohort, truth = self.cohort, self.truth
        tested = run.tested
        self.add_constant(protocol, tested)
        prob = np.full(len(cohort.y), np.nan)
        prob[tested] = prevalence_prediction(cohort.y[tested], cohort.datasets[tested])
        self._score("prevalence", protocol, prob, kind="naive", cross_validated=False)
        for name, row in baselines.items():
            options = PLAIN if protocol == POOLED and row.head == "logistic" else dict(row.options)
            if name == PERMUTED:
                self._permuted(row, protocol, run, options, truth.at(tested))
                continue
            outs = self._cross_validate(row.features, run.repeats[: row.most_repeats], row.head, options)
            self._add(name, protocol, outs, run.folds, kind="naive")

    def add_constant(self, protocol: str, tested: np.ndarray) -> None:
        """Score the better of the two constant answers, by cell and by sample."""
        cells = self.truth.at(tested)
        for level, part in (("cell", cells), ("sample", cells.samples(np.zeros(len(tested)))[0])):
            if not len(part.y):
                continue
            n_groups = len(np.unique(part.names))
            for name, metrics in constant_scores(part.y, part.datasets).items():
                for metric, value in metrics.items():
                    self._row("constant", protocol, name, level, metric, value, n_groups=n_groups)

    def add_external(self, name: str, protocol: str, deployed: Deployed, *, caution: str, prevalence: float) -> None:
        """Score what a saved model says of cells that it was not trained on, beside its prevalence for every cell."""
        self._score(name, protocol, deployed.prob, caution=caution, cross_validated=False)
        self._call(name, protocol, deployed)
        self.found[name, protocol] = Scored(deployed.prob, np.zeros(len(deployed.prob), dtype=np.int64), deployed)
        if self.options.baselines:
            same = np.full(len(deployed.prob), prevalence)
            self._score(f"{name}, prevalence", protocol, same, kind="naive", cross_validated=False)

    def add_calls(self, calls: Calls, protocol: str, tested: np.ndarray) -> None:
        """Score calls that were there before, as they are."""
        how = {"n_boot": self.options.n_boot, "rng": self.rng}
        self.rows += call_metric_rows(calls, protocol, self.truth, tested, **how)

    @property
    def truth(self) -> Truth:
        """What is known of the labeled cells."""
        return Truth(self.cohort.y, self.cohort.units.astype(str), self.cohort.datasets.astype(str))

    def _cross_validate(
        self, features: Any, repeats: Sequence[Sequence[Fold]], head: Any, options: dict[str, Any]
    ) -> list[OutOfFold]:
        y, units, advance = self.cohort.y, self.cohort.units, self.advance
        # `pca` and `pca_logistic` are one row by two names: what was fitted once is looked up by what it was made from.
        key = (id(features), head, repr(options), *(id(fold) for folds in repeats for fold in folds))
        if key in self._fitted:
            if advance is not None:
                advance(sum(map(len, repeats)))
            return self._fitted[key][1]
        outs = cross_validate_repeats(features, y, units, repeats, head=head, rng=self.rng, advance=advance, **options)
        self._fitted[key] = ((features, repeats), outs)  # what is kept keeps its identity
        return outs

    def _add(
        self, model: str, protocol: str, outs: Sequence[OutOfFold], folds: Sequence[Fold], **shown: Any
    ) -> list[dict[str, Any]]:
        """Rows of a model that was cross-validated once for every pairing; `folds` are those of the first."""
        out, cohort = mean_of(outs), self.cohort
        units = cohort.units
        whole: dict[str, Any] = {"whole": out.whole(units), "whole_repeats": [one.whole(units) for one in outs]}
        deployed = Deployed(out.prob)
        if protocol != POOLED:
            deployed = deploy(out.prob, out.logit, out.sample_logit, cohort.y, cohort.units, folds)
        added = self._score(
            model, protocol, deployed.prob, score=out.prob, repeats=[one.prob for one in outs], **whole, **shown
        )
        self._call(model, protocol, deployed, **shown)
        if shown["kind"] == "model":
            self.found[model, protocol] = Scored(out.prob, out.fold, deployed, out.selection)
        return added

    def _null(self, features: Any, folds: Any, head: Any, n: int, options: dict[str, Any]) -> Any:
        """Scores of models learned from labels dealt out at random."""
        y, units, datasets = self.cohort.y, self.cohort.units, self.cohort.datasets
        return permuted_scores(features, y, units, datasets, folds, head=head, n=n, rng=self.rng, **options)

    def _refit(self, features: Any, run: Run, head: Any, options: dict[str, Any], added: list[dict[str, Any]]) -> None:
        """Replace the p-values of AUROC by those from refits."""
        null = self._null(features, run.for_labels, head, self.options.n_refits, options)
        for row in added:
            if row["metric"] == "auroc":
                of = null[row["level"]]["auroc"]
                row["p_value"] = refit_p_value(row["value"], of) if row["dataset"] == MACRO else np.nan

    def _permuted(self, row: NaiveBaseline, protocol: str, run: Run, options: dict[str, Any], tested: Truth) -> None:
        n_groups = len(np.unique(tested.names))
        null = self._null(row.features, lambda y: run.for_labels(y)[:1], row.head, N_PERMUTED, options)
        for level, scores in null.items():
            for metric, values in scores.items():
                if metric in CALIBRATION_METRICS:  # nothing is calibrated to labels dealt out at random
                    continue
                known = values[np.isfinite(values)]
                spread = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
                value = float(known.mean()) if len(known) else np.nan
                self._row(PERMUTED, protocol, MACRO, level, metric, value, *map(float, spread), n_groups=n_groups)

    def _score(
        self, model: str, protocol: str, prob: np.ndarray, *, caution: str = "", **how: Any
    ) -> list[dict[str, Any]]:
        n_permutations = 0 if protocol == POOLED else self.options.n_permutations
        rows = score_rows(
            model,
            protocol,
            self.truth,
            prob,
            n_boot=self.options.n_boot,
            n_permutations=n_permutations,
            rng=self.rng,
            **how,
        )
        added = [{**row, "caution": caution} for row in rows]
        self.rows += added
        return added

    def _call(
        self,
        model: str,
        protocol: str,
        deployed: Deployed,
        *,
        kind: str = "model",
        n_labeled: int = 0,
        caution: str = "",
    ) -> None:
        how: dict[str, Any] = {"kind": kind, "n_labeled": n_labeled, "n_boot": self.options.n_boot, "rng": self.rng}
        self.rows += [{**row, "caution": caution} for row in call_rows(model, protocol, self.truth, deployed, **how)]

    def _row(
        self,
        model: str,
        protocol: str,
        dataset: str,
        level: str,
        metric: str,
        value: float,
        low: float = np.nan,
        high: float = np.nan,
        *,
        n_groups: int,
    ) -> None:
        fixed = {"kind": "naive", "n_labeled": 0, "caution": ""}
        named = {"model": model, "protocol": protocol, "dataset": dataset, "level": level, "metric": metric}
        self.rows.append({**named, **fixed, "value": value, "low": low, "high": high, "n_groups": n_groups})
