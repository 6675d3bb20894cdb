"""Tidy scores: every metric by cell and by sample, per data set and averaged, with intervals and p-values."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._stats.auroc import Interval
from .._stats.intervals import MACRO, metric_intervals
from .._stats.metrics import sample_scores
from .._stats.permutation import Permutation, permutation_test


def score_rows(
    model: str,
    protocol: str,
    y: np.ndarray,
    prob: np.ndarray,
    units: np.ndarray,
    datasets: np.ndarray,
    *,
    kind: str = "model",
    n_labeled: int = 0,
    n_boot: int = 1000,
    n_permutations: int = 1000,
    rng: int = 0,
) -> list[dict[str, Any]]:
    """Tidy rows of all metrics: by cell and by sample, per data set and averaged over data sets (`'macro'`).

    Cells whose `prob` is NaN were not tested and are left out. The p-values are those of AUROC, one-sided, against
    labels dealt out to the units of each data set at random while the scores are held fixed; they are NaN for all other
    metrics and with `n_permutations=0`.
    """
    keep = ~np.isnan(prob)
    y, prob, units, datasets = y[keep], prob[keep], units[keep], datasets[keep].astype(str)
    fixed = {"model": model, "kind": kind, "protocol": protocol, "n_labeled": n_labeled}
    rows: list[dict[str, Any]] = []
    for by in ("cell", "sample"):
        if by == "cell":
            parts = (y, prob, np.char.add(np.char.add(datasets, "\t"), units.astype(str)), datasets)
            right: dict[str, int] = {}
        else:
            parts, right = _by_sample(y, prob, units, datasets)
        if not len(parts[0]):
            continue
        scores = metric_intervals(*parts, n_boot=n_boot, rng=rng)
        p_values = _p_values(*parts, n_permutations=n_permutations, rng=rng)
        for name, metrics in scores.items():
            if right:
                n_right = Interval(float(right[name]), np.nan, np.nan, metrics["auroc"].n_groups)
                metrics = metrics | {"samples_right": n_right}
            for metric, found in metrics.items():
                p_value = p_values.get(name, np.nan) if metric == "auroc" else np.nan
                rows.append(
                    {**fixed, "dataset": name, "level": by, "metric": metric, **vars(found), "p_value": p_value}
                )
    return rows


def _by_sample(
    y: np.ndarray, prob: np.ndarray, units: np.ndarray, datasets: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], dict[str, int]]:
    parts, right = [], {}
    for dataset in np.unique(datasets):
        rows = datasets == dataset
        samples = sample_scores(y[rows], prob[rows], units[rows])
        right[str(dataset)] = samples.n_right
        names = np.array([f"{dataset}\t{group}" for group in samples.groups], dtype=str)
        parts.append((samples.y, samples.prob, names, np.full(len(names), dataset)))
    right[MACRO] = sum(right.values())
    labels, means, names, where = (np.concatenate(part) for part in zip(*parts))
    return (labels, means, names, where), right


def _p_values(
    y: np.ndarray, prob: np.ndarray, units: np.ndarray, datasets: np.ndarray, *, n_permutations: int, rng: int
) -> dict[str, float]:
    """One p-value per data set; for their mean AUROC, independent draws of every data set are averaged."""
    if not n_permutations:
        return {}
    generator = np.random.default_rng(rng)
    tests: dict[str, Permutation] = {}
    for name in np.unique(datasets):
        own = (values[datasets == name] for values in (y, prob, units))
        tests[str(name)] = permutation_test(*own, n_permutations=n_permutations, rng=generator)
    out = {name: test.p_value for name, test in tests.items()}
    usable = [test for test in tests.values() if len(test.null)]
    if len(tests) == 1:
        out[MACRO] = next(iter(out.values()))
    elif usable:
        null = np.mean([generator.choice(test.null, n_permutations) for test in usable], axis=0)
        value = np.mean([test.value for test in usable])
        out[MACRO] = float((np.sum(null >= value - 1e-12) + 1) / (n_permutations + 1))
    return out
