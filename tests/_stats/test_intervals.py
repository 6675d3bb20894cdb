from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import norm

from sc_drugresp._stats.auroc import Interval, clustered_auroc, hanley_mcneil, macro_interval, newcombe
from sc_drugresp._stats.intervals import metric_intervals, share_intervals
from sc_drugresp._stats.metrics import METRICS, GroupSums, classification_metrics, group_kernel


def cohort(rng, k=6, cells=20, shift=0.5, mixed=False):
    """Cells of `2 k` samples: label, probability, sample."""
    groups = np.repeat(np.arange(2 * k), rng.integers(cells // 2, 2 * cells, 2 * k))
    y = rng.integers(0, 2, len(groups)) if mixed else (groups < k).astype(int)
    logit = shift * y + 0.5 * rng.normal(size=2 * k)[groups] + rng.normal(size=len(groups))
    return y, np.round(1 / (1 + np.exp(-logit)), 2), np.char.add("s", groups.astype(str))  # rounding makes ties


@pytest.mark.parametrize("mixed", [False, True])
def test_sums_equal_the_metrics_of_the_drawn_cells(mixed):
    y, prob, groups = cohort(np.random.default_rng(1), mixed=mixed)
    sums = GroupSums(y, prob, groups)
    weights = np.random.default_rng(2).integers(0, 4, (3, sums.n_groups)).astype(float)
    weights[0] = 1
    got = sums.metrics(weights)
    for row, weight in enumerate(weights):
        cells = np.repeat(np.arange(len(y)), weight[sums.index].astype(int))
        expected = classification_metrics(y[cells], prob[cells])
        assert {name: got[name][row] for name in METRICS} == pytest.approx(expected, nan_ok=True)


def test_group_kernel_is_the_double_loop():
    rng = np.random.default_rng(0)
    s, g, y = rng.integers(0, 5, 30) / 4, rng.integers(0, 3, 30), rng.integers(0, 2, 30)
    slow = np.zeros((3, 3))
    for i in np.flatnonzero(y == 1):
        for j in np.flatnonzero(y == 0):
            slow[g[i], g[j]] += (s[i] > s[j]) + 0.5 * (s[i] == s[j])
    np.testing.assert_allclose(group_kernel(s, y == 1, y == 0, g, 3), slow)


def test_variance_of_single_scores_is_delongs():
    rng = np.random.default_rng(3)
    y = np.repeat([1, 0], [12, 15])
    score = norm.cdf(rng.normal(size=27) + 0.8 * y)
    wins = (score[y == 1][:, None] > score[y == 0][None, :]).astype(float)
    delong = wins.mean(axis=1).var(ddof=1) / 12 + wins.mean(axis=0).var(ddof=1) / 15
    auroc = clustered_auroc(GroupSums(y, score, np.arange(27)))
    assert auroc.value == pytest.approx(wins.mean())
    assert auroc.variance == pytest.approx(max(delong, hanley_mcneil(wins.mean(), 12, 15)))


def test_hanley_mcneil_half_widths_of_the_literature():
    # Half-widths at AUROC 0.80 with n against n samples.
    got = [1.96 * np.sqrt(hanley_mcneil(0.8, n, n)) for n in (5, 7, 10, 20, 50)]
    np.testing.assert_allclose(got, [0.29, 0.24, 0.20, 0.14, 0.09], atol=0.006)


def test_newcombe_never_claims_certainty():
    low, high = newcombe(1.0, 4, 4, 1.96)
    assert 0.3 < low < 0.8
    assert high == 1.0


def test_one_sample_in_a_class_gives_no_interval():
    y, prob, groups = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.8, 0.1, 0.2, 0.3]), np.array(list("aabbc"))
    interval = metric_intervals(y, prob, groups)["macro"]["auroc"]
    assert interval.value == 1
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)


def test_percentile_bootstrap_by_hand():
    y, prob, groups = cohort(np.random.default_rng(4))
    out = metric_intervals(y, prob, groups, n_boot=400, rng=0)["macro"]["brier"]
    rng, names, drawn = np.random.default_rng(7), np.unique(groups), []
    by_class = [[g for g in names if y[groups == g][0] == kind] for kind in (0, 1)]
    loss = (prob - y) ** 2
    for _ in range(400):
        chosen = np.concatenate([rng.choice(members, len(members)) for members in by_class])
        drawn.append(np.concatenate([loss[groups == g] for g in chosen]).mean())
    assert out.value == pytest.approx(loss.mean())
    np.testing.assert_allclose([out.low, out.high], np.quantile(drawn, [0.025, 0.975]), atol=0.015)


def test_macro_is_the_mean_over_data_sets():
    rng = np.random.default_rng(5)
    first, second = cohort(rng, shift=0.2), cohort(rng, shift=1.5)
    y, prob = np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
    datasets = np.repeat(["a", "b"], [len(first[0]), len(second[0])])
    out = metric_intervals(y, prob, np.concatenate([first[2], second[2]]), datasets, n_boot=200)
    for metric in METRICS:
        assert out["macro"][metric].value == pytest.approx((out["a"][metric].value + out["b"][metric].value) / 2)
    assert out["a"]["auroc"].low < out["macro"]["auroc"].low
    widths = [out[name]["auroc"].high - out[name]["auroc"].low for name in ("a", "b", "macro")]
    assert widths[2] < max(widths[:2])


def test_macro_interval_is_no_wider_than_its_parts():
    """Two data sets with two samples a class, separated completely: the logit of 1 has no place in the mean."""
    y = np.tile(np.repeat([1, 0], 2), 3)
    datasets = np.repeat(["a", "b", "c"], 4)
    prob = np.tile([0.9, 0.8, 0.2, 0.1], 3)
    prob[-4:] = [0.9, 0.3, 0.4, 0.1]
    out = metric_intervals(y, prob, np.arange(12), datasets, n_boot=0)
    width = {name: found["auroc"].high - found["auroc"].low for name, found in out.items()}
    whole = out["macro"]["auroc"]
    assert 0 <= whole.low <= whole.value <= whole.high <= 1
    assert width["macro"] < np.mean([width[name] for name in "abc"])
    # MOVER by hand.
    below = [out[name]["auroc"].value - out[name]["auroc"].low for name in "abc"]
    assert whole.low == pytest.approx(whole.value - np.sqrt(np.sum(np.square(below))) / 3)


def test_a_part_without_limits_may_be_anything():
    part, unknown = Interval(0.8, 0.7, 0.9, 10), Interval(0.6, np.nan, np.nan, 3)
    whole = macro_interval([part, unknown])
    assert whole.value == pytest.approx(0.7)
    assert whole.low == pytest.approx(0.7 - np.hypot(0.1, 0.6) / 2)
    assert np.isnan(macro_interval([unknown, unknown]).low)
    assert macro_interval([unknown, unknown]).value == pytest.approx(0.6)
    assert np.isnan(macro_interval([Interval(np.nan, np.nan, np.nan, 3)]).value)


def test_cross_validated_scores_have_wider_intervals():
    y, prob, groups = cohort(np.random.default_rng(8))
    for level in ("cell", "sample"):
        if level == "sample":
            y, prob, groups = (np.arange(12) < 6).astype(int), np.random.default_rng(0).random(12), np.arange(12)
        auroc = clustered_auroc(GroupSums(y, prob, groups))
        given, learned = auroc.interval(), auroc.interval(cross_validated=True)
        assert learned.low < given.low < given.value < given.high < learned.high


def test_one_group_with_both_classes_keeps_the_interval():
    y, prob, groups = cohort(np.random.default_rng(9))
    y[np.flatnonzero(groups == "s0")[:3]] = 0
    found = metric_intervals(y, prob, groups, n_boot=50)["macro"]
    assert np.isfinite(found["auroc"].low)
    assert np.isfinite(found["brier"].low)


def test_shares_and_their_intervals():
    groups = np.repeat(np.arange(8), 5)
    y, datasets = groups % 2, np.where(groups < 4, "a", "b")
    of = np.random.default_rng(0).random(40) < 0.6
    hits = of & (groups % 3 == 0)
    found = share_intervals(hits, of, y, groups, datasets, n_boot=200)
    for name in "ab":
        rows = datasets == name
        assert found[name].value == pytest.approx(hits[rows].sum() / of[rows].sum())
        assert found[name].low <= found[name].value <= found[name].high
    assert found["macro"].value == pytest.approx((found["a"].value + found["b"].value) / 2)
    assert np.isnan(share_intervals(hits, np.zeros(40), y, groups, datasets)["macro"].value)


def test_ranks_and_probabilities_may_differ():
    y, prob, groups = cohort(np.random.default_rng(10))
    score = np.random.default_rng(11).random(len(y))
    both = GroupSums(y, prob, groups, score).metrics(np.ones((1, 12)))
    for metric in METRICS:
        values = score if metric in ("auroc", "auprc") else prob
        assert both[metric][0] == pytest.approx(classification_metrics(y, values)[metric])


def test_a_thousand_draws_take_less_than_a_second():
    y, prob, groups = cohort(np.random.default_rng(6), k=8, cells=300)
    metric_intervals(y[:50], prob[:50], groups[:50], n_boot=2)  # imports
    start = time.process_time()
    metric_intervals(y, prob, groups, n_boot=1000)
    assert len(y) > 4000
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("samples", [8, 16, 32])
@pytest.mark.parametrize("level", ["cell", "sample"])
def test_coverage(samples, level):
    """Truth is covered at the nominal rate within Monte-Carlo error, and a bootstrap of cells would not do it."""
    rng, covered, k, rho, runs = np.random.default_rng(samples), [], samples // 2, 0.3, 400
    truth = 0.75
    for _ in range(runs):
        m = rng.integers(15, 60, samples)
        groups = np.repeat(np.arange(samples), m)
        y = (groups < k).astype(int)
        score = np.sqrt(2) * norm.ppf(truth) * y
        score = score + np.sqrt(rho) * rng.normal(size=samples)[groups] + np.sqrt(1 - rho) * rng.normal(size=len(y))
        if level == "sample":
            y, groups = (np.arange(samples) < k).astype(int), np.arange(samples)
            score = np.sqrt(2) * norm.ppf(truth) * y + rng.normal(size=samples)
        covered.append(truth in clustered_auroc(GroupSums(y, norm.cdf(score), groups)).interval())
    error = np.sqrt(0.95 * 0.05 / runs)
    assert 0.95 - 3 * error < np.mean(covered)
    assert np.mean(covered) < 0.995
