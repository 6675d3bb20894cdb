"""Conformal calls: coverage by simulation, quantiles against their definition."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sc_drugresp._stats.conformal import Conformal, fit_conformal


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
    values = [true_coverage(fit_conformal(*cohort(n_samples, rng))).mean() for _ in range(n_runs)]
    return float(np.mean(values)), float(np.std(values) / np.sqrt(n_runs))


def test_pooled_level_covers_left_out_samples_on_average() -> None:
    z, y, groups = cohort(16, np.random.default_rng(1), between=1.0)
    fitted = fit_conformal(z, y, groups, alpha=0.1)
    resistant = np.unique(groups[y == 0])
    # The share of samples' mass below the threshold must be at least nominal, as leaving samples out asks for more.
    inside = np.mean([(z[groups == g] <= fitted.thresholds[1]).mean() for g in resistant])
    assert inside >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("n_samples", [8, 16, 32])
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


def test_too_few_samples_are_refused_and_all_cells_are_uncertain() -> None:
    fitted = fit_conformal(*cohort(6, np.random.default_rng(3)))
    assert (fitted.status, fitted.available) == ("TOO_FEW_SAMPLES", False)
    assert "needs 4 held-out samples" in fitted.reason
    assert fitted.sets([-9.0, 0.0, 9.0]).all()
    assert "No error level" in fitted.statement()
    enough = fit_conformal(*cohort(8, np.random.default_rng(3)))
    assert enough.available
    assert np.isfinite(enough.thresholds).all()
    assert "an estimate, not a guarantee" in enough.statement()


def test_sets_follow_the_thresholds_and_a_missing_score_excludes_nothing() -> None:
    fitted = Conformal("OK", "", 0.1, 9, 9, np.array([-1.0, 1.0]))
    logits = np.array([-2.0, 0.0, 2.0, np.nan])
    assert fitted.sets(logits).tolist() == [[False, True], [True, True], [True, False], [True, True]]
    crossed = Conformal("OK", "", 0.1, 9, 9, np.array([1.0, -1.0]))
    assert crossed.sets([0.0]).tolist() == [[False, False]]  # the middle is unlike both classes


def test_state_survives_json_and_arrays() -> None:
    z, y, groups = cohort(24, np.random.default_rng(5))
    fitted = fit_conformal(z, y, groups)
    again = Conformal.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)), fitted.arrays())
    assert again.statement() == fitted.statement()
    np.testing.assert_array_equal(again.sets(z), fitted.sets(z))
