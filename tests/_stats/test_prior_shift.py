"""Prevalence from unlabeled cells: recovered where label shift holds, reported with its uncertainty."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit

from sc_drugresp._stats.prior_shift import correct_prior


def new_cells(prevalence: float, rng: np.random.Generator, *, n_samples=20, per_sample=200, gap=2.0):
    """Calibrated P(sensitive) for training prevalence 0.5: scores are normal around -gap/2 and gap/2."""
    groups = np.repeat(np.arange(n_samples), per_sample)
    y = (rng.random(len(groups)) < prevalence).astype(int)
    return expit(gap * rng.normal((y - 0.5) * gap)), y, groups


@pytest.mark.parametrize("prevalence", [0.05, 0.3, 0.86])
def test_prevalence_is_recovered_and_inside_its_interval(prevalence: float) -> None:
    prob, _, groups = new_cells(prevalence, np.random.default_rng(0))
    found = correct_prior(prob, groups, train_prevalence=0.5)
    assert found.prevalence == pytest.approx(prevalence, abs=0.03)
    assert found.low - 0.02 <= prevalence <= found.high + 0.02
    assert found.shifted


def test_em_maximizes_the_likelihood_of_the_mixture() -> None:
    prob, _, groups = new_cells(0.2, np.random.default_rng(1), n_samples=3, per_sample=50)
    ratio = prob / (1 - prob)
    best = minimize_scalar(lambda q: -np.log(q * ratio + 1 - q).sum(), bounds=(1e-6, 1 - 1e-6), method="bounded")
    found = correct_prior(prob, groups, train_prevalence=0.5, n_boot=10)
    assert found.prevalence == pytest.approx(best.x, abs=1e-3)


def test_corrected_probabilities_follow_bayes_and_are_better() -> None:
    prob, y, groups = new_cells(0.05, np.random.default_rng(2))
    found = correct_prior(prob, groups, train_prevalence=0.5)
    odds = prob / (1 - prob) * found.prevalence / (1 - found.prevalence)
    np.testing.assert_allclose(found.prob, odds / (1 + odds))
    assert ((found.prob - y) ** 2).mean() < 0.7 * ((prob - y) ** 2).mean()
    assert (np.argsort(found.prob) == np.argsort(prob)).all()


def test_samples_weigh_the_same() -> None:
    prob = np.concatenate([np.full(900, 0.9), np.tile([0.9, 0.1], 50)])
    groups = np.repeat(["a", "b"], [900, 100])
    # LR 9 or 1/9 with shares 0.75 and 0.25: 0.9 q + 0.1 (1 - q) = 0.75 has q = 0.8125.
    found = correct_prior(prob, groups, train_prevalence=0.5, n_boot=10)
    assert found.prevalence == pytest.approx(0.8125, abs=1e-4)


def test_unshifted_prevalence_is_left_alone() -> None:
    prob, _, groups = new_cells(0.5, np.random.default_rng(3))
    found = correct_prior(prob, groups, train_prevalence=0.5)
    assert not found.shifted
    assert np.abs(found.prob - prob).max() < 0.03


def test_it_is_reported() -> None:
    prob, _, groups = new_cells(0.02, np.random.default_rng(4), n_samples=3)
    found = correct_prior(prob, groups, train_prevalence=0.6, n_boot=10)
    assert np.isnan(found.low)
    assert not found.shifted
    assert "too few samples" in found.statement()
    assert "in training 0.60" in found.statement()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["low"] is None
    single = correct_prior(np.full(500, 0.05), np.repeat(np.arange(5), 100), train_prevalence=0.5)
    assert 0 < single.prevalence < 0.01
    assert "single class" in single.statement()
