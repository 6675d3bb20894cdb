"""Conformal calls: coverage by simulation, quantiles against their definition."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sc_drugresp._stats.conformal import Conformal, coverage_table, fit_conformal, risk_coverage


def cohort(n_samples: int, rng: np.random.Generator, *, gap=2.0, between=0.7, cells=40):
    label = np.arange(n_samples) % 2
    groups = np.repeat(np.arange(n_samples), rng.integers(cells // 2, cells * 2, n_samples))
    center = rng.normal((label - 0.5) * gap, between)
    return rng.normal(center[groups]), label[groups], groups


def true_coverage(fitted: Conformal, gap=2.0, between=0.7) -> np.ndarray:
    """Exact share of cells of new samples whose class is in the set: sensitive, resistant."""
    from scipy.stats import norm

    low, high = fitted.thresholds[0]
    sd = np.sqrt(1 + between**2)
    return np.array([norm.sf(low, gap / 2, sd), norm.cdf(high, -gap / 2, sd)])


def mean_coverage(n_samples: int, n_runs: int, **options) -> tuple[float, float]:
    rng = np.random.default_rng(n_samples)
    values = [true_coverage(fit_conformal(*cohort(n_samples, rng), **options)).mean() for _ in range(n_runs)]
    return float(np.mean(values)), float(np.std(values) / np.sqrt(n_runs))


def test_guarantee_is_the_hierarchical_quantile_with_a_mass_at_infinity() -> None:
    z, y, groups = cohort(40, np.random.default_rng(0))
    fitted = fit_conformal(z, y, groups, alpha=0.1, guarantee=True)
    resistant = np.unique(groups[y == 0])
    # Smallest score at which the mean over 20 samples, times 20 / 21, reaches 0.9.
    for value in np.sort(z[y == 0]):
        if sum((z[groups == g] <= value).mean() for g in resistant) / (len(resistant) + 1) >= 0.9 - 1e-12:
            break
    assert fitted.thresholds[0, 1] == value


def test_pooled_level_covers_left_out_samples_on_average() -> None:
    z, y, groups = cohort(16, np.random.default_rng(1), between=1.0)
    fitted = fit_conformal(z, y, groups, alpha=0.1)
    plain = fit_conformal(z, y, groups, alpha=0.1, guarantee=False)
    assert fitted.thresholds.tolist() == plain.thresholds.tolist()
    resistant = np.unique(groups[y == 0])
    # The share of samples' mass below the threshold must be at least nominal, as leaving samples out asks for more.
    inside = np.mean([(z[groups == g] <= fitted.thresholds[0, 1]).mean() for g in resistant])
    assert inside >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("n_samples", [8, 16, 32])
def test_pooled_mode_is_nominal_on_new_samples(n_samples: int) -> None:
    coverage, error = mean_coverage(n_samples, 300)
    assert abs(coverage - 0.9) < 3 * error + 0.015


def test_guarantee_holds_on_new_samples() -> None:
    coverage, error = mean_coverage(24, 60, guarantee=True)
    assert coverage > 0.9 - 2 * error


def test_cells_as_units_are_too_optimistic_and_warn() -> None:
    rng = np.random.default_rng(2)
    # Scores of cells from the model's own samples: nothing is left of the spread between samples.
    z, y, _ = cohort(200, rng, between=0.0)
    with pytest.warns(UserWarning, match="too optimistic for new"):
        fitted = fit_conformal(z, y, np.arange(len(z)), unit="cell")
    assert true_coverage(fitted, between=0.7).mean() < 0.88
    assert "nothing is said about new samples" in fitted.statement()


@pytest.mark.parametrize(
    ("n_samples", "options", "needed"),
    [(6, {}, 4), (16, {"guarantee": True}, 9), (36, {"guarantee": True, "alpha": 0.05}, 19)],
)
def test_too_few_samples_are_refused_and_all_cells_are_uncertain(n_samples: int, options: dict, needed: int) -> None:
    z, y, groups = cohort(n_samples, np.random.default_rng(3))
    fitted = fit_conformal(z, y, groups, **options)
    assert (fitted.status, fitted.needed, fitted.available) == ("TOO_FEW_SAMPLES", needed, False)
    assert f"needs {needed} held-out samples" in fitted.reason
    assert set(fitted.calls([-9.0, 0.0, 9.0])[0]) == {"uncertain"}
    assert "No error level" in fitted.statement()
    enough = fit_conformal(*cohort(2 * needed, np.random.default_rng(3)), **options)
    assert enough.available
    assert np.isfinite(enough.thresholds).all()


def test_sets_become_calls() -> None:
    fitted = Conformal("OK", "", 0.1, "sample", False, True, 9, 9, 4, ("T",), np.array([[-1.0, 1.0], [1.0, -1.0]]))
    logits = np.array([-2.0, 0.0, 2.0, np.nan])
    assert fitted.sets(logits).tolist() == [[False, True], [True, True], [True, False], [True, True]]
    calls, empty = fitted.calls(logits)
    assert calls.tolist() == ["resistant", "uncertain", "sensitive", "uncertain"]
    assert not empty.any()
    # In stratum T the middle is unlike both classes.
    calls, empty = fitted.calls(logits[:3], ["T", "T", "B"])
    assert calls.tolist() == ["resistant", "uncertain", "sensitive"]
    assert empty.tolist() == [False, True, False]


def test_cell_types_get_their_own_thresholds_where_samples_suffice() -> None:
    rng = np.random.default_rng(4)
    z, y, groups = cohort(24, rng)
    types = np.where(rng.random(len(z)) < 0.5, "T", "B").astype(object)
    types[groups < 2] = "rare"
    z[types == "T"] += 3
    fitted = fit_conformal(z, y, groups, strata=types)
    assert fitted.strata == ("B", "T")
    assert fitted.thresholds[2, 0] > fitted.thresholds[1, 0] + 2
    np.testing.assert_array_equal(fitted.sets(z[:5], ["rare"] * 5), fitted.sets(z[:5]))


def test_state_survives_json_and_arrays() -> None:
    z, y, groups = cohort(24, np.random.default_rng(5))
    fitted = fit_conformal(z, y, groups, strata=np.where(groups % 3, "a", "b"))
    again = Conformal.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)), fitted.arrays())
    assert again.strata == fitted.strata
    assert again.statement() == fitted.statement()
    np.testing.assert_array_equal(again.sets(z, ["a"] * len(z)), fitted.sets(z, ["a"] * len(z)))


def test_statement_distinguishes_an_aim_from_a_guarantee() -> None:
    data = cohort(24, np.random.default_rng(6))
    assert "an estimate, not a guarantee" in fit_conformal(*data).statement()
    assert "exchangeable" in fit_conformal(*data, guarantee=True).statement()
    assert "exchangeable" not in fit_conformal(*data, guarantee=True, out_of_fold=False).statement()


def test_coverage_table_by_hand() -> None:
    fitted = Conformal("OK", "", 0.1, "sample", False, True, 9, 9, 4, (), np.array([[0.0, 1.0]]))
    z = np.array([2.0, -1.0, 0.5, 2.0, -1.0])
    table = coverage_table(fitted, z, np.array([1, 1, 1, 0, 0]), np.array(["a", "a", "b", "c", "d"]))
    assert table.loc["sensitive", "coverage"] == pytest.approx(0.5 * 0.5 + 0.5 * 1)
    assert table.loc["resistant", "coverage"] == pytest.approx(0.5)
    assert table.loc["sensitive", "called"] == pytest.approx(0.5)
    assert table.loc["sensitive", "error_of_called"] == pytest.approx(0.5)
    assert table.loc["all", "n_samples"] == 4


def test_risk_coverage_by_hand_and_with_ties() -> None:
    y, p = np.array([1, 1, 0, 0]), np.array([0.9, 0.6, 0.7, 0.2])
    curve = risk_coverage(y, p)
    np.testing.assert_allclose(curve.table["coverage"], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve.table["risk"], [0, 0, 1 / 3, 1 / 4])
    assert curve.aurc == pytest.approx((1 / 3 + 1 / 4) / 4)
    assert curve.aurc_random == pytest.approx(0.25)
    constant = risk_coverage(y, np.full(4, 0.7))
    assert len(constant.table) == 1
    assert constant.aurc == pytest.approx(constant.aurc_random) == pytest.approx(0.5)


def test_risk_coverage_limits_bracket_a_good_confidence() -> None:
    rng = np.random.default_rng(7)
    p = rng.random(5000)
    y = (rng.random(5000) < p).astype(int)
    curve = risk_coverage(y, p)
    assert curve.aurc_best < curve.aurc < curve.aurc_random
    # A perfect ranking of right and wrong calls reaches the best area.
    sure = np.where((p >= 0.5) == (y == 1), 0.4, 0.0) + 0.1 * np.abs(p - 0.5)
    best = risk_coverage(y, np.where(p >= 0.5, 0.5 + sure, 0.4999999 - sure))
    assert best.aurc == pytest.approx(best.aurc_best, abs=2e-3)


def test_samples_weigh_the_same_in_risk_coverage() -> None:
    y, p = np.array([1] * 9 + [0]), np.array([0.9] * 9 + [0.8])
    assert risk_coverage(y, p).aurc_random == pytest.approx(0.1)
    assert risk_coverage(y, p, np.array(["a"] * 9 + ["b"])).aurc_random == pytest.approx(0.5)
