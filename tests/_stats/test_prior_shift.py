"""Prevalence from unlabeled cells: recovered where label shift holds, reported with its uncertainty."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit

from sc_drugresp._stats.calibration import fit_calibration
from sc_drugresp._stats.prior_shift import ClassScores, correct_prior


def new_cells(prevalence: float, rng: np.random.Generator, *, n_samples=20, per_sample=200, gap=2.0):
    """Calibrated P(sensitive) for training prevalence 0.5: scores are normal around -gap/2 and gap/2."""
    groups = np.repeat(np.arange(n_samples), per_sample)
    y = (rng.random(len(groups)) < prevalence).astype(int)
    return expit(gap * rng.normal((y - 0.5) * gap)), y, groups


@pytest.fixture(scope="module")
def known() -> ClassScores:
    """Class means of so many training samples that they add no uncertainty."""
    return ClassScores.of(*new_cells(0.5, np.random.default_rng(10), n_samples=400))


@pytest.mark.parametrize("prevalence", [0.05, 0.3, 0.86])
def test_prevalence_is_recovered_and_inside_its_interval(prevalence: float, known: ClassScores) -> None:
    prob, _, groups = new_cells(prevalence, np.random.default_rng(0))
    found = correct_prior(prob, groups, train_prevalence=0.5, classes=known)
    assert found.prevalence == pytest.approx(prevalence, abs=0.03)
    assert found.low - 0.02 <= prevalence <= found.high + 0.02
    assert found.shifted


def test_em_maximizes_the_likelihood_of_the_mixture(known: ClassScores) -> None:
    prob, _, groups = new_cells(0.2, np.random.default_rng(1), n_samples=3, per_sample=50)
    ratio = prob / (1 - prob)
    best = minimize_scalar(lambda q: -np.log(q * ratio + 1 - q).sum(), bounds=(1e-6, 1 - 1e-6), method="bounded")
    found = correct_prior(prob, groups, train_prevalence=0.5, classes=known)
    assert found.prevalence == pytest.approx(best.x, abs=1e-3)


def test_corrected_probabilities_follow_bayes_and_are_better(known: ClassScores) -> None:
    prob, y, groups = new_cells(0.05, np.random.default_rng(2))
    found = correct_prior(prob, groups, train_prevalence=0.5, classes=known)
    odds = prob / (1 - prob) * found.prevalence / (1 - found.prevalence)
    np.testing.assert_allclose(found.prob, odds / (1 + odds))
    assert ((found.prob - y) ** 2).mean() < 0.7 * ((prob - y) ** 2).mean()
    assert (np.argsort(found.prob) == np.argsort(prob)).all()


def test_samples_weigh_the_same(known: ClassScores) -> None:
    prob = np.concatenate([np.full(900, 0.9), np.tile([0.9, 0.1], 50)])
    groups = np.repeat(["a", "b"], [900, 100])
    # LR 9 or 1/9 with shares 0.75 and 0.25: 0.9 q + 0.1 (1 - q) = 0.75 has q = 0.8125.
    found = correct_prior(prob, groups, train_prevalence=0.5, classes=known)
    assert found.prevalence == pytest.approx(0.8125, abs=1e-4)


def test_unshifted_prevalence_is_left_alone(known: ClassScores) -> None:
    prob, _, groups = new_cells(0.5, np.random.default_rng(3))
    found = correct_prior(prob, groups, train_prevalence=0.5, classes=known)
    assert not found.shifted
    assert np.abs(found.prob - prob).max() < 0.03


def test_it_is_reported(known: ClassScores) -> None:
    prob, _, groups = new_cells(0.02, np.random.default_rng(4), n_samples=3)
    found = correct_prior(prob, groups, train_prevalence=0.6, classes=known)
    assert np.isnan(found.low)
    assert not found.shifted
    assert "too few samples" in found.statement()
    assert "in training 0.60" in found.statement()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["low"] is None


def test_a_single_class_is_named() -> None:
    classes = ClassScores.of([0.05, 0.1, 0.9, 0.95] * 3, [0, 0, 1, 1] * 3, range(12))
    found = correct_prior(np.full(500, 0.05), np.repeat(np.arange(5), 100), train_prevalence=0.5, classes=classes)
    assert 0 < found.prevalence < 0.01
    assert "single class" in found.statement()


def test_where_scores_cannot_tell_nothing_is_estimated(known: ClassScores) -> None:
    prob, _, groups = new_cells(0.2, np.random.default_rng(5), n_samples=8)
    flat = ClassScores.of([0.5] * 12, [0, 1] * 6, range(12))
    vague = ClassScores.of([0.4, 0.6, 0.5, 0.5, 0.6, 0.5] * 2, [0, 1] * 6, range(12))
    for classes in (flat, vague):
        found = correct_prior(prob, groups, train_prevalence=0.5, classes=classes)
        assert "not tell" in found.refused
        assert np.isnan([found.prevalence, found.low, found.high]).all()
        assert "not estimated" in found.statement()
        np.testing.assert_array_equal(found.prob, prob)
    few = ClassScores.of([0.1, 0.9] * 4, [0, 1] * 4, range(8))
    assert "6 held-out samples of each class" in correct_prior(prob, groups, train_prevalence=0.5, classes=few).refused
    beyond = correct_prior(np.full(400, 0.9999), np.repeat(np.arange(8), 50), train_prevalence=0.5, classes=known)
    assert "unlike any mixture" in beyond.refused


@pytest.mark.parametrize("n_training", [12, 24])
def test_the_interval_knows_that_the_calibration_is_an_estimate(n_training: int) -> None:
    """Scores of few training samples, new samples of one class each: 90 % intervals hold the truth as often as they say."""
    rng, inside = np.random.default_rng(11), []

    def draw(label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        groups = np.repeat(np.arange(len(label)), 20)
        return rng.normal(rng.normal(2.0 * (label - 0.5), 0.7)[groups]), label[groups], groups

    for _ in range(150):
        z, y, groups = draw(np.arange(n_training) % 2)
        calibration = fit_calibration(z, y, groups, n_boot=2)
        classes = ClassScores.of(calibration.probability(z), y, groups)
        new, _, names = draw((rng.random(20) < 0.25).astype(int))
        found = correct_prior(calibration.probability(new), names, train_prevalence=0.5, classes=classes)
        if not found.refused:
            inside.append(found.low <= 0.25 <= found.high)
    assert len(inside) > 40
    assert np.mean(inside) > 0.9 - 3 * np.sqrt(0.09 / len(inside))
