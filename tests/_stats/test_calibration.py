"""Calibration over samples: known truth by simulation, formulas written out again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from sc_drugresp._stats.calibration import Calibration, fit_calibration


def cohort(n_samples: int, rng: np.random.Generator, *, gap=1.5, between=0.7, cells=40, stretch=3.0):
    """Cells of samples with effects of their own; the true logit is `gap / (1 + between**2)` times score / stretch."""
    label = np.arange(n_samples) % 2
    sizes = rng.integers(cells // 2, cells * 2, n_samples)
    groups = np.repeat(np.arange(n_samples), sizes)
    center = rng.normal((label - 0.5) * gap, between)
    return stretch * rng.normal(center[groups]), label[groups], groups


def test_fit_is_the_penalized_maximum_of_the_sample_weighted_likelihood() -> None:
    z, y, groups = cohort(10, np.random.default_rng(0))
    fitted = fit_calibration(z, y, groups, n_boot=10)
    weights = 1 / np.bincount(groups)[groups]
    prior = 5.0 / np.sqrt(np.cov(z, aweights=weights, ddof=0))

    def loss(x: np.ndarray) -> float:
        sign = np.where(y == 1, 1, -1)
        return -(weights * log_expit(sign * (x[0] * z + x[1]))).sum() + 0.5 * (x[0] / prior) ** 2

    best = minimize(loss, [0.1, 0.0], method="BFGS", options={"gtol": 1e-9}).x
    # The intercept is not penalized, so centering the scores changes nothing.
    np.testing.assert_allclose([fitted.slope, fitted.bias], best, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fitted.probability(z), np.clip(expit(fitted.slope * z + fitted.bias), *fitted.limits))


def test_overconfident_scores_become_frequencies() -> None:
    rng = np.random.default_rng(1)
    fitted = fit_calibration(*cohort(60, rng), n_boot=20)
    z, y, groups = cohort(400, rng)
    weights = 1 / np.bincount(groups)[groups]

    def gap(prob: np.ndarray) -> float:
        """Expected calibration error over ten bins, every sample weighing the same."""
        signed = np.bincount(np.minimum((10 * prob).astype(int), 9), weights * (y - prob))
        return float(np.abs(signed).sum() / weights.sum())

    assert gap(expit(z)) > 0.12
    assert gap(fitted.probability(z)) < 0.05
    assert fitted.slope == pytest.approx(1.5 / (1 + 0.7**2) / 3, rel=0.25)


def test_every_sample_weighs_the_same_however_many_cells_it_has() -> None:
    z, y, groups = cohort(10, np.random.default_rng(2))
    once = fit_calibration(z, y, groups, n_boot=5)
    rows = np.concatenate([np.flatnonzero(groups != 3), *[np.flatnonzero(groups == 3)] * 9])
    often = fit_calibration(z[rows], y[rows], groups[rows], n_boot=5)
    assert often.bias == pytest.approx(once.bias, abs=1e-4)
    assert often.slope == pytest.approx(once.slope, rel=1e-3)


@pytest.mark.parametrize(
    ("labels", "found"), [([0, 1, 1], "3 held-out"), ([0, 1, 1, 1, 1], "4 with sensitive, 1 with")]
)
def test_too_few_samples_are_refused_with_the_reason(labels: list[int], found: str) -> None:
    groups = np.repeat(np.arange(len(labels)), 30)
    y = np.array(labels)[groups]
    fitted = fit_calibration(np.random.default_rng(0).normal(y), y, groups)
    assert not fitted.is_calibrated
    assert found in fitted.reason
    np.testing.assert_allclose(fitted.probability([0.3]), expit([0.3]))
    assert np.isnan(fitted.interval([0.3])).all()


def test_a_score_that_ranks_backwards_is_not_flipped() -> None:
    z, y, groups = cohort(12, np.random.default_rng(3), gap=3)
    fitted = fit_calibration(-z, y, groups, n_boot=20)
    assert fitted.slope == 0
    assert "chance" in fitted.reason
    np.testing.assert_allclose(fitted.probability([-5.0, 5.0]), 0.5)


def test_perfectly_separated_samples_stay_short_of_certainty() -> None:
    y = np.repeat([0, 1, 0, 1], 50)
    fitted = fit_calibration(np.where(y == 1, 8.0, -8.0), y, np.repeat(np.arange(4), 50))
    # Two samples of a class cannot support more than (2 + 1) / (2 + 2), whatever the score.
    np.testing.assert_allclose(fitted.probability([-80.0, -8.0, 8.0, 80.0]), [0.25, 0.25, 0.75, 0.75])
    low, high = fitted.interval([8.0])
    assert low[0] <= 0.75 < high[0]


@pytest.mark.parametrize("n_sensitive", [10, 3])
def test_a_score_without_rank_has_the_interval_of_the_prevalence(n_sensitive: int) -> None:
    """Slope 0: every cell gets the prevalence, and 20 samples do not know it exactly."""
    y = np.repeat(np.repeat([1, 0], [n_sensitive, 20 - n_sensitive]), 10)
    fitted = fit_calibration(np.where(y == 1, -1.0, 1.0), y, np.repeat(np.arange(20), 10), n_boot=5)
    assert fitted.slope == 0
    assert not fitted.informative
    low, high = (limit[0] for limit in fitted.interval([0.0]))
    share = n_sensitive / 20
    expected = 1.645 * np.sqrt(share * (1 - share) / 20)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.1)
    assert low < fitted.probability([0.0])[0] < high


@pytest.mark.parametrize("n_samples", [2, 40])
def test_state_survives_json_and_arrays(n_samples: int) -> None:
    z, y, groups = cohort(n_samples, np.random.default_rng(4))
    fitted = fit_calibration(z, y, groups, n_boot=20)
    data = json.loads(json.dumps(fitted.to_dict(), allow_nan=False))
    again = Calibration.from_dict(data, fitted.arrays())
    assert again.method == ("temperature" if n_samples == 40 else "none")
    np.testing.assert_array_equal(again.probability(z), fitted.probability(z))
    np.testing.assert_array_equal(again.interval(z), fitted.interval(z))


def test_missing_scores_stay_missing() -> None:
    z, y, groups = cohort(8, np.random.default_rng(6))
    fitted = fit_calibration(z, y, groups, n_boot=5)
    assert np.isnan(fitted.probability([np.nan, 0.0])).tolist() == [True, False]


@pytest.mark.slow
def test_limits_of_the_probability_hold_their_level() -> None:
    rng = np.random.default_rng(9)
    at, truth = np.array([-4.0, 0.0, 4.0]), expit(1.5 / (1 + 0.7**2) * np.array([-4.0, 0.0, 4.0]) / 3)
    inside = []
    for _ in range(40):
        low, high = fit_calibration(*cohort(16, rng), n_boot=40, rng=rng).interval(at)
        inside.append((low <= truth) & (truth <= high))
    # Nominal 0.9; three standard errors of 40 runs are 0.14.
    assert (np.mean(inside, axis=0) > 0.76).all()
