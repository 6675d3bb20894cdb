"""Classifiers of samples: a decisive minority, refusals, and the linear map they are stored as."""

from __future__ import annotations

import json

import numpy as np
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
    model = fit_bags(y[groups], groups, z)
    z, y, groups = minority(100, rng)
    by_bag = roc_auc_score(y, model.probability(groups, z))
    by_mean = roc_auc_score(y, np.bincount(groups, weights=z) / 80)
    assert by_bag > 0.95
    assert by_mean < 0.85


def test_linear_map_equals_the_fitted_pipeline() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    z, y, groups = minority(40, np.random.default_rng(2))
    found = fit_bags(y[groups], groups, z).probability(groups, z).to_numpy()
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    own = [z[groups == g] for g in range(40)]
    rows = np.array([[x.mean(), x.std(), *np.quantile(x, levels), (x > 0).mean()] for x in own])
    scaled = StandardScaler().fit_transform(rows)
    possible = [
        LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(scaled, y).predict_proba(scaled)[:, 1]
        for c in (0.001, 0.01, 0.1, 1.0)
    ]
    assert min(np.abs(found - p).max() for p in possible) < 1e-6


def test_too_few_samples_are_refused() -> None:
    rng = np.random.default_rng(3)
    z, y, groups = minority(20, rng)
    model = fit_bags(y[groups], groups, z)
    assert not model.available
    assert "needs 30 samples" in model.reason
    assert model.probability(groups, z).isna().all()


def test_state_survives_json_and_arrays() -> None:
    z, y, groups = minority(30, np.random.default_rng(4))
    model = fit_bags(y[groups], groups, z)
    again = BagModel.from_dict(json.loads(json.dumps(model.to_dict(), allow_nan=False)), model.arrays())
    np.testing.assert_array_equal(again.probability(groups, z), model.probability(groups, z))
