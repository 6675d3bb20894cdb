"""Tidy scores: every metric by cell and by sample, per data set and averaged, with intervals and p-values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._stats.auroc import Interval
from .._stats.intervals import MACRO, metric_intervals, share_intervals
from .._stats.metrics import THRESHOLD, classification_metrics, sample_scores
from .._stats.permutation import Permutation, permutation_test

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .deployed import Deployed


@dataclass(frozen=True)
class Truth:
    """What is known of the labeled cells: label (1 sensitive, 0 resistant), sample and data set of each."""

    y: np.ndarray
    units: np.ndarray
    datasets: np.ndarray

    def at(self, rows: np.ndarray) -> Truth:
        """Some of the cells."""
        return Truth(self.y[rows], self.units[rows], self.datasets[rows])

    @property
    def names(self) -> np.ndarray:
        """Sample of each cell by a name that no other data set has."""
        return np.char.add(np.char.add(self.datasets.astype(str), "\t"), self.units.astype(str))

    def samples(self, *values: np.ndarray) -> tuple[Truth, list[np.ndarray]]:
        """One row per sample with a label, and the mean of each of the values."""
        parts, means = [], []
        for dataset in np.unique(self.datasets):
            rows = self.datasets == dataset
            found = [sample_scores(self.y[rows], value[rows], self.units[rows]) for value in values]
            parts.append((found[0].y, found[0].groups.astype(str), np.full(len(found[0].y), dataset)))
            means.append([samples.prob for samples in found])
        return Truth(*(np.concatenate(part) for part in zip(*parts))), [np.concatenate(m) for m in zip(*means)]


def score_rows(
    model: str,
    protocol: str,
    truth: Truth,
    prob: np.ndarray,
    *,
    score: np.ndarray | None = None,
    repeats: Sequence[np.ndarray] = (),
    whole: np.ndarray | None = None,
    whole_repeats: Sequence[np.ndarray] = (),
    kind: str = "model",
    n_labeled: int = 0,
    cross_validated: bool = True,
    n_boot: int = 1000,
    n_permutations: int = 1000,
    rng: int = 0,
) -> list[dict[str, Any]]:
    """Tidy rows of all metrics: by cell and by sample, per data set and averaged over data sets (`'macro'`).

    Cells whose `prob` is NaN were not tested and are left out. AUROC and AUPRC rank by `score`, all other metrics judge
    `prob`. Samples are ranked by the mean of `whole` over their cells (`score` if it is not given). The p-values are those of AUROC, one-sided, against labels dealt out to the units of each data set at random
    while the scores are held fixed; they are NaN for all other metrics and with `n_permutations=0`. `repeats` are the
    scores of single pairings, whose AUROC is given by its standard deviation and range.
    """
    score = prob if score is None else score
    keep = ~np.isnan(prob)
    whole = score if whole is None else whole
    cells, prob, score, whole = truth.at(keep), prob[keep], score[keep], whole[keep]
    single = [values[keep] for values in repeats]
    several = [values[keep] for values in whole_repeats or repeats]
    fixed = {"model": model, "kind": kind, "protocol": protocol, "n_labeled": n_labeled}
    rows: list[dict[str, Any]] = []
    samples, (mean_prob, mean_score, *means) = cells.samples(prob, whole, *several)
    for by, part, p, s, one in (
        ("cell", cells, prob, score, single),
        ("sample", samples, mean_prob, mean_score, means),
    ):
        if not len(part.y):
            continue
        scores = metric_intervals(
            part.y, p, part.names, part.datasets, score=s, cross_validated=cross_validated, n_boot=n_boot, rng=rng
        )
        p_values = _p_values(part, s, n_permutations=n_permutations, rng=rng)
        spread = _spread(part, one)
        right = _right(part, p) if by == "sample" else {}
        for name, metrics in scores.items():
            if right:
                n_right = Interval(float(right[name]), np.nan, np.nan, metrics["auroc"].n_groups)
                metrics = metrics | {"samples_right": n_right}
            for metric, found in metrics.items():
                row = {**fixed, "dataset": name, "level": by, "metric": metric, **vars(found)}
                if metric == "auroc":
                    row |= {"p_value": p_values.get(name, np.nan), **spread.get(name, {})}
                rows.append(row)
    return rows


def call_rows(
    model: str, protocol: str, truth: Truth, deployed: Deployed, *, kind: str, n_labeled: int, n_boot: int, rng: int
) -> list[dict[str, Any]]:
    """Share of the cells and samples that are called (`called`), and share of these calls that are wrong (`called_wrong`)."""
    fixed = {"model": model, "kind": kind, "protocol": protocol, "n_labeled": n_labeled}
    keep = ~np.isnan(deployed.prob)
    cells, levels, rows = truth.at(keep), {}, []
    if deployed.calls is not None:
        levels["cell"] = (cells, deployed.calls[keep])
    if deployed.sample_calls is not None:
        # The call of a sample stands on each of its cells.
        samples, (calls,) = cells.samples(deployed.sample_calls[keep].astype(float))
        levels["sample"] = (samples, calls.round().astype(np.int64))
    for by, (part, calls) in levels.items():
        called = calls >= 0
        wrong = called & (calls != part.y)
        every = np.ones(len(called))
        for metric, (hits, of) in {"called": (called, every), "called_wrong": (wrong, called)}.items():
            found = share_intervals(hits, of, part.y, part.names, part.datasets, n_boot=n_boot, rng=rng)
            rows += [{**fixed, "dataset": name, "level": by, "metric": metric, **vars(i)} for name, i in found.items()]
    return rows


def _right(samples: Truth, prob: np.ndarray) -> dict[str, int]:
    """Samples whose mean lies on the side of their label."""
    good = (prob >= THRESHOLD) == (samples.y == 1)
    return {str(name): int(good[samples.datasets == name].sum()) for name in np.unique(samples.datasets)} | {
        MACRO: int(good.sum())
    }


def _spread(truth: Truth, repeats: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """How the AUROC differs between single pairings, per data set and averaged over data sets."""
    if len(repeats) < 2:
        return {}
    names = np.unique(truth.datasets)
    values: dict[str, np.ndarray] = {}
    for name in names:
        rows = truth.datasets == name
        values[str(name)] = np.array([classification_metrics(truth.y[rows], s[rows])["auroc"] for s in repeats])
    defined = [found for found in values.values() if np.isfinite(found).all()]
    values[MACRO] = np.mean(defined, axis=0) if defined else np.full(len(repeats), np.nan)
    return {
        name: {"repeat_sd": float(v.std(ddof=1)), "repeat_low": float(v.min()), "repeat_high": float(v.max())}
        for name, v in values.items()
    }


def _p_values(truth: Truth, score: np.ndarray, *, n_permutations: int, rng: int) -> dict[str, float]:
    """One p-value per data set; for their mean AUROC, independent draws of every data set are averaged."""
    if not n_permutations:
        return {}
    generator = np.random.default_rng(rng)
    tests: dict[str, Permutation] = {}
    for name in np.unique(truth.datasets):
        rows = truth.datasets == name
        tests[str(name)] = permutation_test(
            truth.y[rows], score[rows], truth.units[rows], n_permutations=n_permutations, rng=generator
        )
    out = {name: test.p_value for name, test in tests.items()}
    usable = [test for test in tests.values() if len(test.null)]
    if len(tests) == 1:
        out[MACRO] = next(iter(out.values()))
    elif usable:
        null = np.mean([generator.choice(test.null, n_permutations) for test in usable], axis=0)
        value = np.mean([test.value for test in usable])
        out[MACRO] = float((np.sum(null >= value - 1e-12) + 1) / (n_permutations + 1))
    return out
