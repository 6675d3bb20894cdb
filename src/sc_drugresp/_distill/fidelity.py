"""How close an embedding comes to that of the teacher on samples that took no part: geometry, neighbors, and what heads make of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._response.fit import fit_head
from .._stats.auroc import LEVEL, Interval, auroc_difference
from .._stats.groups import encode_groups
from .._stats.metrics import GroupSums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .scales import Scales

NEIGHBORS = 15
MOST_NEIGHBORED = 5_000
"""Cells among which neighbors are looked for; more of them are thinned out evenly."""
LEAST_GAIN, ROUNDING = 0.05, 1e-4
"""A cosine that is no further than the first above that of shuffled cells is nothing learned; gains below the second are none."""
OK, NOT_BETTER, NOT_LEARNED = "OK", "NOT_BETTER_THAN_RIDGE", "NOT_LEARNED"


@dataclass(frozen=True)
class Labels:
    """Labels of the cells that are labeled: what heads learn from and are judged on.

    Parameters
    ----------
    y, groups
        Label (1 sensitive, 0 resistant, -1 none) and sample of each cell.
    learn, judge
        Masks of the cells that heads learn from, and of the held-out ones, among the labeled cells.
    """

    y: np.ndarray
    groups: np.ndarray
    learn: np.ndarray
    judge: np.ndarray

    @property
    def usable(self) -> bool:
        """Whether both classes stand on both sides."""
        return all(len(np.unique(self.y[side])) == 2 for side in (self.learn, self.judge))

    def score(self, values: np.ndarray, seed: int) -> GroupSums:
        """Held-out cells, scored by a logistic head that learned from the other samples."""
        head = fit_head("logistic", values[self.learn], self.y[self.learn], self.groups[self.learn], rng=seed)
        logit = head.logit(values[self.judge])
        prob = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
        return GroupSums(self.y[self.judge], prob, self.groups[self.judge], logit)


def cosines(found: np.ndarray, wanted: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows after `center` is taken off; 0 where one of them is the center."""
    a, b = found - center, wanted - center
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(size > 0, (a * b).sum(axis=1) / np.where(size > 0, size, 1), 0.0).astype(np.float64)


def neighbors_kept(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean share of the nearest neighbors of a cell in one embedding that are among those in the other."""
    from sklearn.neighbors import NearestNeighbors

    k = min(NEIGHBORS, len(found) - 1)
    if k < 1:
        return float("nan")
    near = [NearestNeighbors(n_neighbors=k).fit(x).kneighbors(return_distance=False) for x in (found, wanted)]
    return float(np.mean([len(np.intersect1d(*pair)) / k for pair in zip(*near)]))


def mean_of_samples(values: np.ndarray, groups: np.ndarray) -> Interval:
    """Mean over samples of the mean of each, with Student's interval between samples."""
    from scipy.stats import t

    codes, names = encode_groups(groups)
    means, n = np.bincount(codes, values) / np.bincount(codes), len(names)
    value = float(means.mean())
    if n < 2:
        return Interval(value, np.nan, np.nan, n)
    half = float(t.ppf((1 + LEVEL) / 2, n - 1) * means.std(ddof=1) / np.sqrt(n))
    return Interval(value, value - half, value + half, n)


def measure(
    candidates: Mapping[str, tuple[np.ndarray, np.ndarray]],
    wanted: np.ndarray,
    scales: Scales,
    groups: np.ndarray,
    judge: np.ndarray,
    labels: Labels | None,
    *,
    seed: int,
) -> dict[str, Any]:
    """Compare embeddings with the teacher's on held-out cells.

    Parameters
    ----------
    candidates
        By name: what comes closest to the teacher's embedding (held-out cells alone), and the embedding itself (all cells).
        The two differ where a regression stands between them.
    wanted
        Embedding of the teacher, all cells.
    scales
        Means and spreads of the targets over the cells learned from.
    groups
        Sample of each cell.
    judge
        Mask of the held-out cells.
    labels
        Labels, where both classes are on both sides.
    seed
        Seed of heads and of the chance level.

    Returns
    -------
    `rows` by name, `verdict` and `reason`, `gain_over_ridge` with its interval, chance levels, numbers of cells and samples.
    """
    truth, held = wanted[judge], groups[judge]
    few = np.unique(np.linspace(0, len(truth) - 1, min(len(truth), MOST_NEIGHBORED)).astype(np.int64))
    reference = labels.score(wanted, seed) if labels is not None else None
    rows: dict[str, dict[str, float | None]] = {}
    angles: dict[str, np.ndarray] = {}
    for name, (close, values) in candidates.items():
        angle = angles[name] = cosines(close, truth, scales.target_mean)
        mean = mean_of_samples(angle, held)
        off = scales.standardized(close) - scales.standardized(truth)
        rows[name] = {
            "cosine": mean.value,
            "cosine_low": mean.low,
            "cosine_high": mean.high,
            "cosine_p05": float(np.quantile(angle, 0.05)),
            "r2": 1 - float(np.mean(off**2)) / max(float(np.mean(scales.standardized(truth) ** 2)), 1e-12),
            "neighbors_kept": neighbors_kept(values[judge][few], truth[few]),
            **_downstream(labels, reference, values, seed),
        }
    shuffled = np.random.default_rng([seed, 3]).permutation(len(truth))
    chance = float(np.mean(cosines(candidates["student"][0], truth[shuffled], scales.target_mean)))
    gain = mean_of_samples(angles["student"] - angles["ridge"], held)
    verdict, reason = _judge(rows["student"], gain, chance)
    return {
        "verdict": verdict,
        "reason": reason,
        "rows": rows,
        "gain_over_ridge": {"value": gain.value, "low": gain.low, "high": gain.high},
        "chance": {"cosine": chance, "neighbors_kept": min(1.0, NEIGHBORS / max(len(few) - 1, 1))},
        "teacher_auroc": None if reference is None else _auroc(reference),
        "n_cells": len(truth),
        "n_samples": gain.n_groups,
    }


def _auroc(sums: GroupSums) -> float:
    return float(sums.metrics(np.ones((1, sums.n_groups)))["auroc"][0])


def _downstream(
    labels: Labels | None, reference: GroupSums | None, values: np.ndarray, seed: int
) -> dict[str, float | None]:
    """Held-out AUROC of heads on an embedding, and the difference from heads on that of the teacher."""
    names = ("auroc", "auroc_difference", "difference_low", "difference_high")
    if labels is None or reference is None:
        return dict.fromkeys(names)
    scored = labels.score(values, seed)
    gap = auroc_difference(scored, reference)
    return dict(zip(names, (_auroc(scored), gap.value, gap.low, gap.high)))


def _judge(student: Mapping[str, Any], gain: Interval, chance: float) -> tuple[str, str]:
    """Verdict and the reason for it."""
    if student["cosine"] - chance < LEAST_GAIN or student["r2"] <= 0:
        return NOT_LEARNED, (
            f"On {gain.n_groups} held-out samples the cosine to the teacher is {student['cosine']:.3f} ({chance:.3f} for shuffled "
            f"cells) and R2 is {student['r2']:.3f}: the embedding cannot be learned from the counts of these cells."
        )
    limits = f"{gain.low:.3f} to {gain.high:.3f}" if np.isfinite(gain.low) else "a single sample, no interval"
    told = f"the cosine is {gain.value:+.3f} ({limits}) against a ridge regression on {gain.n_groups} held-out samples"
    if gain.value <= ROUNDING or gain.low <= ROUNDING:
        return NOT_BETTER, f"The student is not shown to be better than a ridge regression: {told}."
    return OK, f"The student is closer to the teacher than a ridge regression: {told}."
