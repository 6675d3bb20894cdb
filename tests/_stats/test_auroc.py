"""The difference of two AUROCs of the same cells, with an interval whose unit is the group."""

from __future__ import annotations

import numpy as np
import pytest

from sc_drugresp._stats.auroc import auroc_difference
from sc_drugresp._stats.metrics import GroupSums


def sums(y: np.ndarray, score: np.ndarray, groups: np.ndarray) -> GroupSums:
    return GroupSums(y, 1 / (1 + np.exp(-score)), groups, score)


def two_scores(rng: np.random.Generator, n_groups: int, gap: float) -> tuple[GroupSums, GroupSums]:
    """Two noisy views of the same groups; the first tells the classes apart better by `gap`."""
    groups = np.repeat(np.arange(n_groups), 10)
    y = groups % 2
    own = rng.normal(size=n_groups)[groups]
    noise = rng.normal(size=(2, n_groups))[:, groups] + rng.normal(size=(2, len(groups)))
    return tuple(sums(y, shift * y + own + extra, groups) for shift, extra in zip((1 + gap, 1), noise))


def test_the_interval_holds_no_difference_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for n_groups, least in ((8, 0.9), (24, 0.9)):
        found = [auroc_difference(*two_scores(rng, n_groups, 0)) for _ in range(200)]
        assert least <= np.mean([0 in interval for interval in found]) <= 1
    assert np.mean([interval.value for interval in found]) == pytest.approx(0, abs=0.02)


def test_a_large_difference_is_found():
    rng = np.random.default_rng(1)
    found = [auroc_difference(*two_scores(rng, 24, 4)) for _ in range(50)]
    assert np.mean([interval.low > 0 for interval in found]) > 0.8
    first, second = two_scores(rng, 24, 4)
    there, back = auroc_difference(first, second), auroc_difference(second, first)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_what_cannot_be_known_has_no_limits():
    groups = np.repeat(np.arange(3), 4)
    y = (groups == 0).astype(int)
    rng = np.random.default_rng(2)
    first, second = (sums(y, rng.normal(size=12), groups) for _ in range(2))
    alone = auroc_difference(first, second)
    assert np.isfinite(alone.value)
    assert np.isnan([alone.low, alone.high]).all()
    same = auroc_difference(first, first)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    groups = np.repeat(np.arange(8), 4)
    y, score = groups % 2, np.where(groups % 2, 5.0, -5.0)
    perfect = auroc_difference(sums(y, score + rng.normal(size=32), groups), sums(y, score, groups))
    assert perfect.value == 0
    assert np.isnan([perfect.low, perfect.high]).all()
