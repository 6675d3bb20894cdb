from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

from sc_drugresp._stats.permutation import label_arrangements, permutation_test


def test_exact_when_few():
    y, groups = np.repeat([1, 1, 0, 0, 0], 4), np.repeat(list("abcde"), 4)
    score = y + 0.01 * np.arange(20)
    test = permutation_test(y, score, groups)
    assert test.exact
    assert len(test.null) == comb(5, 2)
    assert test.value == 1
    assert test.p_value == pytest.approx(1 / 10)


def test_null_is_the_auroc_of_each_arrangement():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(5), [3, 4, 5, 6, 7])
    labels = np.array([1, 0, 1, 0, 0])
    score = np.round(rng.normal(size=25), 1)
    test = permutation_test(labels[groups], score, groups)
    arrangements, exact = label_arrangements(labels, 10, rng)
    assert exact
    expected = [roc_auc_score(row[groups], score) for row in arrangements]
    np.testing.assert_allclose(np.sort(test.null), np.sort(expected))


def test_random_draws_keep_the_number_of_each_class():
    labels = np.repeat([1, 0], [15, 20])
    drawn, exact = label_arrangements(labels, 50, np.random.default_rng(0))
    assert not exact
    assert (drawn.sum(axis=1) == 15).all()
    assert len(np.unique(drawn, axis=0)) == 50


@pytest.mark.parametrize("n_samples", [10, 30])
def test_p_values_are_uniform_without_signal(n_samples):
    rng, p_values = np.random.default_rng(1), []
    labels = (np.arange(n_samples) % 2).astype(int)
    groups = np.repeat(np.arange(n_samples), 5)
    for _ in range(200):
        score = rng.normal(size=n_samples)[groups] + rng.normal(size=len(groups))
        p_values.append(permutation_test(labels[groups], score, groups, n_permutations=199, rng=rng).p_value)
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_mixed_samples_flip_signs():
    rng = np.random.default_rng(2)
    groups, y = np.repeat(np.arange(6), 40), np.tile([0, 1], 120)
    signal = permutation_test(y, y + rng.normal(size=240), groups)
    assert signal.p_value == pytest.approx(1 / 2**6)
    assert permutation_test(y, rng.normal(size=240), groups).p_value > 0.02


def test_one_group_with_both_classes_goes_by_its_majority():
    groups = np.repeat(np.arange(10), 6)
    y = (groups < 5).astype(int)
    score = y + 0.1 * np.random.default_rng(0).random(60)
    pure = permutation_test(y, score, groups)
    y[0] = 0
    test = permutation_test(y, score, groups)
    assert test.exact
    assert test.p_value == pure.p_value == pytest.approx(1 / comb(10, 5))


def test_nothing_to_permute():
    test = permutation_test(np.array([1, 1, 0, 0]), np.arange(4.0), np.array(list("aaaa")))
    assert not len(test.null)
    assert np.isnan(test.p_value)
