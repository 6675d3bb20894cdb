"""Closed forms against fits that are really made again."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from sc_drugresp._reference.card import reliability, tissue_means
from sc_drugresp._reference.ridge import fit_drugs


@pytest.fixture
def screen():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(40, 15))
    Y = Z[:, :3] + rng.normal(size=(40, 3)) + 2
    Y[rng.random(Y.shape) < 0.2] = np.nan
    return Z, Y, np.repeat(np.arange(20), 2)


def test_weights_are_those_of_a_ridge_with_free_intercept(screen) -> None:
    Z, Y, families = screen
    fit = fit_drugs(Z, Y, families, 3.0)
    for j in range(3):
        there = np.isfinite(Y[:, j])
        ours = Ridge(alpha=3.0 * 15).fit(Z[there], Y[there, j])
        np.testing.assert_allclose(fit.weights[:, j], ours.coef_, atol=1e-9)
        np.testing.assert_allclose(fit.intercept[j], ours.intercept_, atol=1e-9)


def test_held_out_predictions_are_those_of_refits_without_the_family(screen) -> None:
    Z, Y, families = screen
    fit = fit_drugs(Z, Y, families, 3.0)
    for j in range(3):
        there = np.isfinite(Y[:, j])
        for i in np.flatnonzero(there):
            train = there & (families != families[i])
            ours = Ridge(alpha=3.0 * 15).fit(Z[train], Y[train, j])
            np.testing.assert_allclose(fit.held_out[i, j], ours.predict(Z[[i]])[0], atol=1e-9)
            np.testing.assert_allclose(fit.held_out_mean[i, j], Y[train, j].mean(), atol=1e-12)
    assert (np.isnan(fit.held_out) == np.isnan(Y)).all()


def test_card_does_not_reward_the_mean_of_the_training_lines() -> None:
    """A drug that nothing predicts has no skill, although means of training lines move against the line left out."""
    rng = np.random.default_rng(1)
    Z, Y = rng.normal(size=(200, 30)), rng.normal(size=(200, 20))
    fit = fit_drugs(Z, Y, np.arange(200), 3.0)
    card = reliability(Y, fit, np.full(200, "", dtype=object), [str(i) for i in range(20)])
    assert abs(card["r"].mean()) < 0.06
    raw = [np.corrcoef(fit.held_out_mean[:, j], Y[:, j])[0, 1] for j in range(20)]
    assert max(raw) < -0.99
    assert card["r_within_tissue"].isna().all()


def test_card_tells_skill_within_tissues_from_skill_between_them() -> None:
    rng = np.random.default_rng(2)
    tissue = np.repeat(["a", "b"], 100).astype(object)
    side = np.where(tissue == "a", 2.0, -2.0)
    Z = np.column_stack([side, rng.normal(size=(200, 4))])
    between, inside = side + rng.normal(size=200), Z[:, 1] * 2 + rng.normal(size=200)
    Y = np.column_stack([between, inside])
    card = reliability(Y, fit_drugs(Z, Y, np.arange(200), 0.1), tissue, ["between", "inside"])
    assert card.loc["between", "r"] > 0.8
    assert abs(card.loc["between", "r_within_tissue"]) < 0.2
    assert card.loc["between", "gain_over_tissue"] < 0.05
    assert card.loc["inside", "r_within_tissue"] > 0.8
    assert card.loc["inside", "gain_over_tissue"] > 0.7


def test_tissues_with_few_lines_have_no_mean() -> None:
    tissue = np.array(["a"] * 6 + ["b"] * 4 + [""] * 6, dtype=object)
    names, means = tissue_means(np.arange(16.0)[:, None], tissue)
    assert names == ["a"]
    assert means.tolist() == [[2.5]]
