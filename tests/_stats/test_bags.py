"""Classifiers of samples: a decisive minority, refusals, and the linear map they are stored as."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sc_drugresp._stats.bags import BagModel, fit_bags


def minority(n_samples: int, rng: np.random.Generator):
    """A tenth of the cells of resistant samples scores low; means are hidden by differences between samples."""
    groups = np.repeat(np.arange(n_samples), 80)
    y = np.arange(n_samples) % 2
    z = rng.normal(rng.normal(0, 0.7, n_samples)[groups], 0.5)
    low = (rng.random(len(groups)) < 0.1) & (y[groups] == 0)
    z[low] -= 4
    return z, y, groups


def test_moments_see_the_minority_that_the_mean_misses() -> None:
    rng = np.random.default_rng(0)
    z, y, groups = minority(60, rng)
    model = fit_bags(y[groups], groups, logits=z)
    z, y, groups = minority(100, rng)
    by_bag = roc_auc_score(y, model.probability(groups, logits=z))
    by_mean = roc_auc_score(y, np.bincount(groups, weights=z) / 80)
    assert by_bag > 0.95
    assert by_mean < 0.85


def test_pseudobulk_is_a_logistic_regression_on_means() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), 30)
    y = groups % 2
    X = rng.normal(size=(360, 5)) + y[:, None] * np.array([2.0, 0, 0, 0, 0])
    model = fit_bags(y, groups, kind="pseudobulk", X=X)
    means = np.array([X[groups == g].mean(axis=0) for g in range(12)])
    expected = 1 / (1 + np.exp(-(means @ model.coef + model.intercept)))
    found = model.probability(groups, X=X)
    np.testing.assert_allclose(found, expected)
    assert roc_auc_score(np.arange(12) % 2, found) == 1.0
    assert np.argmax(np.abs(model.coef) * means.std(axis=0)) == 0


def test_linear_map_equals_the_fitted_pipeline() -> None:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(2)
    X, y = rng.normal(3, [1, 5, 2], (10, 3)), np.arange(10) % 2
    model = fit_bags(y, np.arange(10), kind="pseudobulk", X=X)
    scaled = PCA(3).fit_transform(StandardScaler().fit_transform(X))
    plain = LogisticRegression(C=0.1, class_weight="balanced").fit(scaled, y)
    np.testing.assert_allclose(X @ model.coef + model.intercept, plain.decision_function(scaled), rtol=1e-3, atol=1e-4)


def test_too_few_samples_are_refused() -> None:
    rng = np.random.default_rng(3)
    z, y, groups = minority(20, rng)
    model = fit_bags(y[groups], groups, logits=z)
    assert not model.available
    assert "needs 30 samples" in model.reason
    assert model.probability(groups, logits=z).isna().all()


def test_state_survives_json_and_arrays() -> None:
    z, y, groups = minority(30, np.random.default_rng(4))
    model = fit_bags(y[groups], groups, logits=z)
    again = BagModel.from_dict(json.loads(json.dumps(model.to_dict(), allow_nan=False)), model.arrays())
    np.testing.assert_array_equal(again.probability(groups, logits=z), model.probability(groups, logits=z))


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="one response per sample"):
        fit_bags([0, 1, 1], ["a", "a", "b"], logits=[0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="needs the embedding"):
        fit_bags([0, 1], ["a", "b"], kind="pseudobulk")
    with pytest.raises(ValueError, match="needs the `logits`"):
        fit_bags([0, 1], ["a", "b"])
