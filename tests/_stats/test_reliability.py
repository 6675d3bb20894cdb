"""Held-out probabilities against what was observed: tables by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from sc_drugresp._stats.reliability import reliability_table, risk_coverage


def test_reliability_table_by_hand() -> None:
    prob = np.array([0.2, 0.3, 0.8, 0.8, 0.8, 0.2])
    y = np.array([0, 1, 1, 1, 0, 0])
    groups = np.array(["a", "a", "a", "a", "b", "b"])
    table = reliability_table(y, prob, groups, n_bins=2)
    # Half of the weight lies below 0.3. Cells of sample a weigh 1/4, those of b 1/2.
    np.testing.assert_allclose(table["bin_high"], [0.3, 0.8])
    np.testing.assert_allclose(table["predicted"], [0.2, (0.25 * 0.3 + 0.5 * 0.8 + 0.5 * 0.8) / 1.25])
    np.testing.assert_allclose(table["observed"], [0.0, 0.75 / 1.25])
    np.testing.assert_allclose(table["weight"], [0.75 / 2, 1.25 / 2])
    assert table["n_cells"].tolist() == [2, 4]
    assert table["n_samples"].tolist() == [2, 2]


def test_reliability_limits_widen_when_cells_are_few_samples() -> None:
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(12), 200)
    p = expit(rng.normal((np.arange(12) % 2 - 0.5) * 1.5, 0.7)[groups] + rng.normal(size=2400))
    by_sample = reliability_table(groups % 2, p, groups, n_bins=4)
    by_cell = reliability_table(groups % 2, p, np.arange(2400), n_bins=4)
    width = [(t["observed_high"] - t["observed_low"]).mean() for t in (by_sample, by_cell)]
    assert width[0] > 2 * width[1]


def test_risk_coverage_by_hand_and_with_ties() -> None:
    y, p = np.array([1, 1, 0, 0]), np.array([0.9, 0.6, 0.7, 0.2])
    curve = risk_coverage(y, p, np.arange(4))
    np.testing.assert_allclose(curve["coverage"], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve["risk"], [0, 0, 1 / 3, 1 / 4])
    assert curve["n_cells"].tolist() == [1, 2, 3, 4]
    constant = risk_coverage(y, np.full(4, 0.7), np.arange(4))
    assert constant["risk"].tolist() == [0.5]


def test_samples_weigh_the_same_in_risk_coverage() -> None:
    y, p = np.array([1] * 9 + [0]), np.array([0.9] * 9 + [0.8])
    assert risk_coverage(y, p, np.arange(10))["risk"].iloc[-1] == pytest.approx(0.1)
    assert risk_coverage(y, p, np.array(["a"] * 9 + ["b"]))["risk"].iloc[-1] == pytest.approx(0.5)
