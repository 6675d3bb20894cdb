"""Conformal sets and calls: coverage and error among calls by simulation, quantiles and p-values against their definition."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sc_drugresp._stats.conformal import Conformal, fit_conformal, fit_sample_calls
from sc_drugresp._stats.selective import HeldOutCalls, clopper_pearson, judge_calls, samples_for_level


def cohort(n_samples: int, rng: np.random.Generator, *, gap=2.0, between=0.7, cells=40):
    label = np.arange(n_samples) % 2
    groups = np.repeat(np.arange(n_samples), rng.integers(cells // 2, cells * 2, n_samples))
    center = rng.normal((label - 0.5) * gap, between)
    return rng.normal(center[groups]), label[groups], groups


def true_coverage(fitted: Conformal, gap=2.0, between=0.7) -> np.ndarray:
    """Exact share of cells of new samples whose class is in the set: sensitive, resistant."""
    from scipy.stats import norm

    low, high = fitted.thresholds
    sd = np.sqrt(1 + between**2)
    return np.array([norm.sf(low, gap / 2, sd), norm.cdf(high, -gap / 2, sd)])


def mean_coverage(n_samples: int, n_runs: int) -> tuple[float, float]:
    rng = np.random.default_rng(n_samples)
    values = [true_coverage(fit_conformal(*cohort(n_samples, rng), informative=False)).mean() for _ in range(n_runs)]
    return float(np.mean(values)), float(np.std(values) / np.sqrt(n_runs))


def test_pooled_level_covers_left_out_samples_on_average() -> None:
    z, y, groups = cohort(20, np.random.default_rng(1), between=1.0)
    fitted = fit_conformal(z, y, groups, alpha=0.1)
    resistant = np.unique(groups[y == 0])
    # The share of samples' mass below the threshold must be at least nominal, as leaving samples out asks for more.
    inside = np.mean([(z[groups == g] <= fitted.thresholds[1]).mean() for g in resistant])
    assert inside >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("n_samples", [18, 32])
def test_pooled_mode_is_nominal_on_new_samples(n_samples: int) -> None:
    coverage, error = mean_coverage(n_samples, 300)
    assert abs(coverage - 0.9) < 3 * error + 0.015


def test_left_out_samples_are_covered_at_the_smallest_level_that_does_it() -> None:
    z, y, groups = cohort(12, np.random.default_rng(2), between=1.0)
    high = fit_conformal(z, y, groups, alpha=0.2).thresholds[1]
    resistant = np.unique(groups[y == 0])

    def mean_left_out(level: float) -> float:
        """Mean share of a left-out sample's cells below the pooled quantile of the others at `level`."""
        shares = []
        for left in resistant:
            rest = [np.sort(z[groups == g]) for g in resistant if g != left]
            pooled = np.sort(np.concatenate(rest))
            mass = np.mean([np.searchsorted(part, pooled, side="right") / len(part) for part in rest], axis=0)
            shares.append((z[groups == left] <= pooled[min(np.searchsorted(mass, level), len(pooled) - 1)]).mean())
        return float(np.mean(shares))

    level = np.mean([(z[groups == g] <= high).mean() for g in resistant])
    assert mean_left_out(level + 0.01) >= 0.8 - 0.02
    assert mean_left_out(level - 0.05) < 0.8


def test_a_class_with_too_few_samples_is_never_excluded_and_the_number_needed_is_told() -> None:
    """`(n_k + 1) * alpha < 1`: not even the most extreme score is unusual at this level."""
    fitted = fit_conformal(*cohort(16, np.random.default_rng(3)))
    assert fitted.sets([-9.0, 0.0, 9.0]).all()
    assert not fitted.calls([-9.0, 0.0, 9.0]).any()
    assert "at least 9 held-out samples of each class and 22 in all, found 8" in fitted.held_out.statement()
    assert np.isfinite(fit_conformal(*cohort(18, np.random.default_rng(3))).thresholds).all()
    assert samples_for_level(0.2) == (4, 11)


def test_p_values_of_samples_are_those_of_split_conformal_prediction() -> None:
    rng = np.random.default_rng(4)
    y = np.arange(60) % 2
    z = rng.normal(3.0 * y)
    fitted = fit_sample_calls(z, y, alpha=0.1)
    for score, (sensitive, resistant) in zip(new := rng.normal(1.5, 2, 200), fitted.sets(new)):
        p_sensitive = ((z[y == 1] <= score).sum() + 1) / 31
        p_resistant = ((z[y == 0] >= score).sum() + 1) / 31
        assert sensitive == (p_sensitive > fitted.alpha + 1e-12)
        assert resistant == (p_resistant > fitted.alpha + 1e-12)


@pytest.mark.parametrize(("n_sensitive", "n_resistant", "gap"), [(4, 12, 3), (20, 20, 2), (10, 30, 2), (20, 20, 3)])
def test_wrong_among_called_samples_keep_the_stated_level(n_sensitive: int, n_resistant: int, gap: float) -> None:
    from scipy.stats import norm

    rng, wrong, called = np.random.default_rng(5), [], []
    y = np.repeat([1, 0], [n_sensitive, n_resistant])
    share = y.mean()
    for _ in range(200):
        fitted = fit_sample_calls(rng.normal(gap * (y - 0.5)), y)
        low, high = fitted.thresholds
        made = fitted.held_out
        # Above both thresholds only sensitive is left, below both only resistant.
        up, down = max(low, np.nextafter(high, np.inf)), min(high, np.nextafter(low, -np.inf))
        as_s = np.array([norm.sf(up, gap / 2), norm.sf(up, -gap / 2)]) * made.sensitive
        as_r = np.array([norm.cdf(down, gap / 2), norm.cdf(down, -gap / 2)]) * made.resistant
        wrong.append((1 - share) * as_s[1] + share * as_r[0])
        called.append(wrong[-1] + share * as_s[0] + (1 - share) * as_r[1])
    error = np.std(np.array(wrong) - 0.1 * np.array(called)) / np.sqrt(200) / max(np.mean(called), 1e-9)
    assert np.mean(wrong) <= (0.1 + 3 * error) * np.mean(called) + 1e-12
    if n_sensitive < 9:
        assert not any(called)  # too few of a class: not one sensitive patient is called resistant
    elif gap == 3:
        assert np.mean(called) > 0.5  # and calls are made where they are worth it


@pytest.mark.parametrize("n_samples", [8, 16, 24, 40])
def test_labels_dealt_at_random_lead_to_no_calls(n_samples: int) -> None:
    rng = np.random.default_rng(6)
    called = []
    for _ in range(40):
        z, y, groups = cohort(n_samples, rng, gap=0.0)
        _, first = np.unique(groups, return_index=True)
        mean = np.bincount(groups, z) / np.bincount(groups)
        called.append(fit_sample_calls(mean, y[first]).calls(mean).mean())
        called.append(fit_conformal(z, y, groups).calls(z).mean())
    assert np.mean(called) < 0.02


def test_a_score_that_ranks_nothing_calls_nothing() -> None:
    y = np.arange(40) % 2
    z = 6.0 * y - 3
    assert fit_sample_calls(z, y).calls(z).any(axis=1).all()
    assert not fit_sample_calls(z, y, informative=False).calls(z).any()
    assert not fit_conformal(z, y, np.arange(40), informative=False).calls(z).any()


def test_calls_no_better_than_prevalence_are_withheld() -> None:
    """With 5 % sensitive, whoever calls everybody resistant is wrong in 5 %: at a level of 10 % that is no knowledge."""
    y = np.repeat([1, 0], [10, 190])
    blind = np.tile([0.0, 1.0], (200, 1))
    assert not judge_calls(blind, y, 0.1).made
    informed = np.column_stack([y == 1, y == 0]).astype(float)
    assert judge_calls(informed, y, 0.1).made


def test_predictive_values_follow_bayes() -> None:
    counts = np.array([[16.0, 2.0], [1.0, 15.0]])
    held_out = HeldOutCalls(0.2, True, "", True, True, 20, 20, counts)
    value, low, high = held_out.predictive_values(0.1)["sensitive"]
    hit, slip = 16 / 20, 2 / 21  # one more wrong call than was seen
    assert value == pytest.approx(0.1 * hit / (0.1 * hit + 0.9 * slip))
    assert low < value < high
    assert held_out.predictive_values(0.5)["sensitive"][0] > value
    assert (held_out.called, held_out.wrong) == (34, 3)
    assert held_out.error()[0] == pytest.approx(4 / 35)
    assert clopper_pearson(0, 22, 0.9) < 0.1 < clopper_pearson(0, 21, 0.9)


def test_sets_follow_the_thresholds_and_a_missing_score_excludes_nothing() -> None:
    made = HeldOutCalls(0.1, True, "", True, False, 20, 20, np.diag([20.0, 20.0]))
    fitted = Conformal(0.1, np.array([-1.0, 1.0]), made)
    logits = np.array([-2.0, 0.0, 2.0, np.nan])
    assert fitted.sets(logits).tolist() == [[False, True], [True, True], [True, False], [True, True]]
    assert fitted.calls(logits).tolist() == [[False, False], [False, False], [True, False], [False, False]]
    crossed = Conformal(0.1, np.array([1.0, -1.0]), made)
    assert crossed.sets([0.0]).tolist() == [[False, False]]  # the middle is unlike both classes
    assert not crossed.calls([0.0]).any()


def test_state_survives_json_and_arrays() -> None:
    z, y, groups = cohort(24, np.random.default_rng(5))
    fitted = fit_conformal(z, y, groups)
    again = Conformal.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)), fitted.arrays())
    assert again.held_out.statement() == fitted.held_out.statement()
    np.testing.assert_array_equal(again.sets(z), fitted.sets(z))
