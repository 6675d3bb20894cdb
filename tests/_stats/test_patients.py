"""Samples from cells: worst clones, shrinkage and intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from sc_drugresp._stats.patients import SampleSpread, aggregate_samples, fit_spread


def test_mean_and_worst_clone_by_hand() -> None:
    prob = np.concatenate([np.full(60, 0.9), np.full(36, 0.3), np.full(4, 0.0), np.full(50, 0.6)])
    groups = np.repeat(["b", "a"], [100, 50])
    clones = np.concatenate([np.repeat(["x", "y", "tiny"], [60, 36, 4]), np.repeat("x", 50)])
    table = aggregate_samples(prob, groups, clones=clones)
    assert table.index.tolist() == ["a", "b"]
    mean = 0.6 * 0.9 + 0.36 * 0.3
    assert table.loc["b", "mean"] == pytest.approx(mean)
    # The clone of 4 % does not count; that of 36 cells is shrunk by 36 / 56.
    assert table.loc["b", "worst_clone"] == "y"
    assert table.loc["b", "worst"] == pytest.approx(36 / 56 * 0.3 + 20 / 56 * mean)
    assert table.loc["b", "n_clones"] == 2
    assert table.loc["b", "fraction_sensitive"] == pytest.approx(0.6)
    np.testing.assert_allclose(table.loc["a", ["worst", "mean"]].astype(float), 0.6)


def test_shrinkage_stops_noise_from_naming_a_worst_clone() -> None:
    rng = np.random.default_rng(0)
    prob, clones = rng.uniform(size=400), np.repeat(np.arange(10), 40)
    raw = prob.reshape(10, 40).mean(axis=1).min()
    shrunk = aggregate_samples(prob, np.zeros(400), clones=clones)["worst"].iloc[0]
    assert raw < shrunk < prob.mean()


def test_missing_scores_are_counted_not_dropped_silently() -> None:
    table = aggregate_samples([0.2, np.nan, 0.4, np.nan], ["a", "a", "a", "b"])
    assert table.loc["a", "n_missing"] == 1
    assert table.loc["a", "mean"] == pytest.approx(0.3)
    assert np.isnan(table.loc["b", "mean"])


def test_spread_between_samples_is_recovered() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(300), 50)
    y = groups % 2
    center = rng.normal((np.arange(300) % 2) * 2 - 1, 0.6)
    spread = fit_spread(expit(center[groups]), y, groups)
    assert spread.between_sd == pytest.approx(0.6, rel=0.1)
    # Noise of cells alone is not taken for a difference between samples.
    noise = fit_spread(rng.uniform(size=len(y)), y, groups)
    assert noise.between_sd < 0.1
    assert noise.df == 298


def test_interval_of_a_sample_covers_replicates_of_its_class() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 60)
    y = groups % 2
    center = rng.normal((np.arange(40) % 2) * 2 - 1, 0.7)
    prob = expit(center[groups] + 0.5 * rng.normal(size=len(groups)))
    spread = fit_spread(prob, y, groups)
    table = aggregate_samples(prob, groups, spread=spread)
    alone = aggregate_samples(prob, groups)
    assert set(table["interval"]) == {"cells and samples"}
    assert set(alone["interval"]) == {"cells only"}
    typical = expit(np.where(np.arange(40) % 2, 1.0, -1.0) * 0.95)
    inside = (table["mean_low"] <= typical) & (typical <= table["mean_high"])
    assert inside.mean() >= 0.8
    assert ((alone["mean_low"] <= typical) & (typical <= alone["mean_high"])).mean() < 0.5


def test_bootstrap_width_is_that_of_a_mean() -> None:
    prob = np.random.default_rng(3).uniform(0.3, 0.7, 400)
    table = aggregate_samples(prob, np.zeros(400), n_boot=2000).iloc[0]
    expected = 1.645 * prob.std() / np.sqrt(400)
    assert (table["mean_high"] - table["mean_low"]) / 2 == pytest.approx(expected, rel=0.1)


def test_one_sample_in_training_gives_no_spread() -> None:
    spread = fit_spread([0.2, 0.4, 0.3], [1, 1, 1], ["a", "a", "a"])
    assert np.isnan(spread.between_sd)
    again = SampleSpread.from_dict(spread.to_dict(), spread.arrays())
    assert np.isnan(again.between_sd)
    assert aggregate_samples([0.2, 0.4], ["a", "a"], spread=spread)["interval"].tolist() == ["cells only"]
